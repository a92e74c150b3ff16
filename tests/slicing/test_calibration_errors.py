"""Wrong calibration input is one line that names the batch, the site or the module."""

from __future__ import annotations

import pytest
import torch

from rotcheck.errors import RotcheckError
from rotcheck.models.adversarial import adversarial_batch, adversarial_opt
from rotcheck.slicing import Schedule, calibrate, random_plan, rotate_and_slice, sequential_plan

GOOD = torch.zeros(1, 4, dtype=torch.long)


@pytest.fixture(scope="module")
def model():
    return adversarial_opt(seed=91)


@pytest.fixture(params=["calibrate", "sequential"])
def run(request):
    if request.param == "calibrate":
        return calibrate
    return lambda model, batches: sequential_plan(model, batches, Schedule.constant(0.25))


@pytest.mark.parametrize(
    ("batches", "says"),
    [
        ([], "batches is empty"),
        (GOOD, "single Tensor"),
        ({"input_ids": GOOD}, "single dict"),
        ([GOOD, GOOD[0]], r"batch 1: input_ids is torch.int64 \(4,\)"),
        ([GOOD.double()], "batch 0: input_ids is torch.float64"),
        ([torch.zeros(0, 4, dtype=torch.long)], r"batch 0.*\(0, 4\)"),
        ([{"ids": GOOD}], "batch 0: input_ids is NoneType"),
        (["text"], "batch 0: input_ids is str"),
        ([GOOD + 97], "token id 97 is outside the vocabulary of 97"),
        ([GOOD - 1], "token id -1"),
        ([torch.zeros(1, 65, dtype=torch.long)], "65 tokens, the model takes 64"),
        ([{"input_ids": GOOD, "attention_mask": GOOD[:, :2]}], "attention_mask must hold 0 or 1"),
        ([{"input_ids": GOOD, "attention_mask": GOOD + 2}], "attention_mask must hold 0 or 1"),
        ([{"input_ids": GOOD, "attention_mask": GOOD}], "every token of every batch is masked"),
    ],
)
def test_malformed_batches(model, run, batches, says):
    with pytest.raises(RotcheckError, match=says) as raised:
        run(model, batches)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_non_finite_activation_names_site_and_module(bad):
    model = adversarial_opt(seed=91)
    batch = adversarial_batch(model, seed=0)
    with torch.no_grad():
        model.model.decoder.layers[1].self_attn.out_proj.bias[5] = bad
    says = r"batch 1.*layer 1 feed-forward input.*before model\.decoder\.layers\.1\.final_layer_norm"
    healthy = adversarial_opt(seed=91)
    assert calibrate(healthy, [batch, batch]).tokens
    with pytest.raises(RotcheckError, match=says.replace("batch 1", "batch 0")):
        calibrate(model, [batch, batch])


def test_overflow_of_a_half_model_is_found():
    model = adversarial_opt(seed=91, dtype=torch.float16)
    with torch.no_grad():
        model.model.decoder.layers[0].fc2.bias[0] = 6e4
        model.model.decoder.layers[1].self_attn.out_proj.bias[0] = 6e4
    with pytest.raises(RotcheckError, match="layer 1 feed-forward input"):
        calibrate(model, [adversarial_batch(model, seed=0)])


def test_a_sliced_model_is_not_calibrated(model):
    sliced = rotate_and_slice(model, random_plan(40, 3, "per-layer", Schedule.constant(0.25)))
    with pytest.raises(RotcheckError, match="pass the original"):
        calibrate(sliced, [GOOD])


def test_an_unknown_statistic_is_named(model):
    with pytest.raises(RotcheckError, match="'cov' is not one of"):
        calibrate(model, [GOOD], statistics=("cov",))


def test_a_stream_without_energy_has_no_unit_trace():
    model = adversarial_opt(seed=91)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    found = calibrate(model, [GOOD], statistics=("raw", "token_rms"))
    assert all(torch.isfinite(moment).all() for moment in found.moments("token_rms"))
    with pytest.raises(RotcheckError, match="layer 0 attention input is zero"):
        found.moments("unit_trace")
