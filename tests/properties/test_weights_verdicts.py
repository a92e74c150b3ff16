"""No check speaks on a right layer, whatever its sizes, settings, basis and seed; and a merged one is always found."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from rotcheck.bases import haar
from rotcheck.defects._weights import outlier_layer
from rotcheck.defects.quantized_weights import ROUNDED_FIRST
from rotcheck.outcome import Outcome
from rotcheck.quantize import QuantizeSteps, RoundToNearest
from rotcheck.registry import choose, find
from rotcheck.strategies import seeds
from rotcheck.subjects import QuantizedLayer
from rotcheck.witness import Witness


def layers():
    return st.fixed_dictionaries(
        {
            "seed": seeds(),
            "bits": st.integers(2, 8),
            "span": st.integers(7, 13),
            "groups": st.integers(1, 3),
            "out": st.integers(5, 30),
            "rows": st.integers(40, 90),
            "symmetric": st.booleans(),
            "calibrated": st.booleans(),
            "dtype": st.sampled_from([torch.float64, torch.float32]),
        }
    )


def build(seed, bits, span, groups, out, rows, symmetric, calibrated, dtype, steps=None):
    width = span * groups
    weight, inputs = (t.to(dtype) for t in outlier_layer(seed, out=out, width=width, rows=rows))
    return QuantizedLayer.rotated(
        weight,
        basis=haar(width, seed=seed),
        inputs=inputs,
        settings=RoundToNearest(bits=bits, group=span, symmetric=symmetric),
        calibrated=calibrated,
        steps=steps or QuantizeSteps(),
        flattens=True,
    )


@given(layer=layers())
def test_silence(layer):
    subject = build(**layer)
    for check in choose("QuantizedLayer"):
        verdict = check.run(subject, Witness(seed=layer["seed"]))
        assert verdict.outcome is not Outcome.FAILED, str(verdict)


@given(layer=layers())
def test_rounding_first_is_found(layer):
    subject = build(**layer, steps=ROUNDED_FIRST)
    for name in ("rotated_error", "weight_grid"):
        verdict = find(name).run(subject, Witness(seed=layer["seed"]))
        assert verdict.outcome is Outcome.FAILED, str(verdict)
