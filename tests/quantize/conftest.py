"""Rows that codecs get wrong, and codecs of every kind for them."""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace

import pytest
import torch

from rotcheck.quantize import CODEBOOKS, Codec, fit_levels, two_regimes
from rotcheck.quantize.minmax import regime_ranges
from rotcheck.quantize.sketch import gaussian_sketch

KINDS = ("spiked", "heavy tails", "shifted", "scaled heads")
SCALARS = (*CODEBOOKS, "min-max")
OPTIONS = ((False, 0), (True, 0), (False, 16), (True, 24))
# each scalar quantiser with each option once, and with all kinds of rows
CASES = tuple(
    (KINDS[(i + j) % len(KINDS)], scalar, *option)
    for i, scalar in enumerate(SCALARS)
    for j, option in enumerate(OPTIONS)
)


def _rows(kind, *, heads=3, n=203, d=11, seed=0):
    """(heads, n, d) float64: deviations 1, 1/2, 1/3 ..., and what the kind adds.

    ``spiked``: the first coordinate is ten times as wide. ``heavy tails``: Student's t with 3 degrees of freedom.
    ``shifted``: means of five deviations. ``scaled heads``: head h is ``30**h`` times as large.
    """
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(heads, n, d, generator=generator, dtype=torch.float64)
    rows = rows / torch.arange(1, d + 1, dtype=torch.float64)
    if kind == "spiked":
        rows[..., 0] *= 10
    if kind == "heavy tails":
        chi = torch.randn(3, heads, n, d, generator=generator, dtype=torch.float64).square().mean(0)
        rows = rows / chi.sqrt()
    if kind == "shifted":
        rows = rows + 5 * torch.randn(heads, 1, d, generator=generator, dtype=torch.float64)
    if kind == "scaled heads":
        rows = rows * 30.0 ** torch.arange(heads, dtype=torch.float64).reshape(-1, 1, 1)
    return rows


def _allocations(rows, average=3.0, split=4):
    """Two regimes for each head, by the variances of its coordinates."""
    width = rows.shape[-1]
    return [two_regimes(head.var(0).tolist(), min(split, width - 1), round(average * width)) for head in rows]


def _codec(rows, scalar="coordinate", *, normalize=False, signs=0, allocations=None):
    """A codec fitted to rows (H, n, d) as it will code them."""
    fitted = rows / rows.norm(dim=-1, keepdim=True) if normalize else rows
    allocations = allocations or _allocations(fitted)
    if scalar == "min-max":
        quantizer = regime_ranges(allocations, fitted.mean(1))
    else:
        quantizer = fit_levels(fitted, allocations, scalar)
    sketch = gaussian_sketch(rows.shape[0], signs, rows.shape[-1], seed=5) if signs else None
    return Codec(scalar=quantizer, normalize=normalize, sketch=sketch)


@pytest.fixture(scope="session")
def rows():
    """Makes rows of a kind, see :func:`_rows`."""
    return _rows


@pytest.fixture(scope="session", params=KINDS)
def bank(request):
    """Three heads of 203 rows of 11 coordinates, of each kind."""
    return _rows(request.param)


@pytest.fixture(scope="session")
def allocations():
    return _allocations


@pytest.fixture(scope="session")
def codec():
    return _codec


@pytest.fixture(scope="session", params=CASES, ids=lambda case: ", ".join(map(str, case)))
def case(request):
    """A codec of each kind, with the rows that it was fitted to."""
    kind, scalar, normalize, signs = request.param
    rows = _rows(kind)
    make = partial(_codec, scalar=scalar, normalize=normalize, signs=signs)
    return SimpleNamespace(rows=rows, scalar=scalar, normalize=normalize, signs=signs, make=make, codec=make(rows))


@pytest.fixture(scope="session")
def error():
    """``|found - expected|^2 / |expected|^2``."""
    return lambda found, expected: ((found - expected).square().sum() / expected.square().sum()).item()


@pytest.fixture(scope="session")
def table_error():
    """Mean squared distance (rows,) of samples (rows, n) from the nearest of their levels, without any shortcut."""
    return lambda samples, levels: (samples.unsqueeze(-1) - levels.unsqueeze(1)).abs().amin(-1).square().mean(-1)
