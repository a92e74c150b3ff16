"""Random-weight OPT in its published sizes, with adversarial gains and biases, through the same suites.

``pytest -m full`` on a CPU with 16 GB runs OPT-125M; with a CUDA device, ``pytest -m gpu`` runs 1.3B and 6.7B.
"""

from __future__ import annotations

import pytest
import torch

import rotcheck
from rotcheck.models.adversarial import adversarial_batch, adversarial_opt
from rotcheck.models.shapes import opt_shape
from rotcheck.outcome import Outcome
from rotcheck.slicing import Schedule, calibrate, make_plan, random_plan, rotate_and_slice

QUICK = ["equivalence", "streams", "norm_fusion", "tied_weights", "decoding", "precision_scaling"]
SLICED = ["shortcuts", "projected_stream", "tensor_bases", "decoding", "tied_weights"]

cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device, and this torch sees none")
CASES = [
    pytest.param("125m", "cpu", torch.float64, marks=pytest.mark.full),
    pytest.param("125m", "cuda", torch.float64, marks=[pytest.mark.gpu, cuda]),
    pytest.param("1.3b", "cuda", torch.float64, marks=[pytest.mark.gpu, cuda]),
    pytest.param("6.7b", "cuda", torch.float32, marks=[pytest.mark.gpu, cuda]),
]


def failed(report):
    return [str(v) for v in report if v.outcome in (Outcome.FAILED, Outcome.UNDECIDED)]


@pytest.mark.parametrize("grouping", ["per-layer", "global", "k-block:5"])
@pytest.mark.parametrize(("size", "device", "dtype"), CASES)
def test_zero_sparsity(size, device, dtype, grouping):
    """Nothing is lost at full width with independent Haar bases; K = 5 leaves an uneven last block."""
    shape = opt_shape(size)
    model = adversarial_opt(seed=0, dtype=dtype, **shape).to(device)
    batch = adversarial_batch(model, seed=1, batch=2, length=16)
    plan = random_plan(shape["hidden_size"], shape["layers"], grouping, seed=2)
    pair = rotcheck.ModelPair(model, rotate_and_slice(model, plan), inputs=batch)
    report = rotcheck.verify(pair, select=QUICK)
    assert not failed(report)
    if dtype is torch.float64:
        error = next(v.claim.error for v in report if v.check == "equivalence")
        assert error <= 1e-12, f"relative logit error {error:.2e}"


@pytest.mark.parametrize("grouping", ["per-layer", "k-block:5"])
@pytest.mark.parametrize(("size", "device", "dtype"), CASES)
def test_sliced_by_a_quarter(size, device, dtype, grouping):
    """The sliced model is the dense one, projected, and its tensors are in the plan's bases."""
    shape = opt_shape(size)
    model = adversarial_opt(seed=0, dtype=dtype, **shape).to(device)
    batch = adversarial_batch(model, seed=1, batch=2, length=16)
    calibration = calibrate(model, [adversarial_batch(model, seed=s, batch=8, length=256) for s in (2, 3)])
    plan = make_plan(calibration, grouping, Schedule.constant(0.25))
    sliced = rotate_and_slice(model, plan)
    subject = rotcheck.SlicedModel(sliced, inputs=batch, original=model, plan=plan, calibration=calibration)
    assert not failed(rotcheck.verify(subject, select=SLICED))
