"""Witnesses: the same everywhere, and independent of one another."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rotcheck.errors import RotcheckError
from rotcheck.witness import Witness

seeds = st.integers(0, 2**63 - 1)


@settings(max_examples=30)
@given(seeds, st.text(max_size=20))
def test_the_same_witness_gives_the_same_numbers(seed, label):
    assert torch.equal(Witness(seed=seed).normal(label, 8), Witness(seed=seed).normal(label, 8))


@settings(max_examples=30)
@given(seeds, seeds, st.text(max_size=20))
def test_other_seeds_give_other_numbers(one, other, label):
    same = torch.equal(Witness(seed=one).normal(label, 8), Witness(seed=other).normal(label, 8))
    assert same == (one == other)


def test_the_numbers_are_these():
    """They are part of every reproduction line, so they may not change unnoticed."""
    assert Witness(seed=0).normal("activations", 2).tolist() == pytest.approx([0.68687, -1.310098], abs=1e-6)
    assert Witness(seed=2**40 + 1).normal("basis", 2).tolist() == pytest.approx([-1.109139, 1.727602], abs=1e-6)


def test_labels_are_independent():
    witness = Witness(seed=5)
    labels = ["activations", "other activations", "basis", "other bases", "a", "b"]
    draws = torch.stack([witness.normal(label, 20_000) for label in labels])
    correlation = torch.corrcoef(draws) - torch.eye(len(labels))
    assert correlation.abs().max() < 5 / 20_000**0.5


def test_neighbouring_seeds_are_independent():
    draws = torch.stack([Witness(seed=seed).normal("activations", 20_000) for seed in range(6)])
    assert (torch.corrcoef(draws) - torch.eye(6)).abs().max() < 5 / 20_000**0.5


def test_one_draw_does_not_move_the_next():
    witness = Witness()
    expected = witness.normal("b", 4)
    witness.normal("a", 1000)
    assert torch.equal(witness.normal("b", 4), expected)


def test_the_global_generator_is_left_alone():
    torch.manual_seed(3)
    before = torch.get_rng_state()
    Witness(seed=1).normal("activations", 100)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_a_dtype_only_rounds(dtype):
    assert torch.equal(Witness().normal("x", 9, dtype=dtype), Witness().normal("x", 9).to(dtype))


@pytest.mark.parametrize("seed", [-1, 2**63])
def test_a_seed_out_of_range_is_refused(seed):
    with pytest.raises(RotcheckError, match=r"is outside \[0, 2\*\*63\)"):
        Witness(seed=seed)


@pytest.mark.parametrize("rows", [1, 0, -4])
def test_one_row_cannot_decide(rows):
    with pytest.raises(RotcheckError, match="use at least 2"):
        Witness(rows=rows)
