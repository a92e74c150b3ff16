"""rotary_blocks: what RoPE turns and what it leaves alone do not mix."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rotcheck import CacheRotation, Rotation
from rotcheck.bases import haar, principal_basis
from rotcheck.checks.rotary_blocks import mixing
from rotcheck.defects import _spectral as planted
from rotcheck.defects.defect import defects

SEEDS = st.integers(0, 2**31)


def blocks(width, rotary, seed, dtype=torch.float64):
    """Two Haar blocks, with columns in any order."""
    both = torch.block_diag(haar(rotary, seed=seed), haar(width - rotary, seed=seed + 1))
    order = torch.randperm(width, generator=torch.Generator().manual_seed(seed))
    return both[:, order].to(dtype)


def subject(basis, rotary, rotate=None, **declared) -> CacheRotation:
    part = Rotation(rotate or (lambda x: x @ basis), basis=basis, **declared)
    return CacheRotation({(0, 0): part}, rotary=rotary, name="subject")


sizes = st.integers(4, 24).flatmap(lambda width: st.tuples(st.just(width), st.integers(1, width - 1)))


@given(size=sizes, seed=SEEDS)
def test_two_blocks_do_not_mix_in_whatever_order(size, seed):
    width, rotary = size
    assert mixing(blocks(width, rotary, seed), rotary) == 0.0


@given(size=sizes, seed=SEEDS, angle=st.floats(1e-6, math.pi / 4))
def test_the_size_of_one_rotation_across_the_border(size, seed, angle):
    """Two axes turned by an angle have ``sin^2`` of their energy on the other side."""
    width, rotary = size
    basis = blocks(width, rotary, seed)
    here = int(basis[:rotary].square().sum(0).argmax())
    there = int(basis[rotary:].square().sum(0).argmax())
    turn = torch.eye(width, dtype=torch.float64)
    turn[here, here] = turn[there, there] = math.cos(angle)
    turn[here, there], turn[there, here] = math.sin(angle), -math.sin(angle)
    expected = math.sqrt(2 * math.sin(angle) ** 2 / width)
    assert mixing(basis @ turn, rotary) == pytest.approx(expected, rel=1e-6)


@given(size=sizes, seed=SEEDS)
def test_signs_and_order_of_axes_change_nothing(size, seed):
    width, rotary = size
    basis = haar(width, seed=seed)
    signs = torch.ones(width, dtype=torch.float64)
    signs[::2] = -1
    assert mixing(basis.flip(1) * signs, rotary) == pytest.approx(mixing(basis, rotary), abs=1e-12)


@given(size=sizes, seed=SEEDS)
def test_it_is_at_most_the_root_of_a_half(size, seed):
    width, rotary = size
    assert 0 < mixing(haar(width, seed=seed), rotary) <= math.sqrt(0.5)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize(("width", "rotary"), [(20, 12), (24, 6), (6, 2), (20, 18)])
def test_right_blocks_pass_in_every_dtype(judge, width, rotary, dtype):
    verdict = judge("rotary_blocks", subject(blocks(width, rotary, 3, dtype), rotary))
    assert verdict.outcome.value == "passed", str(verdict)
    assert verdict.headline == f"subject has axes in the first {rotary} coordinates or in the others"


@given(seed=SEEDS)
def test_axes_of_the_whole_head_fail_with_their_size(judge, seed):
    basis = haar(20, seed=seed)
    verdict = judge("rotary_blocks", subject(basis, 12), seed)
    assert verdict.outcome.value == "failed"
    assert verdict.matched == f"axes with {mixing(basis, 12) ** 2:.2g} of their energy in the other part"
    assert verdict.hint == "diagonalise the first 12 coordinates and the other 8 by themselves"
    assert verdict.place == "layer 0 head 0 keys"


def test_principal_axes_of_the_whole_head_are_named(judge):
    q = haar(20, seed=3)
    covariance = (q * torch.logspace(0, -2, 20).double()) @ q.T
    basis = principal_basis(covariance)[0]
    assert judge("rotary_blocks", subject(basis, 12, covariance=covariance)).matched == (
        "the principal axes of the whole head"
    )
    parted = covariance.clone()
    parted[:12, 12:] = parted[12:, :12] = 0
    names = [rival.name for rival in judge("rotary_blocks", subject(basis, 12, covariance=parted)).rivals]
    assert "the principal axes of the whole head" not in names  # those of this covariance are blocks


@pytest.mark.parametrize(("size", "outcome"), [(1e-16, "passed"), (1e-10, "failed"), (1e-3, "failed")])
def test_how_little_is_seen(judge, size, outcome):
    skew = haar(20, seed=5) - haar(20, seed=5).T
    basis = blocks(20, 12, 3) @ torch.matrix_exp(size * skew)
    assert judge("rotary_blocks", subject(basis, 12)).outcome.value == outcome


def test_what_is_applied_counts_and_not_what_is_declared(judge):
    declared, applied = blocks(20, 12, 3), haar(20, seed=4)
    assert judge("rotary_blocks", subject(declared, 12, lambda x: x @ applied)).outcome.value == "failed"
    assert judge("rotary_blocks", subject(applied, 12, lambda x: x @ declared)).outcome.value == "passed"


@given(seed=SEEDS, size=st.floats(0, 100))
def test_a_mean_is_no_mixing(judge, seed, size):
    basis = blocks(20, 12, seed)
    mean = size * torch.randn(20, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    verdict = judge("rotary_blocks", subject(basis, 12, lambda x: (x - mean) @ basis, mean=mean), seed)
    assert verdict.outcome.value == "passed", str(verdict)


def test_values_may_mix_as_they_like(judge):
    keys, values = blocks(20, 12, 3), haar(20, seed=1)
    parts = {
        (0, 0, "keys"): Rotation(lambda x: x @ keys, basis=keys),
        (0, 0, "values"): Rotation(lambda x: x @ values, basis=values),
    }
    assert judge("rotary_blocks", CacheRotation(parts, rotary=12)).outcome.value == "passed"


def test_the_first_wrong_head_is_named(judge):
    bases = [blocks(20, 12, 3), haar(20, seed=1), haar(20, seed=2)]
    heads = {(0, head): Rotation(lambda x, u=u: x @ u, basis=u) for head, u in enumerate(bases)}
    assert judge("rotary_blocks", CacheRotation(heads, rotary=12)).place == "layer 0 head 1 keys"


def test_a_column_of_zeros_or_numbers_that_are_not_finite_fail(judge):
    basis = blocks(20, 12, 3)
    for spoil in (0.0, float("nan")):
        factor = torch.ones(20, dtype=torch.float64)
        factor[4] = spoil
        verdict = judge("rotary_blocks", subject(basis, 12, lambda x, factor=factor: (x @ basis) * factor))
        assert verdict.outcome.value == "failed"


def test_our_own_cache_keeps_them_apart(judge):
    verdict = judge("rotary_blocks", planted.right_partial(0))
    assert verdict.outcome.value == "passed"
    assert verdict.power > 1e3


def test_our_own_cache_told_to_take_the_whole_head(judge):
    wrong = next(d for d in defects("CacheRotation") if d.name == "cache_whole_head_under_partial_rotary")
    verdict = judge("rotary_blocks", wrong.plant(0))
    assert verdict.headline == (
        "planted has the principal axes of the whole head at layer 0 head 0 keys, "
        "declared axes in the first 12 coordinates or in the others"
    )


def test_it_applies_where_rope_turns_a_part(judge, right):
    verdict = judge("rotary_blocks", right)
    assert verdict.outcome.value == "not applicable"
    assert verdict.headline.startswith("planted does not supply rotary: ")
    values = {(0, 0, "values"): Rotation(lambda x: x, basis=haar(6, seed=1))}
    assert judge("rotary_blocks", CacheRotation(values, rotary=2, name="s")).headline == (
        "s does not supply heads: the rotations of the keys"
    )
