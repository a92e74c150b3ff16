"""A sliced model keeps the dtype of the original, and its error shrinks with the arithmetic."""

from __future__ import annotations

import pytest
import torch

from rotcheck.models.adversarial import adversarial_batch, adversarial_opt
from rotcheck.slicing import Schedule, random_plan, rotate_and_slice

DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_parameter_has_the_dtype_of_the_original(dtype):
    model = adversarial_opt(seed=51, dtype=dtype)
    sliced = rotate_and_slice(model, random_plan(40, 3, "per-layer", Schedule.constant(0.25), 52))
    assert {parameter.dtype for parameter in sliced.parameters()} == {dtype}
    assert sliced.dtype == sliced.config.dtype == dtype
    assert sliced(**adversarial_batch(model, seed=53)).logits.dtype == dtype


@pytest.mark.parametrize("dtype", DTYPES[1:])
def test_shortcuts_are_multiplied_in_float64_and_cast_once(dtype):
    plan = random_plan(40, 3, "per-layer", Schedule.constant(0.25), 52)
    sliced = rotate_and_slice(adversarial_opt(seed=51, dtype=dtype), plan)
    exact = plan.sliced_basis(2).T @ plan.sliced_basis(3)
    assert torch.equal(sliced.model.decoder.layers[1].attention_shortcut, exact.to(dtype))


def test_the_error_at_full_width_follows_the_unit_roundoff(logits_of, logit_error):
    reference = adversarial_opt(seed=51)
    batch = adversarial_batch(reference, seed=53)
    errors = {}
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        model = adversarial_opt(seed=51, dtype=dtype)
        rotated = rotate_and_slice(model, random_plan(40, 3, "per-layer", seed=52))
        errors[dtype] = logit_error(logits_of(rotated, batch), logits_of(model, batch), batch)
    # Measured floor: some tens of unit roundoffs through three layers.
    for dtype, error in errors.items():
        assert error <= 200 * torch.finfo(dtype).eps, (dtype, error)
    assert errors[torch.float64] < errors[torch.float32] < errors[torch.bfloat16]
