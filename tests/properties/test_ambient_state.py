"""What a function returns depends on its arguments, not on torch's ambient state, which it leaves as it was."""

from __future__ import annotations

import tempfile
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rotcheck.slicing import Schedule, calibrate, fuse, load, make_plan, rotate_and_slice, save, sequential_plan
from rotcheck.strategies import seeds


@contextmanager
def ambient(seed, dtype, grad):
    """A random state, a default dtype and a gradient mode; those of before afterwards."""
    before = torch.get_rng_state(), torch.get_default_dtype(), torch.is_grad_enabled()
    try:
        torch.manual_seed(seed)
        torch.set_default_dtype(dtype)
        torch.set_grad_enabled(grad)
        yield
    finally:
        torch.set_rng_state(before[0])
        torch.set_default_dtype(before[1])
        torch.set_grad_enabled(before[2])


@pytest.fixture(scope="module")
def functions(model, batch, calibration, tmp_path_factory):
    """Name to function, each to the tensors that it made."""
    schedule = Schedule.constant(0.25, round_to=2)
    plan = make_plan(calibration, "per-layer", schedule, orientation="haar", seed=3)
    sliced, base = rotate_and_slice(model, plan), tmp_path_factory.getbasetemp()

    def reloaded():
        with tempfile.TemporaryDirectory(dir=base) as place:
            save(sliced, Path(place) / "saved")
            return list(load(Path(place) / "saved").state_dict().values())

    return {
        "calibrate": lambda: list(calibrate(model, [batch]).moments()),
        "make_plan": lambda: list(make_plan(calibration, "k-block:2", schedule, orientation="haar", seed=3).bases),
        "sequential_plan": lambda: list(sequential_plan(model, [batch], schedule)[0].bases),
        "rotate_and_slice": lambda: list(rotate_and_slice(model, plan).state_dict().values()),
        "fuse": lambda: list(fuse(model).state_dict().values()),
        "save and load": reloaded,
    }


@pytest.mark.parametrize(
    "name", ["calibrate", "make_plan", "sequential_plan", "rotate_and_slice", "fuse", "save and load"]
)
@settings(deadline=None, max_examples=4)
@given(
    seed=seeds(),
    dtype=st.sampled_from([torch.float64, torch.bfloat16]),
    grad=st.booleans(),
    training=st.lists(st.booleans(), min_size=1, max_size=5),
)
def test_neither_read_nor_written(name, seed, dtype, grad, training, functions, model):
    """``f(x; ambient) = f(x)`` bit by bit; random state, default dtype, grad mode, weights, flags as before."""
    expected = functions[name]()
    weights = {key: value.clone() for key, value in model.state_dict().items()}
    modules = list(model.modules())
    flags = [training[index % len(training)] for index in range(len(modules))]
    try:
        for module, flag in zip(modules, flags, strict=True):
            module.training = flag
        with ambient(seed, dtype, grad):
            random = torch.get_rng_state()
            found = functions[name]()
            assert torch.equal(torch.get_rng_state(), random)
            assert (torch.get_default_dtype(), torch.is_grad_enabled()) == (dtype, grad)
        assert [module.training for module in modules] == flags
    finally:
        model.eval()
    assert all(torch.equal(value, weights[key]) for key, value in model.state_dict().items())
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())
    assert [one.dtype for one in found] == [one.dtype for one in expected]
    assert all(torch.equal(one, two) for one, two in zip(found, expected, strict=True))
