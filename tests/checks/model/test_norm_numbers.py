"""``tensor_bases`` reads the numbers of a norm exactly: float32 hides a wrong eps in one norm from every comparison."""

from __future__ import annotations

import pytest
import torch


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(("number", "value"), [("eps", 1e-6), ("divisor", 30)])
def test_a_wrong_number_in_one_norm_is_named(number, value, dtype, build, fails):
    subject = build.sliced(dtype=dtype)
    norm = subject.model.model.decoder.layers[1].final_layer_norm
    setattr(norm, number, value)
    verdict = fails("tensor_bases", subject)
    assert verdict.place == "model.decoder.layers.1.final_layer_norm"
    assert f"has a norm with {number} {value:g} at the layer 1 feed-forward input" in verdict.headline


def test_right_numbers_are_silent(build, passes):
    passes("tensor_bases", build.sliced())
