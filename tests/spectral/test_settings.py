"""Settings hold only what can be built, and say what they are."""

from __future__ import annotations

import math
from dataclasses import FrozenInstanceError, replace
from fractions import Fraction

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rotcheck import RotcheckError
from rotcheck.spectral import Settings


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"rotation": "pca"}, r"^rotation 'pca' is not one of spectral, none, haar, hadamard$"),
        ({"codebook": "kmeans"}, r"^codebook 'kmeans' is not one of coordinate, regime, gaussian, uniform, minmax$"),
        (
            {"allocation": "best"},
            r"^allocation 'best' is not one of water-filling, .*, or the bits of regimes, such as",
        ),
        ({"allocation": "9/2"}, "allocation '9/2' is not one of"),
        ({"allocation": "4/2/1"}, "allocation '4/2/1' is not one of"),
        ({"allocation": "2/4"}, r"^allocation '2/4': leading coordinates need more bits than the others$"),
        ({"allocation": "3/3"}, "leading coordinates need more bits"),
        ({"bits": 0}, r"^bits 0 per coordinate: use more than 0 and at most 8$"),
        ({"bits": 8.5}, r"^bits 8\.5 per coordinate"),
        ({"bits": math.nan}, r"^bits nan per coordinate"),
        ({"value_bits": -1.0}, r"^value_bits -1\.0 per coordinate"),
        ({"sketch": 12}, r"^a sketch of 12 signs does not fill whole bytes: use a multiple of 8$"),
        ({"sketch": -8}, "a sketch of -8 signs"),
        ({"seed": -1}, r"^seed -1 is outside \[0, 2\*\*63\)"),
        ({"seed": 2**63}, "is outside"),
    ],
)
def test_what_cannot_be_built_is_refused(fields, says):
    with pytest.raises(RotcheckError, match=says):
        Settings(**fields)


@pytest.mark.parametrize("name", ["4/2", "3/1", "8/0", "1/0"])
def test_regimes_are_read(name):
    assert Settings(allocation=name).regimes == tuple(int(part) for part in name.split("/"))


@pytest.mark.parametrize("name", ["water-filling", "two-regimes", "uniform"])
def test_other_allocations_name_no_bits(name):
    assert Settings(allocation=name).regimes is None


@example(tenths=14, width=45)
@example(tenths=7, width=90)
@given(tenths=st.integers(1, 80), width=st.integers(1, 256))
def test_the_budget_is_the_whole_part_of_the_exact_product(tenths, width):
    """1.4 * 45 is 62.99999999999999 in floating point, and 63 bits."""
    assert Settings(bits=tenths / 10).budget(width, "keys") == math.floor(Fraction(tenths, 10) * width)


@given(tenths=st.integers(1, 80), others=st.integers(1, 80), width=st.integers(1, 256))
def test_values_have_a_budget_of_their_own(tenths, others, width):
    settings = Settings(bits=tenths / 10, value_bits=others / 10)
    assert settings.each("keys") == tenths / 10
    assert settings.each("values") == others / 10
    assert settings.budget(width, "values") == Settings(bits=others / 10).budget(width, "keys")
    assert replace(settings, value_bits=None).budget(width, "values") == settings.budget(width, "keys")


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, "spectral water-filling 4 bits, coordinate"),
        ({"bits": 2.5, "value_bits": 3}, "spectral water-filling 2.5 bits, values 3, coordinate"),
        ({"allocation": "4/2", "bits": 7, "value_bits": 1, "codebook": "minmax"}, "spectral 4/2, minmax"),
        (
            {"rotation": "haar", "ordered": False, "centred": False, "normalize": True, "sketch": 64},
            "haar water-filling 4 bits, coordinate, in any order, uncentred, norms apart, sketch of 64",
        ),
        ({"ordered": False}, "spectral water-filling 4 bits, coordinate"),  # principal axes have their order
    ],
)
def test_text(fields, expected):
    assert str(Settings(**fields)) == expected


def test_they_are_values():
    assert Settings(bits=3.0) == Settings(bits=3.0)
    assert len({Settings(bits=3.0), Settings(bits=3.0), Settings(bits=2.0)}) == 2
    with pytest.raises(FrozenInstanceError):
        Settings().bits = 3.0  # type: ignore[misc]
