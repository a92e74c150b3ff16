"""scores: rotated queries meet rotated keys as plain ones do, in every query head."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rotcheck import CacheRotation, Convention, Rotation, RotcheckError
from rotcheck.bases import haar
from rotcheck.subjects.cache import Head

SEEDS = st.integers(0, 2**31)


def subject(bases, queries, query_heads, **declared) -> CacheRotation:
    heads = {
        Head(layer, head, "keys"): Rotation(lambda x, u=u: x @ u, basis=u, **declared)
        for layer, row in enumerate(bases)
        for head, u in enumerate(row)
    }
    return CacheRotation(heads, queries=queries, query_heads=query_heads, name="subject")


def bank(seed, layers, heads, width, dtype=torch.float64):
    return [[haar(width, seed=seed + 31 * i + j).to(dtype) for j in range(heads)] for i in range(layers)]


@settings(max_examples=10)
@given(seed=SEEDS, heads=st.integers(1, 4), group=st.integers(1, 4), width=st.integers(6, 24))
def test_every_grouping_that_is_right_passes(judge, seed, heads, group, width):
    bases = bank(seed, 2, heads, width)
    right = subject(bases, lambda x, layer, head: x @ bases[layer][head // group], heads * group)
    verdict = judge("scores", right, seed)
    assert verdict.outcome.value == "passed", str(verdict)


@settings(max_examples=10)
@given(seed=SEEDS, heads=st.integers(2, 4), group=st.integers(2, 4), width=st.integers(6, 24))
def test_heads_dealt_out_in_turn_are_named(judge, seed, heads, group, width):
    bases = bank(seed, 1, heads, width)
    verdict = judge(
        "scores", subject(bases, lambda x, layer, head: x @ bases[layer][head % heads], heads * group), seed
    )
    assert verdict.outcome.value == "failed"
    assert verdict.place == "layer 0 query head 1"  # the first one that lands elsewhere
    assert verdict.matched == "the scores of queries in the basis of KV head 1 (heads dealt out in turn)"
    assert verdict.hint == f"query heads 0 to {group - 1} read KV head 0"


@settings(max_examples=8)
@given(seed=SEEDS, wrong=st.sampled_from(["not rotated", "times basis.T"]), dtype=st.sampled_from(["64", "32"]))
def test_queries_that_are_rotated_otherwise_are_named(judge, seed, wrong, dtype):
    bases = bank(seed, 1, 2, 20, getattr(torch, f"float{dtype}"))
    queries = (lambda x, layer, head: x) if wrong == "not rotated" else lambda x, layer, head: x @ bases[0][head // 2].T
    verdict = judge("scores", subject(bases, queries, 4), seed)
    assert verdict.outcome.value == "failed"
    assert verdict.matched.endswith(wrong)
    assert verdict.headline.startswith("subject gives the scores of queries ")


@pytest.mark.parametrize(
    ("shift", "name"), [(1, "layer 1 KV head 0"), (2, "layer 2 KV head 0"), (-1, "layer 2 KV head 0")]
)
def test_a_basis_of_another_layer(judge, shift, name):
    bases = bank(3, 3, 2, 20)
    verdict = judge("scores", subject(bases, lambda x, layer, head: x @ bases[(layer + shift) % 3][head // 2], 4))
    assert verdict.outcome.value == "failed"
    assert verdict.place == "layer 0 query head 0"
    expected = f"the scores of queries in the basis of {name}"
    assert verdict.matched == (expected if shift == 1 else "")  # two layers away is no neighbour


def test_one_wrong_query_head_of_many(judge):
    bases = bank(4, 2, 2, 20)
    queries = lambda x, layer, head: x @ bases[layer][0 if (layer, head) == (1, 3) else head // 2]  # noqa: E731
    verdict = judge("scores", subject(bases, queries, 4))
    assert (verdict.outcome.value, verdict.place) == ("failed", "layer 1 query head 3")


def test_without_a_group_the_mapping_has_no_rival(judge):
    bases = bank(5, 1, 3, 20)
    verdict = judge("scores", subject(bases, lambda x, layer, head: x @ bases[layer][head], 3))
    assert [rival.name for rival in verdict.rivals] == [
        "the scores of queries that are not rotated",
        "the scores of queries times basis.T",
    ]


def test_one_basis_for_all_heads_is_no_rival(judge):
    basis = haar(20, seed=1)
    shared = [[basis, basis], [basis, basis]]
    verdict = judge("scores", subject(shared, lambda x, layer, head: x @ basis, 4))
    assert verdict.outcome.value == "passed"
    assert len(verdict.rivals) == 2


def test_a_mistake_that_queries_and_keys_share_is_not_seen(judge):
    bases = bank(6, 1, 2, 20)
    heads = {
        Head(0, head, "keys"): Rotation(lambda x, u=u: x @ u.T, basis=u) for head, u in enumerate(bases[0])
    }  # fmt: skip
    both = CacheRotation(heads, queries=lambda x, layer, head: x @ bases[0][head // 2].T, query_heads=4)
    assert judge("scores", both).outcome.value == "passed"
    keys_alone = CacheRotation(heads, queries=lambda x, layer, head: x @ bases[0][head // 2], query_heads=4)
    assert judge("scores", keys_alone).outcome.value == "failed"
    assert judge("side", both).matched == "x @ basis.T"


@settings(max_examples=8)
@given(seed=SEEDS, size=st.floats(0.1, 100))
def test_what_centring_takes_from_all_keys_alike_is_no_difference(judge, seed, size):
    basis = haar(20, seed=seed)
    mean = size * torch.randn(20, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    part = Rotation(lambda x: (x - mean) @ basis, basis=basis, mean=mean)
    right = CacheRotation({(0, 0): part}, queries=lambda x, layer, head: x @ basis, query_heads=2)
    assert judge("scores", right, seed).outcome.value == "passed"
    wrong = CacheRotation({(0, 0): part}, queries=lambda x, layer, head: (x - mean) @ basis, query_heads=2)
    assert judge("scores", wrong, seed).outcome.value == "failed"


def test_keys_of_unit_length(judge):
    basis = haar(20, seed=1)
    part = Rotation(lambda x: (x / x.norm(dim=-1, keepdim=True)) @ basis, basis=basis, normalizes=True)
    right = CacheRotation({(0, 0): part}, queries=lambda x, layer, head: x @ basis, query_heads=2)
    assert judge("scores", right).outcome.value == "passed"


def test_a_declared_transposition_is_followed(judge):
    basis = haar(20, seed=1)
    part = Rotation(lambda x: x @ basis.T, basis=basis, convention=Convention(claim="x @ basis.T"))
    right = CacheRotation({(0, 0): part}, queries=lambda x, layer, head: x @ basis.T, query_heads=2)
    assert judge("scores", right).outcome.value == "passed"
    wrong = CacheRotation({(0, 0): part}, queries=lambda x, layer, head: x @ basis, query_heads=2)
    assert judge("scores", wrong).outcome.value == "failed"


def test_a_symmetric_basis_cannot_tell(judge):
    v = haar(20, seed=1)[:, :1]
    basis = torch.eye(20, dtype=torch.float64) - 2 * v @ v.T
    basis = (basis + basis.T) / 2
    part = Rotation(lambda x: x @ basis, basis=basis)
    verdict = judge("scores", CacheRotation({(0, 0): part}, queries=lambda x, layer, head: x @ basis, query_heads=2))
    assert verdict.outcome.value == "undecided"
    assert verdict.needs == "KV heads whose bases differ, and a basis that is not its own transpose"


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_no_alarm_in_any_dtype(judge, dtype):
    worst = 0.0
    for seed in range(4):
        bases = bank(seed, 1, 2, 24, dtype)
        verdict = judge("scores", subject(bases, lambda x, layer, head, b=bases: x @ b[layer][head // 2], 4), seed)
        assert verdict.outcome.value == "passed", str(verdict)
        worst = max(worst, verdict.claim.error / verdict.allowed.value)
    assert 0.005 < worst < 0.5


def test_keys_without_a_basis_are_judged_by_what_they_do(judge):
    basis = haar(20, seed=1).float()  # without a basis, float32 is what is fed
    part = Rotation(lambda x: x @ basis, covariance=torch.eye(20).double())
    right = CacheRotation({(0, 0): part}, queries=lambda x, layer, head: x @ basis, query_heads=2)
    verdict = judge("scores", right)
    assert verdict.outcome.value == "passed"
    assert [rival.name for rival in verdict.rivals] == ["the scores of queries that are not rotated"]


@pytest.mark.parametrize(
    ("places", "query_heads", "message"),
    [
        ([(0, 0), (0, 2)], 4, "query_heads=4 do not share the declared KV heads 0, 2 of layer 0 evenly"),
        ([(0, 1)], 4, "query_heads=4 do not share the declared KV heads 1 of layer 0 evenly"),
        ([(0, 0), (0, 1), (0, 2)], 4, "query_heads=4 do not share the declared KV heads 0, 1, 2 of layer 0 evenly"),
        ([(0, 0), (1, 0), (1, 1)], 3, "query_heads=3 do not share the declared KV heads 0, 1 of layer 1 evenly"),
    ],
)
def test_query_heads_that_cannot_be_shared_out_are_wrong_input(judge, places, query_heads, message):
    heads = {place: Rotation(lambda x: x, basis=haar(6, seed=i)) for i, place in enumerate(places)}
    with pytest.raises(RotcheckError, match=message):
        judge("scores", CacheRotation(heads, queries=lambda x, layer, head: x, query_heads=query_heads))


def test_rotations_of_values_alone_have_no_scores(judge):
    values = {(0, 0, "values"): Rotation(lambda x: x, basis=haar(6, seed=1))}
    verdict = judge("scores", CacheRotation(values, queries=lambda x, layer, head: x, query_heads=2, name="s"))
    assert verdict.headline == "s does not supply heads: the rotations of the keys"
    assert judge("scores", CacheRotation(values, name="s")).headline == "s does not supply queries"


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda x: x[:, :3], "queries of subject, layer 0 head 0 answered with shape"),
        (lambda x: None, "queries of subject, layer 0 head 0 answered with NoneType"),
        (lambda x: 1 / 0, "queries of subject, layer 0 head 0 raised ZeroDivisionError"),
    ],
)
def test_queries_that_cannot_be_used_fail(judge, answer, words):
    bases = bank(1, 1, 2, 20)
    verdict = judge("scores", subject(bases, lambda x, layer, head: answer(x), 4))
    assert verdict.headline.startswith("subject cannot be run: ")
    assert words in verdict.headline


def test_queries_that_are_not_finite_fail(judge):
    bases = bank(1, 1, 2, 20)
    assert judge("scores", subject(bases, lambda x, layer, head: x * float("nan"), 4)).outcome.value == "failed"


@settings(max_examples=5)
@given(seed=SEEDS)
def test_numpy_queries(judge, seed):
    bases = [[haar(14, seed=seed).numpy(), haar(14, seed=seed + 1).numpy()]]
    right = subject(bases, lambda x, layer, head: x @ bases[layer][head // 2], 4)
    assert judge("scores", right, seed).outcome.value == "passed"
