"""Centre, rotate, code; decode, un-rotate, add the mean."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rotcheck import RotcheckError
from rotcheck.spectral import Settings, TensorPath, head_axes
from rotcheck.spectral.build import fit_codec
from rotcheck.tolerance import Tolerance, dtype_name

SEEDS = st.integers(0, 2**31)


@pytest.fixture(scope="module")
def path_of(rows_of, statistics_of):
    """A path calibrated on rows of 2 heads."""

    def make(seed=0, *, width=7, kind="keys", rotary=0, coded=True, **fields):
        chosen = Settings(**fields)
        rows = rows_of(seed, width=width)
        axes = head_axes(statistics_of(rows, rotary), chosen.rotation, centred=chosen.centred)
        if not coded:
            return TensorPath(axes=axes, codec=None)
        return TensorPath(axes=axes, codec=fit_codec(axes, rows, chosen, kind, seed=chosen.seed))

    return make


@given(seed=SEEDS, centred=st.booleans())
def test_rotate_is_the_formula(seed, centred, path_of, rows_of):
    """``(x - mean) @ U`` with columns for axes, head by head, for any leading axes."""
    path = path_of(seed, centred=centred, coded=False)
    x = rows_of(seed + 1).view(2, 3, 30, 7).transpose(0, 1)  # (3, 2, 30, 7)
    y = path.rotate(x)
    assert y.dtype == torch.float64
    for b in range(3):
        for h in range(2):
            expected = (x[b, h] - path.axes.mean[h]) @ path.axes.basis[h]
            torch.testing.assert_close(y[b, h], expected)
    torch.testing.assert_close(path.unrotate(y), x)


@given(seed=SEEDS, centred=st.booleans(), rotary=st.integers(0, 6))
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_the_path_without_codes_loses_nothing(dtype, seed, centred, rotary, path_of, rows_of):
    path = path_of(seed, centred=centred, rotary=rotary, coded=False)
    x = rows_of(seed + 1).to(dtype)
    found = path.decode(path.encode(x))
    allowed = Tolerance(storage="float64", length=14).value
    assert (found - x.double()).norm() <= allowed * x.double().norm() * (1 + path.axes.mean.norm())
    if dtype in (torch.bfloat16, torch.float16):
        assert torch.equal(found.to(dtype), x)


@given(seed=SEEDS, bits=st.integers(2, 7))
def test_error_falls_with_every_bit(seed, bits, path_of, rows_of):
    x = rows_of(seed)
    errors = []
    for b in (bits, bits + 1):
        path = path_of(seed, bits=float(b), codebook="gaussian")
        errors.append((path.decode(path.encode(x)) - x).norm().item())
    assert errors[1] < errors[0]


@given(seed=SEEDS, centred=st.booleans(), codebook=st.sampled_from(["coordinate", "gaussian", "uniform", "minmax"]))
def test_coordinates_without_bits_come_back_as_their_mean(seed, centred, codebook, path_of, rows_of):
    """Of the rotated rows, which is zero only where the mean was subtracted."""
    path = path_of(seed, bits=1.0, centred=centred, codebook=codebook, rotation="spectral")
    x = rows_of(seed)
    bits, found = path.codec.bits, path.rotate(path.decode(path.encode(x)))
    mean = path.rotate(x).mean(1)
    assert (bits == 0).any(1).all()
    for head in range(2):
        empty = bits[head] == 0
        expected = mean[head][empty].expand(90, -1)
        torch.testing.assert_close(found[head][:, empty], expected, rtol=1e-5, atol=1e-6)  # tables are float32
    if centred:
        assert mean.abs().max() < 1e-12 * x.norm()
    else:
        assert mean.norm() > 0.1


@settings(max_examples=5)
@given(seed=SEEDS)
def test_the_mean_of_the_decoded_rows_is_the_mean(seed, path_of, rows_of):
    """Lloyd-Max levels are conditional means, with every number of bits."""
    x = rows_of(seed)
    for fields in ({"bits": 1.0}, {"bits": 3.0}, {"bits": 1.0, "centred": False}):
        path = path_of(seed, **fields)
        found = path.decode(path.encode(x)).mean(1)
        deviation = x.std(1).norm()
        assert (found - x.mean(1)).norm() < 0.05 * deviation


@settings(max_examples=8)
@given(seed=SEEDS)
def test_values_are_turned_back(seed, path_of, rows_of):
    """What is decoded is near what was stored, and not near what is stored rotated."""
    x = rows_of(seed)
    path = path_of(seed, bits=6.0, kind="values")
    found = path.decode(path.encode(x))
    assert (found - x).norm() < 0.1 * x.norm()
    assert (path.codec.decode(path.encode(x)) - x).norm() > 0.3 * x.norm()


@settings(max_examples=8)
@given(seed=SEEDS)
def test_scale_of_the_data_is_of_no_account(seed, rows_of, statistics_of):
    """Powers of two, in rows and in calibration alike, change no code."""
    rows = rows_of(seed)
    axes, scaled = head_axes(statistics_of(rows)), head_axes(statistics_of(rows * 2.0**9))
    chosen = Settings(bits=3.0)
    one = TensorPath(axes=axes, codec=fit_codec(axes, rows, chosen, "keys", seed=0))
    two = TensorPath(axes=scaled, codec=fit_codec(scaled, rows * 2.0**9, chosen, "keys", seed=0))
    assert torch.equal(one.encode(rows), two.encode(rows * 2.0**9))


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"bits": 3.0, "codebook": "gaussian"}, 3),  # 21 bits
        ({"bits": 3.0, "codebook": "gaussian", "normalize": True}, 5),
        ({"bits": 3.0, "codebook": "gaussian", "sketch": 24}, 8),  # 24 signs, and a length
        ({"bits": 3.0, "allocation": "two-regimes", "codebook": "minmax"}, 11),  # two ranges
        ({"bits": 3.0, "allocation": "uniform", "codebook": "minmax"}, 7),
        ({"allocation": "4/0", "codebook": "gaussian"}, 2),  # leading 3 or 4 of 7
    ],
)
def test_bytes_of_a_vector_are_what_is_written(fields, expected, path_of, rows_of):
    path = path_of(3, **fields)
    assert path.bytes == expected
    assert path.encode(rows_of(3)).shape == (2, 90, expected)
    assert path.encode(rows_of(3)).dtype == torch.uint8


def test_bytes_without_codes_are_those_of_float64(path_of, rows_of):
    path = path_of(coded=False)
    assert path.bytes == 56
    assert path.encode(rows_of(0)).shape == (2, 90, 56)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, 8 * 98 + 8 * 14 + 14 + 4 * 2 * 7 * 4),  # bases, means, bits, four levels each
        ({"centred": False}, 8 * 98 + 14 + 4 * 2 * 7 * 4),
        ({"rotation": "none"}, 2 * 14 + 8 * 14 + 14 + 4 * 2 * 7 * 4),
    ],
)
def test_what_is_needed_once_is_counted(fields, expected, path_of):
    path = path_of(bits=2.0, allocation="uniform", codebook="gaussian", **fields)
    assert path.fixed_bytes == expected
    assert path_of(coded=False, **fields).fixed_bytes == expected - 14 - 4 * 2 * 7 * 4


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("coded", [True, False])
def test_what_is_not_finite_is_refused(bad, coded, path_of, rows_of):
    path, x = path_of(coded=coded), rows_of(0)
    x[1, 5, 2] = bad
    with pytest.raises(
        RotcheckError, match=r"^keys or values are NaN or infinite: look at the model before the cache$"
    ):
        path.encode(x)


@pytest.mark.parametrize("shape", [(3, 5, 7), (2, 5, 6), (5, 7), (2, 3, 5, 7)])
def test_vectors_of_another_model_are_refused(shape, path_of):
    with pytest.raises(
        RotcheckError, match=r"for a cache of 2 KV heads of width 7: it was calibrated on another model$"
    ):
        path_of().encode(torch.zeros(shape))


def test_moved_elsewhere(path_of):
    path = path_of()
    assert path.to("cpu") is path
    moved = path_of(coded=False).to("meta")
    assert moved.axes.basis.device.type == "meta"
    assert moved.codec is None


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_codes_do_not_depend_on_the_dtype_that_holds_the_numbers(dtype, path_of, rows_of):
    path, x = path_of(), rows_of(0).to(dtype)
    assert torch.equal(path.encode(x), path.encode(x.double()))
    assert dtype_name(path.decode(path.encode(x)).dtype) == "float64"
