"""degenerate_splits: a leading regime of one coordinate, of all but one, of all."""

from __future__ import annotations

import pytest
import torch

from rotcheck.subjects import Codec

NAME = "degenerate_splits"


def coded(x, k, *, bits=4, size=lambda part: part.square().mean(-1, keepdim=True).sqrt()):
    """Equal steps over 3 deviations of each regime of each row."""
    parts = []
    for part in (x[:, :k], x[:, k:]):
        if part.shape[1]:
            reach = 3 * size(part)
            steps = 2**bits - 1
            parts.append(((part / reach).clamp(-1, 1) * steps / 2).round() * 2 / steps * reach)
    return torch.cat(parts, dim=-1)


@pytest.fixture
def codec(samples):
    def build(split, **changes):
        return Codec(split(5), samples=samples(), split=split, name="f", **changes)

    return build


@pytest.mark.parametrize("bits", [2, 4, 6])
def test_a_code_that_handles_one_coordinate_passes(run, codec, bits):
    assert run.outcome(NAME, codec(lambda k: lambda x: coded(x, k, bits=bits))) == "passed"


@pytest.mark.parametrize("name", ["two regimes", "ranges of each row", "unit rows, centred"])
def test_our_own_paths_pass(run, right, name):
    verdict = run(NAME, right(name))
    assert verdict.outcome.value == "passed"
    assert verdict.headline.endswith("has the error of ordinary splits")


def test_the_deviation_of_one_element_is_found(run, codec):
    """``std`` of one number is NaN, which a rounding of NaN keeps."""
    verdict = run(NAME, codec(lambda k: lambda x: coded(x, k, size=lambda part: part.std(-1, keepdim=True))))
    assert verdict.place == "split at 1 of 24"
    assert verdict.headline == (
        "f does not match the error of ordinary splits at split at 1 of 24 (relative error nan, allowed 1.00e+00)"
    )
    assert "deviation of one element" in verdict.hint


@pytest.mark.parametrize("where", [1, 23, 24])
def test_each_of_the_three_is_judged(run, codec, where):
    def split(k):
        return lambda x: coded(x, k) * (torch.nan if k == where else 1.0)

    assert run(NAME, codec(split)).place == f"split at {where} of 24"


@pytest.mark.parametrize(("loss", "outcome"), [(0.1, "passed"), (1.0, "failed"), (10.0, "failed")])
def test_a_finite_error_is_compared_with_ordinary_splits(run, codec, samples, loss, outcome):
    deviation = samples().std()

    def split(k):
        return lambda x: coded(x, k) + (loss * deviation if k == 1 else 0.0)

    assert run.outcome(NAME, codec(split)) == outcome


def test_an_empty_tail_that_gives_nan_is_found(run, codec):
    def split(k):
        def round_trip(x):
            return coded(x, k) + x[:, k:].mean() * 0

        return round_trip

    assert run(NAME, codec(split)).place == "split at 24 of 24"


def test_a_crash_is_a_failure(run, codec):
    def split(k):
        if k == 24:
            raise ValueError("regimes must not be empty")
        return lambda x: coded(x, k)

    verdict = run(NAME, codec(split))
    assert verdict.headline == "f cannot be run: split(24) of f raised ValueError: regimes must not be empty"


def test_ordinary_splits_that_are_broken_do_not_excuse_the_others(run, codec):
    def split(k):
        return lambda x: coded(x, k) * (torch.nan if k in (2, 12) else 1.0)

    assert run.outcome(NAME, codec(split)) == "failed"


def test_a_lossless_code_passes(run, codec):
    assert run.outcome(NAME, codec(lambda k: torch.clone)) == "passed"


def test_it_names_the_splits_that_it_compares(run, codec):
    facts = dict(run(NAME, codec(lambda k: lambda x: coded(x, k))).facts)
    assert {"error at 2", "error at 12", "error at 22"} < set(facts)


@pytest.mark.parametrize("width", [2, 4])
def test_where_every_split_is_at_the_edge_it_does_not_apply(run, width):
    rows = torch.randn(50, width, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    codec = Codec(torch.clone, samples=rows, split=lambda k: torch.clone)
    assert f"of {width} coordinates every split is at the edge" in run(NAME, codec).headline


def test_without_split_it_does_not_apply(run, samples):
    assert run.outcome(NAME, Codec(torch.clone, samples=samples())) == "not applicable"
