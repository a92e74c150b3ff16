"""saved_operator: a saved and loaded code does what it did."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from rotcheck.bases import haar
from rotcheck.subjects import Codec

NAME = "saved_operator"


def coded(basis, step=2.0):
    return lambda x: (x @ basis / step).round() * step @ basis.T


def reloading(samples, function, basis=None):
    basis = haar(24, seed=1) if basis is None else basis
    return Codec(coded(basis), samples=samples, reload=function, name="f")


@settings(max_examples=10)
@given(seed=st.integers(0, 2**20), step=st.floats(0.2, 8))
def test_the_same_operator_passes(run, samples, seed, step):
    basis = haar(24, seed=seed)
    codec = Codec(coded(basis, step), samples=samples(), reload=lambda: coded(basis.clone(), step))
    verdict = run(NAME, codec)
    assert verdict.outcome.value == "passed"
    assert verdict.claim.error == 0


def test_through_a_file(run, samples, tmp_path):
    basis = haar(24, seed=1)
    save_file({"basis": basis.contiguous()}, tmp_path / "codec.safetensors")

    def load():
        return coded(load_file(tmp_path / "codec.safetensors")["basis"])

    assert run.outcome(NAME, reloading(samples(), load)) == "passed"


def test_a_wrong_key_is_a_failure_that_names_it(run, samples, tmp_path):
    save_file({"basis": haar(24, seed=1).contiguous()}, tmp_path / "codec.safetensors")

    def load():
        return coded(load_file(tmp_path / "codec.safetensors")["eigenvectors"])

    verdict = run(NAME, reloading(samples(), load))
    assert verdict.headline == "f cannot be run: reload() of f raised KeyError: 'eigenvectors'"


@pytest.mark.parametrize(
    "change",
    [lambda u: u.T, lambda u: u.flip(1) @ u, lambda u: haar(24, seed=2)],
    ids=["transposed", "twice", "another"],
)
def test_another_basis_fails(run, samples, change):
    basis = haar(24, seed=1)
    assert run.outcome(NAME, reloading(samples(), lambda: coded(change(basis)), basis)) == "failed"


@pytest.mark.parametrize("step", [1.0, 3.0])
def test_another_table_fails(run, samples, step):
    assert run.outcome(NAME, reloading(samples(), lambda: coded(haar(24, seed=1), step))) == "failed"


def test_a_loaded_code_that_does_nothing_is_named(run, samples):
    assert run.matched(NAME, reloading(samples(), lambda: torch.clone)) == "x itself"


@pytest.mark.parametrize(("dtype", "outcome"), [(torch.float32, "passed"), (torch.bfloat16, "passed")])
def test_a_basis_that_was_rounded_moves_few_codes(run, samples, dtype, outcome):
    basis = haar(24, seed=1)
    codec = reloading(samples(), lambda: coded(basis.to(dtype).double(), 12.0), basis)
    wide = Codec(coded(basis, 12.0), samples=samples(), reload=codec.reload)
    verdict = run(NAME, wide)
    assert verdict.outcome.value == outcome
    assert verdict.claim.error > 0


def test_our_own_paths_pass(run, right, kind):
    assert run.outcome(NAME, right(kind)) == "passed"


def test_an_answer_that_is_no_function_is_a_failure(run, samples):
    verdict = run(NAME, reloading(samples(), lambda: {"basis": 3}))
    assert "reload() of f answered with dict, expected a function of rows" in verdict.headline


def test_without_reload_it_does_not_apply(run, identity):
    assert run.outcome(NAME, identity) == "not applicable"
