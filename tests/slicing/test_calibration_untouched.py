"""Calibration only reads: the model, its mode, the caller's tensors and the random state stay."""

from __future__ import annotations

import copy

import pytest
import torch

from rotcheck.models.adversarial import adversarial_batch, adversarial_opt
from rotcheck.slicing import Schedule, calibrate, sequential_plan


def run_calibrate(model, batches):
    calibrate(model, batches, statistics=("raw", "token_rms"))


def run_sequential(model, batches):
    sequential_plan(model, batches, Schedule.constant(0.25))


@pytest.fixture(params=[run_calibrate, run_sequential], ids=["calibrate", "sequential"])
def run(request):
    return request.param


def test_the_callers_tensors_stay(run):
    model = adversarial_opt(seed=81)
    batches = [adversarial_batch(model, seed=seed) for seed in range(2)]
    before = copy.deepcopy(batches)
    run(model, batches)
    for batch, old in zip(batches, before, strict=True):
        assert batch.keys() == old.keys()
        assert all(torch.equal(batch[key], old[key]) for key in old)


def test_weights_mode_hooks_and_gradients_stay(run):
    model = adversarial_opt(seed=81)
    model.train()
    model.model.decoder.layers[1].eval()
    weights = copy.deepcopy(model.state_dict())
    modes = [module.training for module in model.modules()]
    run(model, [adversarial_batch(model, seed=1)])
    assert all(torch.equal(weights[name], value) for name, value in model.state_dict().items())
    assert [module.training for module in model.modules()] == modes
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in model.modules())
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())


def test_dropout_is_off_even_for_a_training_model():
    model = adversarial_opt(seed=81)
    batch = adversarial_batch(model, seed=1)
    expected = calibrate(model, [batch]).moments()
    for layer in model.model.decoder.layers:
        layer.dropout = 0.5
    found = calibrate(model.train(), [batch]).moments()
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_the_random_state_stays(run):
    model = adversarial_opt(seed=81)
    before = torch.get_rng_state()
    run(model, [adversarial_batch(model, seed=1)])
    assert torch.equal(before, torch.get_rng_state())


def test_one_batch_is_held_at_a_time():
    model = adversarial_opt(seed=81)
    alive = []

    def batches():
        for seed in range(3):
            alive.append(seed)
            yield adversarial_batch(model, seed=seed)
            alive.remove(seed)

    calibrate(model, batches())
    assert alive == []
