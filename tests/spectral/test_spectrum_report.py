"""One row for every head, with both effective dimensions."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from rotcheck.spectral import CacheCalibration, SpectrumRow, head_axes, spectrum_report


@pytest.mark.parametrize("family", ["opt", "llama", "phi", "deepseek_v3"])
def test_every_head_has_a_row(family, calibrated):
    calibration = calibrated(family)
    rows = spectrum_report(calibration)
    expected = [
        (layer, kind, head)
        for layer in range(3)
        for kind in ("keys", "values")
        for head in range(getattr(calibration, kind)[layer].heads)
    ]
    assert [(row.layer, row.kind, row.head) for row in rows] == expected
    for row in rows:
        statistics = getattr(calibration, row.kind)[row.layer]
        assert (row.width, row.tokens) == (statistics.width, calibration.tokens)


@pytest.mark.parametrize("family", ["opt", "llama", "phi"])
def test_numbers_are_those_of_the_axes(family, calibrated):
    """With partial rotary too, where the axes are those of two parts."""
    calibration = calibrated(family)
    for row in spectrum_report(calibration):
        statistics = getattr(calibration, row.kind)[row.layer]
        for centred, name in ((True, "centred"), (False, "uncentred")):
            axes = head_axes(statistics, centred=centred)
            assert getattr(row, name) == axes.effective[row.head].item()
            assert getattr(row, f"{name}_split") == axes.splits[row.head]
            assert getattr(row, f"{name}_gap") == axes.gaps[row.head]


def calibration_of(statistics, calibrated):
    return CacheCalibration(keys=(statistics,), values=(statistics,), tokens=90, model=calibrated("opt").model)


def test_the_mean_explains_the_difference(rows_of, statistics_of, calibrated):
    """``|m|^2 / E|x|^2`` from nothing to all, and the uncentred dimension with it."""
    found = [
        spectrum_report(calibration_of(statistics_of(rows_of(1, mean=mean)), calibrated))[0]
        for mean in (0.0, 0.5, 2.0, 40.0)
    ]
    shares = [row.mean_share for row in found]
    assert shares == sorted(shares)
    assert shares[0] < 0.05
    assert shares[-1] > 0.99
    assert found[0].uncentred == pytest.approx(found[0].centred, rel=0.1)
    assert found[-1].uncentred < 1.05
    assert found[-1].centred == pytest.approx(found[0].centred, rel=1e-6)


def test_shares_are_those_of_the_rows(rows_of, statistics_of, calibrated):
    rows = rows_of(3)
    for row in spectrum_report(calibration_of(statistics_of(rows), calibrated)):
        x = rows[row.head]
        assert row.mean_share == pytest.approx((x.mean(0).square().sum() / x.square().sum(1).mean()).item())


def test_rows_of_zeros_have_one_dimension_and_no_mean(statistics_of, calibrated):
    statistics = statistics_of(torch.zeros(1, 6, 4, dtype=torch.float64))
    row = spectrum_report(calibration_of(statistics, calibrated))[0]
    assert (row.mean_share, row.centred, row.uncentred) == (0.0, 1.0, 1.0)


def test_a_row_is_a_value(calibrated):
    row = spectrum_report(calibrated("opt"))[0]
    assert dataclasses.replace(row) == row
    assert {type(value) for value in dataclasses.asdict(row).values()} == {int, float, str}
    assert [field.name for field in dataclasses.fields(SpectrumRow)][:5] == ["layer", "head", "kind", "width", "tokens"]
