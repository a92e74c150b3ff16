"""calibration_basis: the quantiser saw the second moment of what the runtime feeds."""

from __future__ import annotations

import pytest
import torch

from rotcheck.bases import haar, hadamard
from rotcheck.bases.pca import principal_basis
from rotcheck.outcome import Outcome
from rotcheck.quantize import second_moment

NAME = "calibration_basis"
CLAIM = "U.T @ C @ U, the moment of what it multiplies"
RAW = "C, the moment of the inputs before they are rotated"


def moments(x, u):
    c = second_moment(x)
    fed = u.T @ c @ u
    mean = (x @ u).mean(0)
    return {
        RAW: c,
        "U @ C @ U.T": u @ c @ u.T,
        "the diagonal of U.T @ C @ U": torch.diag(fed.diagonal()),
        "U.T @ C @ U about the mean": fed - torch.outer(mean, mean),
    }


@pytest.mark.parametrize("seed", [0, 1, 2, 3])
def test_passes_on_our_path(run, right, seed):
    for basis in ("hadamard", "haar", "pca"):
        for settings in ("4 bits per channel", "3 bits per group of 10"):
            verdict = run(NAME, right(settings, basis, seed=seed), seed)
            assert verdict.outcome is Outcome.PASSED, str(verdict)
            assert verdict.claim.name == CLAIM


@pytest.mark.parametrize("factor", [1.0, 257.0, 2 * 257.0, 1e-9])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_every_rival_is_named_whatever_the_factor(run, toy, data, factor, seed):
    weight, x = data(seed)
    u = haar(40, seed=seed)
    right = toy(weight, x, u, moment=factor * u.T @ second_moment(x) @ u)
    assert run.outcome(NAME, right) == "passed"
    for name, moment in moments(x, u).items():
        assert run.matched(NAME, toy(weight, x, u, moment=factor * moment)) == name


def test_the_first_line_says_what_is_wrong(run, toy, data):
    weight, x = data()
    verdict = run(NAME, toy(weight, x, haar(40, seed=1), moment=second_moment(x)))
    assert verdict.headline == f"toy was calibrated on {RAW}, declared {CLAIM}"
    assert verdict.hint == "the weight is rotated and what calibrates it is not: rotate both, or neither"


def test_needs_a_moment(run, toy, data):
    verdict = run(NAME, toy(*data(), haar(40, seed=1)))
    assert verdict.outcome is Outcome.NOT_APPLICABLE
    assert verdict.headline == "toy does not supply moment"


def test_the_moment_of_nothing_known_matches_none(run, toy, data):
    weight, x = data()
    other = second_moment(x @ haar(40, seed=8))
    verdict = run(NAME, toy(weight, x, haar(40, seed=1), moment=other))
    assert (verdict.outcome.value, verdict.matched) == ("failed", "")
    assert f"matches none of {RAW}, U @ C @ U.T" in verdict.headline


def test_what_really_runs_is_compared(run, toy, data):
    """Calibration rotates and the runtime does not: the declared matrix would have hidden it."""
    weight, x = data()
    u = haar(40, seed=1)
    moment = second_moment(x @ u)
    assert run.outcome(NAME, toy(weight, x, u, moment=moment)) == "passed"
    assert run.outcome(NAME, toy(weight, x, lambda rows: rows, moment=moment, stored=weight)) == "failed"
    assert run.outcome(NAME, toy(weight, x, lambda rows: rows @ u, moment=moment)) == "passed"


@pytest.mark.parametrize("centred", [True, False])
def test_the_mean_of_centred_inputs_is_no_rival(run, toy, data, centred):
    weight, x = data()
    x = x - x.mean(0) if centred else x
    u = haar(40, seed=1)
    verdict = run(NAME, toy(weight, x, u, moment=second_moment(x @ u)))
    assert verdict.outcome is Outcome.PASSED
    assert ("U.T @ C @ U about the mean" in {r.name for r in verdict.rivals}) is not centred


