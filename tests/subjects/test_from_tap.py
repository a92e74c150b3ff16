"""`Rotation.from_tap` and `from_matmul`: the checks run on code that never returns what it rotates."""

from __future__ import annotations

import types

import numpy as np
import pytest
import torch

from rotcheck.bases import haar, principal_basis
from rotcheck.errors import RotcheckError
from rotcheck.outcome import Outcome
from rotcheck.registry import choose, find
from rotcheck.subjects import Rotation
from rotcheck.witness import Witness

D, K = 13, 4
AXES = haar(D, seed=1)
COVARIANCE = (AXES * torch.logspace(0, -2, D, dtype=torch.float64)) @ AXES.T
BASIS = principal_basis(COVARIANCE)[0]
MEAN = torch.randn(D, dtype=torch.float64, generator=torch.Generator().manual_seed(3))


class Engine:
    """An engine in the manner of the one in the report: norm, rotation, two regimes, rotation back."""

    def __init__(self, matrix, mean=None):
        self.pi, self.mean = matrix, mean

    def _quantize_regime(self, z, bits):
        return (z * 2**bits).round() / 2**bits

    def compress(self, keys, values=None):
        outputs = []
        for x in (keys, values):
            if x is None:
                continue
            x = x if self.mean is None else x - self.mean
            norms = x.norm(dim=-1, keepdim=True)
            y = (x / (norms + 1e-8)) @ self.pi
            parts = [self._quantize_regime(y[:, :K], 4), self._quantize_regime(y[:, K:], 2)]
            outputs.append(torch.cat(parts, dim=-1) @ self.pi.T * norms)
        return outputs


def outcomes(subject):
    return {check.name: check.run(subject, Witness(rows=64)).outcome.value for check in choose("Rotation")}


def test_a_right_engine_passes_everything_that_applies():
    engine = Engine(BASIS)
    subject = Rotation.from_tap(
        engine.compress, engine, "_quantize_regime", basis=BASIS, covariance=COVARIANCE, normalizes=True
    )
    found = outcomes(subject)
    assert {name for name, outcome in found.items() if outcome == "passed"} == {
        "orthogonality", "isometry", "side", "energy_order", "determinism",
    }  # fmt: skip
    assert set(found.values()) == {"passed", "not applicable"}


def test_the_transposed_engine_fails_by_name():
    engine = Engine(BASIS.T)
    subject = Rotation.from_tap(
        engine.compress, engine, "_quantize_regime", basis=BASIS, covariance=COVARIANCE, normalizes=True
    )
    verdict = find("side").run(subject)
    assert (verdict.outcome, verdict.matched) == (Outcome.FAILED, "x @ basis.T")
    assert str(verdict).startswith("ROT103 side: test_from_tap.Engine.compress computes x @ basis.T")
    assert outcomes(subject)["energy_order"] == "failed"


def test_a_mean_is_seen_through_the_tap():
    right, forgotten = Engine(BASIS, MEAN), Engine(BASIS)
    declared = {"basis": BASIS, "mean": MEAN, "normalizes": True}
    assert outcomes(Rotation.from_tap(right.compress, right, "_quantize_regime", **declared))["side"] == "passed"
    wrong = outcomes(Rotation.from_tap(forgotten.compress, forgotten, "_quantize_regime", **declared))
    assert wrong["side"] == "failed"


def test_values_are_the_second_vector():
    """Keys right, values transposed: each tap sees its own."""

    class Mixed(Engine):
        def compress(self, keys, values=None):
            super().compress(keys)
            return Engine.compress(
                types.SimpleNamespace(pi=self.pi.T, mean=None, _quantize_regime=self._quantize_regime), values
            )

    engine = Mixed(BASIS)

    def tapped(skip):
        return Rotation.from_tap(
            lambda x: engine.compress(x, x), engine, "_quantize_regime", skip=skip, basis=BASIS, normalizes=True
        )

    assert outcomes(tapped(0))["side"] == "passed"
    assert outcomes(tapped(1))["side"] == "failed"


def test_a_decode_path_of_its_own_is_found_through_the_tap():
    engine = Engine(BASIS)

    def run(x):
        engine.pi = BASIS.flip(1) if len(x) == 1 else BASIS
        engine.compress(x)

    subject = Rotation.from_tap(run, engine, "_quantize_regime", basis=BASIS, normalizes=True)
    assert outcomes(subject)["determinism"] == "failed"


