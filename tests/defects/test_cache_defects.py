"""Each bug planted in a cache does what its summary says: seen directly, without any check."""

from __future__ import annotations

import copy

import pytest
import torch

from rotcheck.checks._caches import Stored, changed, fed, mapped, rounding, short, stored_by
from rotcheck.checks.cache_bytes import held_bytes
from rotcheck.defects import cache_memory, defects
from rotcheck.defects._spectral import bench, right, right_partial
from rotcheck.defects.cache_rope import projected_keys
from rotcheck.spectral.moments import moments
from rotcheck.subjects import CacheRotation
from rotcheck.subjects.cache import Head

SEED = 0
FIRST = Head(0, 0, "keys")


def plant(name: str, seed: int = SEED) -> CacheRotation:
    return next(defect for defect in defects() if defect.name == name).plant(seed)


def given(subject: CacheRotation) -> Stored:
    return stored_by(subject, short(subject.batches[0]))


def through(subject: CacheRotation, pieces: list[int] | None = None, *, lossless: bool = False) -> Stored:
    """What comes back for what the model stores."""
    make = subject.lossless if lossless else subject.cache
    return fed(make(), given(subject), pieces or [14], what="it")


def operator(subject: CacheRotation, place: Head) -> torch.Tensor:
    return subject.heads[place].operator()


def axes(kind: str, layer: int, head: int, model: str = "llama") -> torch.Tensor:
    return getattr(bench(SEED, model).codec, kind)[layer].axes.basis[head]


def off(actual: Stored, reference: Stored) -> list[tuple[bool, bool]]:
    """Which of keys and values differ, layer by layer."""
    return [
        tuple(bool(changed(one, two, rounding(two)).any()) for one, two in zip(pair, expected, strict=True))
        for pair, expected in zip(actual, reference, strict=True)
    ]


@pytest.mark.parametrize(
    ("name", "place", "expected"),
    [
        ("cache_transposed_both_ways", FIRST, lambda: axes("keys", 0, 0).T),
        ("cache_transposed_both_ways", Head(2, 1, "values"), lambda: axes("values", 2, 1).T),
        ("cache_transposed_one_way", FIRST, lambda: axes("keys", 0, 0).T),
        ("cache_ascending_axes", FIRST, lambda: axes("keys", 0, 0).flip(1)),
        ("cache_ascending_axes", Head(0, 0, "values"), lambda: axes("values", 0, 0)),
        ("cache_values_in_the_key_basis", Head(1, 0, "values"), lambda: axes("keys", 1, 0)),
        ("cache_values_in_the_key_basis", Head(1, 0, "keys"), lambda: axes("keys", 1, 0)),
        ("cache_basis_of_the_next_head", Head(1, 1, "keys"), lambda: axes("keys", 1, 0)),
        ("cache_basis_of_the_layer_before", Head(1, 0, "values"), lambda: axes("values", 0, 0)),
        ("cache_basis_of_the_layer_before", Head(0, 1, "values"), lambda: axes("values", 2, 1)),
        ("cache_back_by_the_next_head", Head(0, 0, "values"), lambda: axes("values", 0, 0)),
    ],
)
def test_the_matrix_that_is_applied(name, place, expected):
    torch.testing.assert_close(operator(plant(name), place), expected(), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("cache_transposed_both_ways", (False, False)),
        ("cache_ascending_axes", (False, False)),
        ("cache_transposed_one_way", (True, True)),
        ("cache_back_by_the_next_head", (False, True)),
        ("cache_values_never_unrotated", (False, True)),
        ("cache_keys_never_unrotated", (True, False)),
        ("cache_mean_not_added_back", (False, True)),
        ("cache_mean_subtracted_twice", (False, True)),
        ("cache_unrotated_behind_rope", (True, False)),
        ("cache_steps_in_another_basis", (True, False)),
    ],
)
def test_what_comes_back_changed_without_loss(name, expected):
    subject = plant(name)
    assert off(through(subject, [10, 1, 1, 2], lossless=True), given(subject)) == [expected] * 3


