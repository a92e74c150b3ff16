"""A Haar orientation turns the kept columns and keeps every kept subspace, so the sliced model stays the same."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rotcheck.models.adversarial import adversarial_batch, adversarial_opt
from rotcheck.slicing import Schedule, calibrate, make_plan, rotate_and_slice


@pytest.fixture(scope="module")
def model():
    return adversarial_opt(seed=111)


@pytest.fixture(scope="module")
def calibration(model):
    return calibrate(model, [adversarial_batch(model, seed=seed) for seed in range(3)])


def pair(calibration, grouping, schedule, seed=0):
    return tuple(
        make_plan(calibration, grouping, schedule, orientation=orientation, seed=seed)
        for orientation in ("pca", "haar")
    )


@settings(deadline=None, max_examples=15)
@given(
    grouping=st.sampled_from(["per-layer", "global", "k-block:2"]),
    widths=st.lists(st.integers(1, 40), min_size=7, max_size=7),
    seed=st.integers(0, 2**31),
)
def test_every_leading_subspace_is_kept(calibration, grouping, widths, seed):
    pca, haar = pair(calibration, grouping, Schedule.explicit(widths), seed)
    for site in range(7):
        ours, theirs = haar.sliced_basis(site), pca.sliced_basis(site)
        assert (ours @ ours.T - theirs @ theirs.T).abs().max() <= 1e-12


@pytest.mark.parametrize("schedule", [Schedule.constant(0.25), Schedule.linear(0.1, 0.5, head_sliced=True)])
@pytest.mark.parametrize("grouping", ["per-layer", "global", "k-block:2"])
def test_the_sliced_model_is_the_same_function(model, calibration, grouping, schedule, logits_of, logit_error):
    batch = adversarial_batch(model, seed=9)
    pca, haar = (logits_of(rotate_and_slice(model, plan), batch) for plan in pair(calibration, grouping, schedule))
    assert logit_error(haar, pca, batch) <= 1e-12


def test_columns_beyond_the_widest_site_stay(calibration):
    pca, haar = pair(calibration, "global", Schedule.constant(0.25, head_sliced=True))
    assert torch.equal(haar.basis(0)[:, 24:], pca.basis(0)[:, 24:])
    assert not torch.allclose(haar.basis(0)[:, :24], pca.basis(0)[:, :24])


def test_energy_is_spread_over_the_kept_axes(calibration):
    # PCA puts the energy of a site into its first axes; that is what a random orientation is there to undo.
    pca, haar = pair(calibration, "per-layer", Schedule.constant(0.25))
    moment = calibration.moments("raw")[2]
    first = [(plan.basis(2)[:, 0] @ moment @ plan.basis(2)[:, 0]).item() for plan in (pca, haar)]
    assert first[1] < 0.7 * first[0]


def test_the_seed_decides_and_bases_are_turned_independently(calibration):
    schedule = Schedule.constant(0.25)
    _, first = pair(calibration, "per-layer", schedule, seed=1)
    pca, again = pair(calibration, "per-layer", schedule, seed=1)
    _, other = pair(calibration, "per-layer", schedule, seed=2)
    assert all(torch.equal(a, b) for a, b in zip(first.bases, again.bases, strict=True))
    assert not torch.allclose(first.basis(0), other.basis(0))
    turns = [pca.sliced_basis(site).T @ first.sliced_basis(site) for site in (0, 1)]
    assert not torch.allclose(*turns)
