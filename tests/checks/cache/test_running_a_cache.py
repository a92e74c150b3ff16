"""What the cache checks stand on: which tokens are run, what is stored, what is fed, and what counts as changed."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer

from rotcheck import CacheRotation, Convention, Rotation
from rotcheck.bases import haar
from rotcheck.checks._caches import (
    LONGEST,
    STEPS,
    applied,
    cache_allowance,
    cached_logits,
    changed,
    fed,
    first_changed,
    mapped,
    plain_logits,
    rounding,
    short,
    stored_by,
)
from rotcheck.checks._mistaken import mistaken_cache
from rotcheck.checks._mistakes import NAMED, NEEDED, Turn, turns
from rotcheck.defects import _spectral as planted
from rotcheck.errors import SubjectError
from rotcheck.models.caching import with_cache

SEEDS = st.integers(0, 2**31)


def padded(rows, length, seed, side):
    """Ids that name their place, with up to length - 1 padding in each row on one side."""
    ids = 100 * torch.arange(1, rows + 1)[:, None] + torch.arange(length)
    gaps = torch.randint(length, (rows,), generator=torch.Generator().manual_seed(seed))
    columns = torch.arange(length).expand(rows, -1)
    kept = columns >= gaps[:, None] if side == "left" else columns < length - gaps[:, None]
    return {"input_ids": ids * kept, "attention_mask": kept.long()}


@given(rows=st.integers(1, 4), length=st.integers(1, 60), seed=SEEDS, side=st.sampled_from(["left", "right"]))
def test_the_last_columns_that_hold_a_token_are_run(rows, length, seed, side):
    batch = padded(rows, length, seed, side)
    found = short(batch)
    kept_rows, columns = found["input_ids"].shape
    assert 1 <= columns <= LONGEST
    assert 1 <= kept_rows <= rows
    assert found["attention_mask"].any(1).all()  # no row without a token
    assert found["attention_mask"][:, -1].any()  # and a token at the end
    shown = set(found["input_ids"].flatten().tolist()) - {0}
    assert shown <= set(batch["input_ids"].flatten().tolist())
    longest = int(batch["attention_mask"].sum(1).max())
    assert int(found["attention_mask"].sum(1).max()) == min(longest, LONGEST)


def test_a_short_batch_is_left_as_it_is(found):
    batch = short(found.batch)
    assert all(torch.equal(batch[name], found.batch[name]) for name in batch)


@pytest.mark.parametrize("kind", ["llama", "phi", "mistral"])
def test_with_a_plain_cache_the_logits_are_those_of_one_forward_pass(make_model, kind):
    model, batch = make_model(kind, 2, torch.float64), planted.tokens(2, rows=1)
    found = cached_logits(model, batch, DynamicCache(config=model.config), what="it")
    with torch.no_grad():
        expected = model(batch["input_ids"]).logits[0]
    assert found.shape == (14, planted.VOCABULARY)
    torch.testing.assert_close(found, expected)


def test_the_last_tokens_come_one_at_a_time(found):
    seen = []

    class Watching(DynamicLayer):
        def update(self, keys, values, *args, **kwargs):
            seen.append(keys.shape[2])
            return super().update(keys, values)

    cached_logits(found.model, found.batch, Cache(layers=[Watching() for _ in range(3)]), what="it")
    assert seen == [14 - STEPS] * 3 + [1] * 3 * STEPS


def test_padding_has_no_logits(found):
    assert len(plain_logits(found.model, found.batch)) == int(found.batch["attention_mask"].sum()) == 35


@pytest.mark.parametrize("kind", ["llama", "mistral"])
def test_what_is_stored_is_what_a_plain_cache_holds(make_model, kind):
    model, batch = make_model(kind, 2, torch.float32), planted.tokens(2, rows=2, length=6)
    subject = CacheRotation(model=model, inputs=batch, cache=lambda: None)
    plain = DynamicCache(config=model.config)
    with torch.no_grad():
        model(**batch, use_cache=True, **with_cache(model, plain))
    for (keys, values), layer in zip(stored_by(subject, batch), plain.layers, strict=True):
        assert torch.equal(keys, layer.keys)
        assert torch.equal(values, layer.values)


def test_layers_that_hand_over_nothing_are_named(found):
    model = planted.llama(3)
    model.config.num_hidden_layers = 4
    subject = CacheRotation(model=model, inputs=found.batch, cache=lambda: None, name="s")
    with pytest.raises(SubjectError, match="the model of s hands no keys of layer 3 to its cache"):
        stored_by(subject, found.batch)


@settings(max_examples=10)
@given(cuts=st.lists(st.integers(1, 5), min_size=1, max_size=5), seed=SEEDS)
def test_a_cache_is_fed_all_pieces_in_order(cuts, seed):
    generator = torch.Generator().manual_seed(seed)
    stored = [tuple(torch.randn(2, 3, sum(cuts), d, generator=generator) for d in (5, 7)) for _ in range(2)]
    back = fed(DynamicCache(), stored, cuts, what="it")
    for pair, expected in zip(back, stored, strict=True):
        assert all(torch.equal(one, two) for one, two in zip(pair, expected, strict=True))


def test_what_is_fed_is_not_written_to():
    stored = [(torch.ones(1, 2, 4, 3), torch.ones(1, 2, 4, 3))]

    class InPlace:
        def update(self, keys, values, layer):
            return keys.mul_(3), values.mul_(5)

    fed(InPlace(), stored, [4], what="it")
    assert all(torch.equal(x, torch.ones(1, 2, 4, 3)) for x in stored[0])


@given(seed=SEEDS, size=st.floats(1e-9, 1e-2))
def test_which_vectors_are_changed(seed, size):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(2, 3, 5, 7, generator=generator, dtype=torch.float64)
    moved = torch.rand(2, 3, 5, generator=generator) < 0.3
    other = x + 2 * size * x * moved.unsqueeze(-1)
    assert torch.equal(changed(other, x, size), moved)
    assert not changed(other, x, 3 * size).any()
    assert torch.equal(changed(other, x, 0.0), moved)


def test_nan_zeros_and_other_shapes_are_changes():
    x = torch.ones(2, 3, 5, 7)
    spoilt = x.clone()
    spoilt[1, 2, 4, 0] = float("nan")
    assert changed(spoilt, x, 1.0).sum() == 1
    assert changed(x, torch.zeros_like(x), 1.0).all()
    assert not changed(torch.zeros_like(x), torch.zeros_like(x), 0.0).any()
    assert changed(x.repeat(1, 2, 1, 1), x, 1.0).shape == (2, 3, 5)
    assert changed(x.repeat(1, 2, 1, 1), x, 1.0).all()
    assert changed(x[..., :6], x, 1.0).all()


@given(kept=st.integers(1, 9))
def test_of_different_lengths_the_last_tokens_are_compared(kept):
    x = torch.arange(9.0).reshape(1, 1, 9, 1) + 1
    assert not changed(x[:, :, -kept:], x, 0.0).any()
    assert changed(x, x[:, :, -kept:], 0.0).shape == (1, 1, kept)
    assert changed(x[:, :, :kept], x, 0.0).all() == (kept < 9)


def test_the_first_changed_head_comes_in_order_of_layers_keys_values_heads():
    x = torch.ones(2, 3, 5, 7)
    stored = [(x, x), (x, x)]
    assert first_changed(stored, stored, lambda tensor: 0.0) == ""
    wrong = [(x.clone(), x.clone()), (x.clone(), x.clone())]
    wrong[1][1][0, 1, 4] = 2
    assert first_changed(wrong, stored, lambda tensor: 0.0) == "layer 1 head 1 values"
    wrong[1][0][1, 2, 0] = 2
    assert first_changed(wrong, stored, lambda tensor: 0.0) == "layer 1 head 2 keys"
    assert first_changed(wrong, stored, lambda tensor: 2.0) == ""
    assert mapped(stored, lambda tensor: tensor * 2)[0][1].eq(2).all()


def test_rounding_is_that_of_the_dtype_and_of_float32_at_the_finest():
    x = torch.ones(1, 1, 1, 18)
    assert rounding(x.double()) == rounding(x) == pytest.approx(8 * 7 * 2.0**-24)
    assert rounding(x.bfloat16()) == pytest.approx(8 * (2.0**-8 + 6 * 2.0**-24))


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
def test_the_allowance_is_the_models_own_floor(make_model, dtype):
    model, batch = make_model("llama", 4, getattr(torch, dtype)), planted.tokens(4)
    allowed = cache_allowance(model, batch, plain_logits(model, batch))
    bounds = {"float64": (1e-6, 1e-4), "float32": (1e-6, 1e-4), "float16": (1e-3, 0.05), "bfloat16": (0.01, 0.5)}
    low, high = bounds[dtype]
    assert low < allowed.value < high
    assert "the model in" in allowed.derivation or "u_storage" in allowed.derivation


def test_a_float64_model_gets_the_allowance_of_float32(make_model):
    batch = planted.tokens(4)
    models = [make_model("llama", 4, dtype) for dtype in (torch.float64, torch.float32)]
    one, two = (cache_allowance(model, batch, plain_logits(model, batch)) for model in models)
    assert one.value == pytest.approx(two.value, rel=0.5)


@given(seed=SEEDS, dtype=st.sampled_from([torch.float64, torch.float32]))
def test_the_matrix_that_a_rotation_says_it_applies(seed, dtype):
    basis = haar(9, seed=seed).to(dtype)
    assert torch.equal(applied(Rotation(lambda x: x, basis=basis)), basis.double())
    other = Rotation(lambda x: x, basis=basis, convention=Convention(claim="x @ basis.T"))
    assert torch.equal(applied(other), basis.double().T)


@given(seed=SEEDS, heads=st.integers(1, 3), dtype=st.sampled_from([torch.float64, torch.float32]))
def test_a_turn_turns_each_head_by_its_own_matrix(seed, heads, dtype):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(2, heads, 4, 5, generator=generator, dtype=dtype)
    turn = Turn(
        matrix=torch.randn(heads, 5, 5, generator=generator, dtype=torch.float64),
        offset=torch.randn(heads, 5, generator=generator, dtype=torch.float64),
    )
    y = turn.of(x)
    assert y.dtype == dtype
    for head in range(heads):
        expected = x[:, head].double() @ turn.matrix[head] + turn.offset[head]
        torch.testing.assert_close(y[:, head], expected.to(dtype))
    assert not turn.idle


def test_what_changes_nothing_is_idle():
    eye, zero = torch.eye(5).double().expand(2, 5, 5), torch.zeros(2, 5).double()
    assert Turn(matrix=eye, offset=zero).idle
    u = torch.stack([haar(5, seed=i) for i in range(2)])
    assert Turn(matrix=u @ u.mT, offset=zero).idle
    assert not Turn(matrix=u, offset=zero).idle
    assert not Turn(matrix=eye, offset=zero + 1e-3).idle


@pytest.mark.parametrize("mistake", [*NEEDED, *NAMED], ids=lambda mistake: mistake.name.replace(" ", "-"))
def test_a_mistaken_cache_changes_what_it_says_and_nothing_else(right, found, mistake):
    stored = stored_by(right, short(right.batches[0]))
    (_, made), *_ = turns(right, stored, (mistake,))
    assert {kind for _, kind in made} == set(mistake.kinds)
    back = fed(mistaken_cache(found.model.config, made), stored, [14], what="it")
    for layer, (pair, expected) in enumerate(zip(back, stored, strict=True)):
        for kind, one, two in zip(("keys", "values"), pair, expected, strict=True):
            off = changed(one, two, rounding(two))
            assert off.any() == (kind in mistake.kinds), (layer, kind)


def test_what_centring_takes_away_is_given_back_or_not(right, found):
    """Values that are still rotated come without the mean or with it, as code may have it."""
    bare, whole = (
        next(turn[0, "values"] for mistake, turn in turns(right, stored_by(right, short(right.batches[0])), (m,)))
        for m in (NEEDED[0], NAMED[1])
    )
    mean = found.codec.values[0].axes.mean
    torch.testing.assert_close(whole.offset - bare.offset, mean)
    torch.testing.assert_close(bare.offset, -(mean.unsqueeze(1) @ found.codec.values[0].axes.basis).squeeze(1))


def test_layers_without_all_their_heads_are_left_out(right):
    stored = stored_by(right, short(right.batches[0]))
    some = {place: part for place, part in right.heads.items() if (place.layer, place.head) != (1, 0)}
    subject = replace(right, heads=some, queries=None, query_heads=None)
    (_, made), *_ = turns(subject, stored, (NEEDED[0],))
    assert set(made) == {(0, "values"), (2, "values")}
