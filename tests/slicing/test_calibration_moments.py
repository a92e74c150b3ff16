"""Calibration sums the fused stream's outer products, in float64, whatever the batches it came in."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rotcheck.errors import RotcheckError
from rotcheck.models import architecture_of
from rotcheck.models.adversarial import adversarial_batch, adversarial_opt
from rotcheck.models.streams import record
from rotcheck.slicing import calibrate, fuse

ALL = ("raw", "unit_trace", "token_rms")


def close(found, expected, rtol=1e-12):
    return all((a - b).abs().max() <= rtol * b.abs().max() for a, b in zip(found, expected, strict=True))


@pytest.fixture(scope="module")
def model():
    return adversarial_opt(seed=71)


@pytest.fixture(scope="module")
def signals(model):
    """Streams of an unpadded batch without their mean, computed the plain way."""
    batch, seen = adversarial_batch(model, seed=72, padded=False), {}
    with torch.no_grad(), record(model, architecture_of(model), seen.__setitem__):
        model(**batch)
    rows = [seen[site].reshape(-1, 40) for site in range(7)]
    return batch, [x - x.mean(dim=1, keepdim=True) for x in rows]


def test_raw_is_the_sum_of_outer_products(model, signals):
    batch, rows = signals
    found = calibrate(model, [batch])
    assert found.tokens == 36
    assert {moment.dtype for moment in found.moments("raw")} == {torch.float64}
    assert close(found.moments("raw"), [x.T @ x for x in rows])


def test_unit_trace_gives_every_site_the_same_energy(model, signals):
    batch, rows = signals
    found = calibrate(model, [batch], statistics=("unit_trace",)).moments("unit_trace")
    assert [moment.trace().item() for moment in found] == pytest.approx([1.0] * 7)
    assert close(found, [x.T @ x / x.square().sum() for x in rows])


def test_token_rms_gives_every_token_the_same_energy(model, signals):
    batch, rows = signals
    found = calibrate(model, [batch], statistics=("token_rms",)).moments("token_rms")
    assert [moment.trace().item() for moment in found] == pytest.approx([36 * 40] * 7)
    unit = [x / x.square().mean(dim=1, keepdim=True).sqrt() for x in rows]
    assert close(found, [x.T @ x for x in unit])


def test_the_fused_model_has_the_same_moments(model, signals):
    batch, _ = signals
    found, fused = (calibrate(subject, [batch], statistics=ALL) for subject in (model, fuse(model)))
    for statistic in ALL:
        assert close(fused.moments(statistic), found.moments(statistic))


@settings(deadline=None, max_examples=8)
@given(seed=st.integers(0, 2**31), sizes=st.lists(st.integers(1, 4), min_size=2, max_size=4))
def test_cutting_into_batches_changes_nothing(model, seed, sizes):
    whole = adversarial_batch(model, seed=seed, batch=sum(sizes), length=6)
    parts = [torch.split(value, sizes) for value in whole.values()]
    split = [dict(zip(whole, part, strict=True)) for part in zip(*parts, strict=True)]
    found, expected = calibrate(model, iter(split)), calibrate(model, [whole])
    assert found.tokens == expected.tokens
    assert close(found.moments(), expected.moments())


@settings(deadline=None, max_examples=8)
@given(seed=st.integers(0, 2**31))
def test_padding_is_excluded(model, seed):
    batch = adversarial_batch(model, seed=seed)
    rows = [ids[mask.bool()][None] for ids, mask in zip(batch["input_ids"], batch["attention_mask"], strict=True)]
    padded, alone = calibrate(model, [batch], statistics=ALL), calibrate(model, rows, statistics=ALL)
    assert padded.tokens == alone.tokens == int(batch["attention_mask"].sum())
    for statistic in ALL:
        assert close(padded.moments(statistic), alone.moments(statistic))


def test_a_fully_padded_row_adds_nothing(model):
    batch = adversarial_batch(model, seed=3)
    empty = {"input_ids": torch.ones(1, 12, dtype=torch.long), "attention_mask": torch.zeros(1, 12, dtype=torch.long)}
    both = {key: torch.cat([batch[key], empty[key]]) for key in batch}
    assert close(calibrate(model, [both]).moments(), calibrate(model, [batch]).moments())
    assert close(calibrate(model, [batch, empty]).moments(), calibrate(model, [batch]).moments())


def test_sums_stay_in_float64_for_a_half_model():
    model = adversarial_opt(seed=71, dtype=torch.bfloat16)
    batch, seen = adversarial_batch(model, seed=72, padded=False), {}
    with torch.no_grad(), record(model, architecture_of(model), seen.__setitem__):
        model(**batch)
    rows = [seen[site].reshape(-1, 40).double() for site in range(7)]
    rows = [x - x.mean(dim=1, keepdim=True) for x in rows]
    assert close(calibrate(model, [batch]).moments(), [x.T @ x for x in rows])


def test_kept_energy_is_the_share_of_the_projected_signal(model, signals):
    from rotcheck.slicing import Schedule, random_plan

    batch, rows = signals
    plan = random_plan(40, 3, "per-layer", Schedule.linear(0.1, 0.5), 7)
    expected = [((x @ plan.sliced_basis(site)).square().sum() / x.square().sum()).item() for site, x in enumerate(rows)]
    assert calibrate(model, [batch]).kept_energy(plan) == pytest.approx(expected, rel=1e-12)
    assert expected[-1] == pytest.approx(1.0)


def test_only_what_was_collected_is_given(model, signals):
    found = calibrate(model, [signals[0]], statistics=("token_rms",))
    with pytest.raises(RotcheckError, match=r"holds token_rms, not unit_trace"):
        found.moments("unit_trace")
    with pytest.raises(RotcheckError, match="'median' is not one of raw, unit_trace, token_rms"):
        found.moments("median")
    assert "\n" not in repr(found)
    assert "36 tokens" in repr(found)


def test_layers_and_branches_are_those_of_the_model(model, signals):
    found = calibrate(model, [signals[0]])
    assert (found.n_layers, found.branches, found.hidden_size, len(found.sites)) == (3, 2, 40, 7)
