"""Bases are the principal axes of everything that carries them, and keep the most energy there is."""

from __future__ import annotations

import pytest
import torch

from rotcheck.errors import RotcheckError
from rotcheck.models.adversarial import adversarial_batch, adversarial_opt
from rotcheck.slicing import Schedule, calibrate, k_block_groups, make_plan, random_plan

STATISTICS = ["raw", "unit_trace", "token_rms"]
GROUPINGS = ["per-layer", "global", "k-block:1", "k-block:2", "k-block:3"]


@pytest.fixture(scope="module")
def calibration():
    model = adversarial_opt(seed=101)
    return calibrate(model, [adversarial_batch(model, seed=seed) for seed in range(3)], statistics=STATISTICS)


@pytest.mark.parametrize("change", ["mlp", "attention"])
@pytest.mark.parametrize("statistic", STATISTICS)
@pytest.mark.parametrize("grouping", GROUPINGS)
def test_the_sum_over_all_carrying_sites_is_diagonal_and_descending(calibration, grouping, statistic, change):
    plan = make_plan(calibration, grouping, Schedule.constant(0.25), statistic=statistic, change=change)
    moments = calibration.moments(statistic)
    for group, basis in enumerate(plan.bases):
        total = sum(m for m, used in zip(moments, plan.site_basis, strict=True) if used == group)
        turned = basis.T @ total @ basis
        spectrum = turned.diagonal()
        assert (turned - torch.diag(spectrum)).abs().max() <= 1e-12 * spectrum.max()
        assert (spectrum[:-1] >= spectrum[1:] - 1e-12 * spectrum.max()).all()


@pytest.mark.parametrize("change", ["mlp", "attention"])
def test_groups_and_widths_are_those_asked_for(calibration, change):
    plan = make_plan(calibration, "k-block:2", Schedule.linear(0.1, 0.4), change=change)
    assert plan.site_basis == k_block_groups(3, 2, change)
    assert plan.widths == Schedule.linear(0.1, 0.4).widths(40, 7)


def test_per_layer_keeps_the_most_energy_at_every_site(calibration):
    schedule = Schedule.constant(0.25)
    kept = calibration.kept_energy(make_plan(calibration, "per-layer", schedule))
    for rival in ("global", "k-block:1", "k-block:2"):
        other = calibration.kept_energy(make_plan(calibration, rival, schedule))
        assert all(a >= b - 1e-12 for a, b in zip(kept, other, strict=True))
    chance = calibration.kept_energy(random_plan(40, 3, "per-layer", schedule, 5))
    assert all(a > b + 0.05 for a, b in zip(kept[:-1], chance[:-1], strict=True))


def test_kept_energy_is_the_sum_of_the_leading_eigenvalues(calibration):
    plan = make_plan(calibration, "per-layer", Schedule.constant(0.25))
    kept = calibration.kept_energy(plan)
    for site, moment in enumerate(calibration.moments("raw")):
        spectrum = torch.linalg.eigvalsh(moment).flip(0)
        assert kept[site] == pytest.approx((spectrum[: plan.widths[site]].sum() / spectrum.sum()).item(), rel=1e-12)


def test_unit_trace_weights_sites_equally_in_a_shared_basis(calibration):
    raw, equal = (
        make_plan(calibration, "global", Schedule.constant(0.5), statistic=statistic) for statistic in STATISTICS[:2]
    )
    assert min(calibration.kept_energy(equal)) > min(calibration.kept_energy(raw)) - 1e-12
    assert sum(calibration.kept_energy(equal)) >= sum(calibration.kept_energy(raw))


def test_statistics_of_a_single_site_share_their_axes_up_to_scale(calibration):
    raw, equal = (
        make_plan(calibration, "per-layer", Schedule.constant(0.25), statistic=statistic)
        for statistic in ("raw", "unit_trace")
    )
    for a, b in zip(raw.bases, equal.bases, strict=True):
        assert (a.T @ b).abs().diagonal().min() > 1 - 1e-9


def test_the_name_says_how_it_was_made(calibration):
    plan = make_plan(calibration, "k-block:2", Schedule.constant(0.25), statistic="token_rms", orientation="haar")
    assert plan.name == "k-block:2 token_rms haar"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"grouping_name": "k-block:4"}, "from 1 to 3"),
        ({"grouping_name": "layers"}, "not one of"),
        ({"statistic": "cov"}, "not one of"),
        ({"orientation": "hadamard"}, "not one of pca, haar"),
        ({"schedule": Schedule.explicit((8, 8))}, "7 sites"),
    ],
)
def test_wrong_arguments_are_named(calibration, arguments, says):
    with pytest.raises(RotcheckError, match=says):
        make_plan(calibration, **{"grouping_name": "global", "schedule": Schedule.constant(0.25), **arguments})
