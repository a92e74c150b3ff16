"""Measures that the properties share; every allowance is derived from the arithmetic, none is tuned."""

from __future__ import annotations

import copy

import pytest
import torch

from rotcheck.models.adversarial import adversarial_batch, adversarial_opt
from rotcheck.slicing import calibrate
from rotcheck.tolerance import UNIT_ROUNDOFF, Tolerance, measured


def _logits(model, batch):
    keep = batch["attention_mask"].bool()
    with torch.no_grad():
        return model(**batch).logits[keep].double()


def _error(found, expected):
    return ((found - expected).abs().max() / expected.abs().max()).item()


def _allowed(coarse, exact, *, d, sites):
    # A rounding error of float32 reaches the result through the same amplification as one of float64, so the floor is
    # what float32 shows, times u_64 / u_32; sqrt(d) because float64 weights are also *rotated* in float64, by sums of
    # d products; never below one product of d terms for each of the sites that the stream passes.
    ratio = UNIT_ROUNDOFF["float64"] / UNIT_ROUNDOFF["float32"]
    least = Tolerance(storage="float64", length=d * sites).allowance()
    return measured(_error(coarse, exact) * ratio * d**0.5, source="float32", least=least).value


@pytest.fixture(scope="session")
def logits_of():
    """Logits of the tokens that are not padding, (tokens, vocabulary) in float64."""
    return _logits


@pytest.fixture(scope="session")
def error():
    """``max |found - expected| / max |expected|``."""
    return _error


@pytest.fixture(scope="session")
def allowed():
    """Error that float64 explains, from a result in float32 and in float64: ``8 err_32 u_64 / u_32 sqrt(d)``."""
    return _allowed


@pytest.fixture(scope="session")
def same_function():
    """Assert that a model has the logits `expected`, up to what rounding explains in that very model."""

    def check(model, expected, batch, *, kappa=1.0):
        found = _logits(model, batch)
        coarse = _logits(copy.deepcopy(model).float(), batch)
        d, sites = model.config.hidden_size, 2 * model.config.num_hidden_layers + 1
        limit = kappa * _allowed(coarse, found, d=d, sites=sites)
        assert _error(found, expected) <= limit
        return limit

    return check


@pytest.fixture(scope="session")
def model():
    """Three layers of width 12."""
    return adversarial_opt(
        seed=1, layers=3, hidden_size=12, heads=3, ffn_dim=17, vocab_size=29, max_positions=24, tied=False
    )


@pytest.fixture(scope="session")
def batch(model):
    return adversarial_batch(model, seed=2)


@pytest.fixture(scope="session")
def calibration(model):
    """Of :func:`model`, with all statistics."""
    batches = [adversarial_batch(model, seed=seed) for seed in range(3)]
    return calibrate(model, batches, statistics=("raw", "token_rms"))


@pytest.fixture(scope="session")
def identical():
    """Whether two models hold the same tensors, bit by bit, under the same names."""

    def check(one, other):
        first, second = one.state_dict(), other.state_dict()
        return list(first) == list(second) and all(torch.equal(first[name], second[name]) for name in first)

    return check