def test_code_that_quantises_only_some_rows_fails_and_says_so():
    engine = Engine(BASIS)
    subject = Rotation.from_tap(
        lambda x: engine.compress(x[: len(x) // 2 + 1]), engine, "_quantize_regime", basis=BASIS, normalizes=True
    )
    verdict = find("side").run(subject, Witness(rows=8))
    assert verdict.outcome is Outcome.FAILED
    assert "only 5 rows reached Engine._quantize_regime, of the 8 that were fed" in verdict.headline


def test_a_compression_that_never_happens_fails_and_says_so():
    """The hook of the report looked for an attribute that its library no longer has, and compressed nothing."""
    engine = Engine(BASIS)
    subject = Rotation.from_tap(
        lambda x: getattr(x, "key_cache", None), engine, "_quantize_regime", basis=BASIS, normalizes=True
    )
    verdict = find("isometry").run(subject)
    assert verdict.outcome is Outcome.FAILED
    assert "Engine._quantize_regime was never called" in str(verdict).splitlines()[0]


def test_numpy_code_is_tapped_on_its_module():
    module = types.ModuleType("phase3")
    module.uniform_quantize_np = np.round
    basis = BASIS.numpy()

    def run(x):
        y = (x - MEAN.numpy()) @ basis
        return np.hstack([module.uniform_quantize_np(y[:, :K]), module.uniform_quantize_np(y[:, K:])]) @ basis.T

    subject = Rotation.from_tap(run, module, "uniform_quantize_np", basis=basis, mean=MEAN.numpy())
    found = outcomes(subject)
    assert found["side"] == found["isometry"] == found["determinism"] == "passed"


@pytest.mark.parametrize("code", ["right", "transposed"])
def test_inlined_code_is_seen_at_its_product(code):
    matrix = BASIS if code == "right" else BASIS.T

    def run(x):
        norms = x.norm(dim=-1, keepdim=True)
        return (8 * ((x / norms) @ matrix)).round() / 8 @ matrix.T * norms

    subject = Rotation.from_matmul(run, basis=BASIS, covariance=COVARIANCE, normalizes=True)
    verdict = find("side").run(subject)
    assert verdict.outcome is (Outcome.PASSED if code == "right" else Outcome.FAILED)


def test_the_same_code_for_another_basis_is_tapped_too():
    """With ``make`` a symmetric basis is decided, and the dtype can be varied."""
    v = haar(D, seed=4)[:, :1]
    symmetric = torch.eye(D, dtype=torch.float64) - 2 * v @ v.T

    def path(engine):
        return lambda x: Rotation.from_tap(engine.compress, engine, "_quantize_regime", basis=engine.pi).rotate(x)

    def make(basis, wrong=False):
        return path(Engine(basis.T if wrong else basis))

    right = Rotation(make=make, basis=symmetric, normalizes=True)
    assert outcomes(right)["side"] == "passed"
    assert outcomes(right)["precision_scaling"] == "passed"
    wrong = Rotation(make=lambda basis: make(basis, wrong=True), basis=symmetric, normalizes=True)
    assert outcomes(wrong)["side"] == "failed"


def test_the_name_is_that_of_the_code_unless_declared():
    engine = Engine(BASIS)
    assert str(Rotation.from_tap(engine.compress, engine, "_quantize_regime", basis=BASIS)).endswith("Engine.compress")
    named = Rotation.from_tap(engine.compress, engine, "_quantize_regime", basis=BASIS, name="keys of layer 3")
    assert str(named) == "keys of layer 3"
    assert str(Rotation.from_matmul(engine.compress, basis=BASIS, name="inlined")) == "inlined"


def test_the_width_may_be_given_and_must_agree():
    engine = Engine(BASIS)
    assert Rotation.from_tap(engine.compress, engine, "_quantize_regime", D, covariance=COVARIANCE).width == D
    with pytest.raises(RotcheckError, match="width=5, but what is declared has 13 coordinates"):
        Rotation.from_tap(engine.compress, engine, "_quantize_regime", 5, basis=BASIS)
    with pytest.raises(RotcheckError, match=r"a tap needs basis=\.\.\."):
        Rotation.from_matmul(engine.compress, D)


def test_wrong_declarations_are_refused_as_everywhere():
    engine = Engine(BASIS)
    with pytest.raises(TypeError, match="unexpected keyword argument 'normalises'"):
        Rotation.from_tap(engine.compress, engine, "_quantize_regime", basis=BASIS, normalises=True)
    with pytest.raises(RotcheckError, match=r"mean has shape \(3,\), expected \(13,\)"):
        Rotation.from_matmul(engine.compress, basis=BASIS, mean=torch.ones(3))