def test_in_principal_axes_the_diagonal_is_the_moment(run, toy, data):
    weight, x = data()
    u = principal_basis(second_moment(x))[0]
    exact = u.T @ second_moment(x) @ u
    for moment in (exact, torch.diag(exact.diagonal())):
        verdict = run(NAME, toy(weight, x, u, moment=moment))
        assert verdict.outcome is Outcome.PASSED, str(verdict)
    assert run.matched(NAME, toy(weight, x, u, moment=second_moment(x))) == RAW


def _symmetric(n):
    v = haar(n, seed=0)[:, :1]
    basis = torch.eye(n, dtype=torch.float64) - 2 * v @ v.T
    return (basis + basis.T) / 2


def test_a_symmetric_basis_cannot_tell(run, toy, data):
    weight, x = data()
    u = _symmetric(40)
    verdict = run(NAME, toy(weight, x, u, moment=u @ second_moment(x) @ u.T))
    assert verdict.outcome is Outcome.UNDECIDED
    assert f"cannot tell {CLAIM} from U @ C @ U.T on this witness" in verdict.headline
    assert "make=" in verdict.needs


def test_flat_inputs_cannot_tell(run, toy, data):
    """Every basis has the same moment."""
    weight = data()[0]
    q = torch.linalg.qr(torch.randn(120, 40, generator=torch.Generator().manual_seed(0), dtype=torch.float64))[0]
    verdict = run(NAME, toy(weight, q, haar(40, seed=1), moment=torch.eye(40, dtype=torch.float64)))
    assert verdict.outcome is Outcome.UNDECIDED


@pytest.mark.parametrize(("turned", "outcome"), [(False, "passed"), (True, "failed")])
def test_make_decides_where_the_basis_cannot(run, toy, data, turned, outcome):
    weight, x = data()
    c = second_moment(x)

    def made(u):
        return toy(weight, x, u, moment=u @ c @ u.T if turned else u.T @ c @ u, make=made)

    assert run.outcome(NAME, made(_symmetric(40))) == outcome


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_rounding_of_a_coarse_runtime_is_allowed(run, toy, data, dtype):
    weight, x = data()
    u, x = hadamard(40, signs=3), (x / x.abs().max()).to(dtype)  # float16 ends at 65504
    moment = second_moment(x.float() @ u.float()).float()
    subject = toy(weight, x, lambda rows: rows @ u.to(rows.dtype), stored=weight, moment=moment)
    assert run.outcome(NAME, subject) == "passed"
    assert run.matched(NAME, toy(weight, x, u, stored=weight, moment=second_moment(x))) == RAW


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("tokens", [60, 257, 2000])
def test_other_rows_of_the_same_kind_are_allowed_for(run, toy, data, tokens, seed):
    weight, x = data(seed, rows=257 + tokens)
    u = haar(40, seed=seed)
    ours, theirs = x[:257], x[257:]
    verdict = run(NAME, toy(weight, ours, u, moment=second_moment(theirs @ u), tokens=tokens), seed)
    assert verdict.outcome is not Outcome.FAILED, str(verdict)
    assert f"between halves of the 257 inputs, times sqrt(1 + 257 / {tokens} tokens)" in verdict.allowed.derivation
    assert run.outcome(NAME, toy(weight, ours, u, moment=second_moment(theirs @ u)), seed) == "failed"
    assert run.matched(NAME, toy(weight, ours, u, moment=second_moment(theirs), tokens=tokens), seed) == RAW


@pytest.mark.parametrize("zero", ["moment", "inputs"])
def test_nothing_to_compare(run, toy, data, zero):
    weight, x = data()
    u = haar(40, seed=1)
    x = torch.zeros_like(x) if zero == "inputs" else x
    moment = torch.zeros(40, 40, dtype=torch.float64) if zero == "moment" else torch.eye(40, dtype=torch.float64)
    verdict = run(NAME, toy(weight, x, u, moment=moment))
    assert verdict.headline == "toy: a moment is zero or negative"