def test_values_without_their_mean_are_short_of_it():
    subject = plant("cache_mean_not_added_back")
    missing = given(subject)[1][1].double() - through(subject, lossless=True)[1][1].double()
    mean = bench(SEED).codec.values[1].axes.mean
    torch.testing.assert_close(missing, mean[:, None].expand_as(missing), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("head", "dealt", "right_head"), [(0, 0, 0), (1, 1, 0), (2, 0, 1), (3, 1, 1)]
)  # fmt: skip
def test_queries(head, dealt, right_head):
    x = torch.eye(20, dtype=torch.float64)
    assert torch.equal(plant("cache_query_heads_dealt_out").queries(x, 1, head), axes("keys", 1, dealt))
    assert torch.equal(plant("cache_queries_transposed").queries(x, 1, head), axes("keys", 1, right_head).T)
    assert torch.equal(plant("cache_queries_not_rotated").queries(x, 1, head), x)
    torch.testing.assert_close(right(SEED).queries(x, 1, head), axes("keys", 1, right_head))


@pytest.mark.parametrize("name", ["cache_update_returns_its_input", "cache_hook_never_fires"])
@pytest.mark.parametrize("pieces", [[14], [9, 1, 4]])
def test_what_came_in_comes_back(name, pieces):
    subject = plant(name)
    for pair, expected in zip(through(subject, pieces), given(subject), strict=True):
        assert all(torch.equal(one, two) for one, two in zip(pair, expected, strict=True))


def test_a_prompt_as_it_was_given():
    subject, fine = plant("cache_prompt_as_given"), right(SEED)
    for pair, expected in zip(through(subject), given(subject), strict=True):
        assert torch.equal(pair[0], expected[0])
    for pair, expected in zip(through(subject, [13, 1]), through(fine, [13, 1]), strict=True):
        assert torch.equal(pair[0], expected[0])


def test_the_layer_that_is_skipped():
    subject = plant("cache_layer_skipped")
    assert off(through(subject), given(subject)) == [(True, True), (True, True), (False, False)]


def test_what_is_declared_and_what_is_not():
    assert {place.kind for place in plant("cache_values_passed_over").heads} == {"keys"}
    assert {place.head for place in plant("cache_query_heads_for_kv_heads").heads} == {0, 1, 2, 3}
    assert {part.width for part in plant("cache_width_derived").heads.values()} == {11}


def test_values_that_were_starved_of_rows():
    found, subject = bench(SEED), plant("cache_starved_values")
    place = Head(1, 0, "values")
    few = moments(found.calibration.values[1].rows[:, :12]).second(centred=True)[0]
    basis = subject.heads[place].basis
    turned = basis.T @ few @ basis
    assert (turned - torch.diag(turned.diagonal())).norm() < 1e-9 * turned.norm()
    torch.testing.assert_close(subject.heads[place].covariance, right(SEED).heads[place].covariance)
    torch.testing.assert_close(subject.heads[FIRST].basis, right(SEED).heads[FIRST].basis)


def test_codes_scaled_by_the_call():
    subject = plant("cache_scale_of_the_call")
    assert off(through(subject, [13, 1]), through(subject)) == [(True, True)] * 3
    fine = right(SEED)
    assert off(through(fine, [13, 1]), through(fine)) == [(False, False)] * 3


def test_all_rows_are_the_first_one():
    for keys, values in through(plant("cache_batch_dropped")):
        for x in (keys, values):
            assert len(x) == 3
            assert torch.equal(x[1], x[0])
            assert torch.equal(x[2], x[0])
    assert not torch.equal(*(through(right(SEED))[0][0][row] for row in (0, 1)))


def weight(subject: CacheRotation, tokens: int) -> int:
    cache = subject.cache()
    fed(cache, mapped(given(subject), lambda x: x[:, :, :tokens]), [tokens], what="it")
    return held_bytes(cache)


@pytest.mark.parametrize(
    ("name", "per_token"),
    [
        ("cache_codes_in_int32", 4 * 96),
        ("cache_copy_kept", 96 + 3 * 2 * 20 * 4),
        ("cache_kept_for_each_query_head", 192),
    ],
)
def test_what_a_token_takes(name, per_token):
    subject = plant(name)
    assert (weight(subject, 12) - weight(subject, 5)) / (7 * 3) == per_token
    assert off(through(subject, [9, 1, 4]), through(right(SEED))) == [(False, False)] * 3  # and nothing else is wrong


