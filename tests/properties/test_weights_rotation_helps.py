"""On outlier data, rotating before rounding lowers the output error, at every seed."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from rotcheck.defects._weights import bases, outlier_layer
from rotcheck.quantize import RoundToNearest, output_error, rotate_and_quantize, second_moment
from rotcheck.strategies import seeds


@given(seed=seeds(), bits=st.integers(3, 8), basis=st.sampled_from(["hadamard", "haar", "pca"]))
def test_at_every_seed(seed, bits, basis):
    """Calibrated, from three bits on, with a scale for each output channel: the widest range sets the step."""
    weight, inputs = outlier_layer(seed)
    moment, settings = second_moment(inputs), RoundToNearest(bits=bits)
    eye = torch.eye(len(moment), dtype=torch.float64)
    errors = []
    for u in (eye, bases(seed, inputs)[basis]):
        layer = rotate_and_quantize(weight, u, settings, moment=moment)
        errors.append(output_error(weight @ u, layer.matrix, u.T @ moment @ u))
    assert errors[1] < errors[0]
