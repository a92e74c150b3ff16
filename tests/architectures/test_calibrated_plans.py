"""Calibration, plans of principal axes and SliceGPT's sequential bases run on every architecture."""

from __future__ import annotations

import pytest
import torch

from rotcheck.models import architecture_of, sites
from rotcheck.models.tiny import SMALL
from rotcheck.slicing import Schedule, calibrate, fuse, make_plan, rotate_and_slice, sequential_plan, walk

ROTATABLE = [model_type for model_type in SMALL if model_type not in ("gemma2", "gemma3_text")]
QUARTER = Schedule.constant(0.25, round_to=1)


@pytest.mark.parametrize("model_type", ROTATABLE)
def test_moments_are_those_of_the_stream_that_the_norms_read(model_type, subject):
    made = subject(model_type)
    calibration = calibrate(made.model, [made.batch])
    mask, signals = made.batch["attention_mask"].bool(), {}
    walk(fuse(made.model), made.batch, lambda site, x: signals.setdefault(site, x))
    assert len(signals) == len(calibration.moments()) == len(sites(architecture_of(made.model), made.model.config))
    for site, moment in enumerate(calibration.moments()):
        rows = signals[site][mask]
        # The stock norms compute in float32, whatever the dtype.
        assert (moment - rows.T @ rows).norm() <= 1e-6 * moment.norm()


@pytest.mark.parametrize("grouping", ["per-layer", "global", "k-block:2"])
@pytest.mark.parametrize("model_type", ROTATABLE)
def test_principal_axes_lose_less_than_the_last_ones(model_type, grouping, subject, error):
    made = subject(model_type)
    calibration = calibrate(made.model, [made.batch], statistics=("token_rms",))
    plan = make_plan(calibration, grouping, QUARTER, statistic="token_rms")
    assert set(plan.widths) == {36, 48}
    last = type(plan)(
        bases=tuple(basis.flip(1) for basis in plan.bases), site_basis=plan.site_basis, widths=plan.widths
    )
    kept, lost = rotate_and_slice(made.model, plan), rotate_and_slice(made.model, last)
    assert error(kept, made) < error(lost, made)
    whole = make_plan(calibration, grouping, Schedule.constant(0.0), statistic="token_rms")
    assert error(rotate_and_slice(made.model, whole), made) <= 1e-12


@pytest.mark.parametrize("model_type", ROTATABLE)
def test_sequential_bases(model_type, subject, error):
    made = subject(model_type)
    plan, calibration = sequential_plan(made.model, [made.batch], QUARTER)
    assert calibration.tokens == int(made.batch["attention_mask"].sum())
    assert 0 < error(rotate_and_slice(made.model, plan), made) < 1
    # Nothing is sliced before the first site, and what is cut there is seen by the second.
    direct = calibrate(made.model, [made.batch])
    moments = list(zip(calibration.moments(), direct.moments(), strict=True))
    first, second = ((found - expected).norm() / expected.norm() for found, expected in moments[:2])
    assert first <= 1e-6
    assert second > 1e-6
    whole, _ = sequential_plan(made.model, [made.batch], Schedule.constant(0.0))
    assert error(rotate_and_slice(made.model, whole), made) <= 1e-12


def test_masked_tokens_do_not_count(subject):
    made = subject("mixtral")
    other = dict(made.batch)
    other["input_ids"] = torch.where(made.batch["attention_mask"].bool(), made.batch["input_ids"], 5)
    moments = [calibrate(made.model, [batch]).moments() for batch in (made.batch, other)]
    for one, two in zip(*moments, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-12, atol=1e-12)