@pytest.mark.parametrize(
    ("name", "settings", "side"),
    [("cache_norms_not_counted", cache_memory.NORMS, 2), ("cache_ranges_not_counted", cache_memory.RANGES, 8)],
)
def test_side_information_that_is_left_out(name, settings, side):
    codec = bench(SEED, settings=settings).codec
    assert codec.bytes_per_token - plant(name).bytes_per_token == 12 * side


def test_norms_that_are_kept_beside_the_codes_follow_them():
    subject, order = cache_memory.norms_beside(SEED), torch.tensor([2, 0, 1])
    stored = given(subject)
    for name, wrong in (("cache_norms_not_reordered", True), (None, False)):
        cache = (plant(name) if name else subject).cache()
        fed(cache, stored, [14], what="it")
        before = cache.layers[0].lengths.clone()
        cache.reorder_cache(order)
        assert torch.equal(cache.layers[0].lengths, before if wrong else before[order])
    for name, left in (("cache_norms_not_cropped", 14), (None, 11)):
        cache = (plant(name) if name else subject).cache()
        fed(cache, stored, [14], what="it")
        cache.crop(-3)
        assert cache.layers[0].keys.shape[2] == 11
        assert cache.layers[0].lengths.shape[2] == left


@pytest.mark.parametrize(
    "name", ["cache_axes_sorted_again", "cache_saved_in_half_precision", "cache_mean_not_saved", "cache_drawn_anew"]
)
def test_what_is_loaded_is_not_what_was_saved(name):
    subject = plant(name)
    again = fed(subject.reload()(), given(subject), [14], what="it")
    assert any(any(pair) for pair in off(again, through(subject)))


def test_a_loader_that_asks_for_another_name():
    with pytest.raises(KeyError, match="eigenvectors"):
        plant("cache_saved_under_another_name").reload()


def test_axes_of_keys_that_had_no_positions():
    found, subject = bench(SEED), plant("cache_calibrated_before_rope")
    second = moments(projected_keys(found)[1]).second(centred=True)[0]
    basis = subject.heads[Head(1, 0, "keys")].basis
    turned = basis.T @ second @ basis
    assert (turned - torch.diag(turned.diagonal())).norm() < 1e-9 * turned.norm()
    behind = basis.T @ subject.heads[Head(1, 0, "keys")].covariance @ basis
    assert (behind - torch.diag(behind.diagonal())).norm() > 0.1 * behind.norm()


def test_keys_are_projected_before_rope():
    found = bench(SEED)
    before = projected_keys(found)
    assert [tuple(keys.shape) for keys in before] == [(2, 8 * 48, 20)] * 3
    first = found.model.model.layers[0]
    again = copy.deepcopy(first.self_attn.k_proj)
    assert torch.equal(again.weight, first.self_attn.k_proj.weight)
    assert not first.self_attn.k_proj._forward_hooks


def test_axes_across_the_border_of_rope():
    whole = plant("cache_whole_head_under_partial_rotary").heads[FIRST].basis
    cut = plant("cache_axes_cut_into_blocks").heads[FIRST].basis
    fine = right_partial(SEED).heads[FIRST].basis
    for basis, across in ((whole, True), (cut, False), (fine, False)):
        share = basis[:12].square().sum(0)
        assert bool(((share > 0.05) & (share < 0.95)).any()) is across
        torch.testing.assert_close(basis.T @ basis, torch.eye(20, dtype=torch.float64))
    assert (cut - fine).norm() > 0.5


@pytest.mark.parametrize(("name", "equal"), [("weights_rotated_before_rope", False), ("value_weights", True)])
def test_rotations_folded_into_weights(name, equal):
    from rotcheck.defects.cache_rope import value_weights

    pair = plant(name) if name != "value_weights" else value_weights(SEED)
    ids = bench(SEED).batch["input_ids"]
    with torch.no_grad():
        before, after = pair.before(ids).logits, pair.after(ids).logits
    assert torch.allclose(before, after, atol=1e-4) is equal
    assert pair.before is bench(SEED).model
    assert not torch.equal(
        pair.after.model.layers[0].self_attn.q_proj.weight
        if not equal
        else pair.after.model.layers[0].self_attn.v_proj.weight,
        pair.before.model.layers[0].self_attn.q_proj.weight
        if not equal
        else pair.before.model.layers[0].self_attn.v_proj.weight,
    )
