"""Widths: rounding as SliceGPT rounds, the head's site, and what is refused."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rotcheck.errors import RotcheckError
from rotcheck.slicing import Schedule


@pytest.mark.parametrize(
    ("sparsity", "hidden", "width"),
    [(0.10, 768, 688), (0.25, 768, 576), (0.30, 768, 536), (0.20, 4096, 3272), (0.25, 4096, 3072), (0.30, 2560, 1792)],
)
def test_published_widths(sparsity, hidden, width):
    assert Schedule.constant(sparsity).widths(hidden, 25) == (width,) * 24 + (hidden,)


@given(hidden=st.integers(1, 300), sites=st.integers(2, 9), step=st.integers(1, 64))
def test_zero_sparsity_is_full_width_whatever_the_rounding(hidden, sites, step):
    assert Schedule.constant(0.0, round_to=step).widths(hidden, sites) == (hidden,) * sites


@settings(deadline=None)
@given(percent=st.integers(1, 90), hidden=st.integers(64, 4096), step=st.sampled_from([1, 2, 8, 16]))
def test_a_width_is_the_largest_multiple_not_above_the_kept_fraction(percent, hidden, step):
    exact = (100 - percent) * hidden // 100
    if exact < step:
        return
    width = Schedule.constant(percent / 100, round_to=step).widths(hidden, 3)[0]
    assert width == exact - exact % step


def test_a_product_just_below_an_integer_loses_no_column():
    assert (1 - 0.8) * 40 < 8
    assert Schedule.constant(0.8).widths(40, 3)[0] == 8


def test_the_head_is_sliced_only_when_asked():
    assert Schedule.constant(0.5).widths(40, 3) == (16, 16, 40)
    assert Schedule.constant(0.5, head_sliced=True).widths(40, 3) == (16, 16, 16)


def test_linear_runs_from_first_to_last():
    widths = Schedule.linear(0.1, 0.5, round_to=1).widths(100, 6)
    assert widths == (90, 80, 70, 60, 50, 100)
    assert Schedule.linear(0.1, 0.5, round_to=1, head_sliced=True).widths(100, 6)[-1] == 50


@pytest.mark.parametrize("sites", [2, 3])
def test_one_layer_works(sites):
    widths = Schedule.linear(0.25, 0.5, round_to=1).widths(40, sites)
    assert widths[0] == 30
    assert len(widths) == sites


def test_explicit_widths_are_taken_as_they_are():
    assert Schedule.explicit([3, 7, 40]).widths(40, 3) == (3, 7, 40)


@pytest.mark.parametrize("sparsity", [-0.1, 1.0, 1.5, float("nan"), float("inf"), "0.25", None, True])
def test_a_sparsity_outside_the_range_is_named(sparsity):
    with pytest.raises(RotcheckError, match="sparsity"):
        Schedule.constant(sparsity)


@pytest.mark.parametrize("step", [0, -8, 2.0, True])
def test_a_rounding_step_must_be_a_positive_integer(step):
    with pytest.raises(RotcheckError, match="round_to"):
        Schedule.constant(0.25, round_to=step)


def test_a_width_that_rounds_to_zero_names_the_site():
    with pytest.raises(RotcheckError, match="site 0"):
        Schedule.constant(0.9).widths(40, 3)


@pytest.mark.parametrize("widths", [(8, 8), (8, 8, 8, 8), (8, 8, 41)])
def test_explicit_widths_must_fit_the_model(widths):
    with pytest.raises(RotcheckError, match=r"explicit widths|exceeds"):
        Schedule.explicit(widths).widths(40, 3)


@pytest.mark.parametrize("width", [0, -1, 2.5, True])
def test_explicit_widths_must_be_positive_integers(width):
    with pytest.raises(RotcheckError, match="positive integer"):
        Schedule.explicit((8, width, 8))
