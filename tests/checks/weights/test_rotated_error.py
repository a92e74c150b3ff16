"""rotated_error: the stored weight is the rounded one of the basis in which the runtime feeds it."""

from __future__ import annotations

import pytest
import torch

from rotcheck.bases import haar, hadamard
from rotcheck.checks._codec import few_changed_codes
from rotcheck.outcome import Outcome
from rotcheck.quantize import RoundToNearest, quantize_weight
from rotcheck.subjects import QuantizedLayer

NAME = "rotated_error"
SEEDS = (0, 1, 2)


def candidates(toy, weight, u, bits):
    q = lambda w: toy.nearest(w, bits)  # noqa: E731
    return {
        "Q(W) @ basis": q(weight) @ u,
        "Q(W)": q(weight),
        "Q(W @ basis.T)": q(weight @ u.T),
        "Q(W @ basis) @ basis": q(weight @ u) @ u,
        "Q(W @ basis) @ basis.T": q(weight @ u) @ u.T,
    }


def test_passes_on_our_path(run, right, kind):
    settings, basis, calibrated = kind
    verdict = run(NAME, right(settings, basis, calibrated))
    assert verdict.outcome is Outcome.PASSED, str(verdict)
    assert verdict.claim.error == 0
    assert verdict.power > 4


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("basis", ["haar", "signed hadamard"])
@pytest.mark.parametrize("seed", SEEDS)
def test_every_rival_is_named(run, toy, data, bits, basis, seed):
    weight, x = data(seed)
    u = haar(40, seed=seed) if basis == "haar" else hadamard(40, signs=seed)
    assert run.outcome(NAME, toy(weight, x, u, bits)) == "passed"
    for name, stored in candidates(toy, weight, u, bits).items():
        assert run.matched(NAME, toy(weight, x, u, bits, stored)) == name


def test_the_first_line_says_what_is_wrong(run, toy, data):
    weight, x = data()
    u = haar(40, seed=1)
    verdict = run(NAME, toy(weight, x, u, stored=toy.nearest(weight, 4) @ u))
    assert verdict.headline == "toy multiplies rotated rows with Q(W) @ basis, declared Q(W @ basis)"
    assert "round after rotating" in verdict.hint
    assert "W: (48, 40), 4 bits per channel; x: (257, 40) float64" in str(verdict)


@pytest.mark.parametrize("bits", [3, 4, 8])
def test_the_gain_is_printed_and_decides_nothing(run, toy, data, bits):
    """Rounding first has the error of no rotation at all: the ratio is one, and the verdict is not made of it."""
    weight, x = data()
    u = hadamard(40, signs=0)
    right = dict(run(NAME, toy(weight, x, u, bits)).facts)
    assert right["their ratio"] < 0.5
    wrong = run(NAME, toy(weight, x, u, bits, toy.nearest(weight, bits) @ u))
    assert dict(wrong.facts)["their ratio"] == pytest.approx(1, rel=1e-9)
    assert dict(wrong.facts)["output error"] == pytest.approx(right["output error quantised without a rotation"])


def test_a_rotation_that_raises_the_error_passes_all_the_same(run, toy):
    """Columns of few large numbers are spread into all of them: nothing is wrong with the code."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.eye(20, dtype=torch.float64)[torch.randint(0, 20, (31,), generator=generator)]
    weight = weight + 1e-3 * torch.randn(31, 20, generator=generator, dtype=torch.float64)
    x = torch.randn(90, 20, generator=generator, dtype=torch.float64)
    verdict = run(NAME, toy(weight, x, haar(20, seed=3)))
    assert verdict.outcome is Outcome.PASSED
    assert dict(verdict.facts)["their ratio"] > 10


@pytest.mark.parametrize(
    ("basis", "close"),
    [
        (torch.eye(40, dtype=torch.float64), "Q(W) @ basis"),
        (torch.eye(40, dtype=torch.float64).roll(7, 0), "Q(W) @ basis"),
        (hadamard(40), "Q(W @ basis.T)"),
    ],
    ids=["identity", "permutation", "symmetric"],
)
def test_a_basis_that_cannot_tell(run, toy, data, basis, close):
    """A Hadamard matrix of size 40 is made of one of size 20, which is symmetrised here to have the worst case."""
    basis = basis if close == "Q(W) @ basis" else _symmetric(40)
    verdict = run(NAME, toy(*data(), basis))
    assert verdict.outcome is Outcome.UNDECIDED
    assert f"cannot tell Q(W @ basis) from {close} on this witness" in verdict.headline
    assert "a basis that differs from its transpose and is no permutation of axes" in verdict.needs


def _symmetric(n):
    v = haar(n, seed=0)[:, :1]
    basis = torch.eye(n, dtype=torch.float64) - 2 * v @ v.T
    return (basis + basis.T) / 2


@pytest.mark.parametrize(("turned", "outcome"), [(False, "passed"), (True, "failed")])
def test_make_decides_where_the_basis_cannot(run, toy, data, turned, outcome):
    weight, x = data()

    def made(u):
        return toy(weight, x, u, stored=toy.nearest(weight @ (u.T if turned else u), 4), make=made)

    verdict = run(NAME, made(_symmetric(40)))
    assert verdict.outcome.value == outcome
    assert "a seeded Haar basis, because its own cannot tell" in verdict.witness
    if turned:
        assert verdict.matched == "Q(W @ basis.T)"


def test_make_that_makes_something_else(run, toy, data):
    verdict = run(NAME, toy(*data(), _symmetric(40), make=lambda u: "layer"))
    assert verdict.headline == "toy cannot be run: make(basis) of toy answered with str, expected QuantizedLayer"


def test_the_runtime_is_what_counts(run, toy, data):
    """A function that does not rotate: the weight is right, and right for nothing that is fed to it."""
    weight, x = data()
    u = haar(40, seed=1)
    stored = toy.nearest(weight @ u, 4)
    assert run.outcome(NAME, toy(weight, x, u, stored=stored)) == "passed"
    for applied in (lambda rows: rows, lambda rows: rows @ haar(40, seed=2)):
        verdict = run(NAME, toy(weight, x, applied, stored=stored))
        assert (verdict.outcome.value, verdict.matched) == ("failed", "")
    assert run.matched(NAME, toy(weight, x, lambda rows: rows @ u.T, stored=stored)) == "Q(W @ basis.T)"


def test_a_bias_is_not_part_of_the_weight(run, toy, data):
    weight, x = data()
    u = haar(40, seed=1)
    stored = toy.nearest(weight @ u, 4)
    bias = torch.arange(48, dtype=torch.float64)
    assert run.outcome(NAME, toy(weight, x, u, stored=lambda rows: rows @ stored.T + bias)) == "passed"


@pytest.mark.parametrize(("count", "outcome"), [(0, "passed"), (5, "passed"), (60, "failed")])
def test_a_few_codes_may_differ(run, toy, data, count, outcome):
    """Of 1920 codes: where products are summed in another order, a number between two codes goes either way."""
    weight, x = data()
    u = haar(40, seed=1)
    stored = toy.nearest(weight @ u, 4)
    step = (weight @ u).abs().amax(1, keepdim=True) / 7
    chosen = torch.randperm(1920, generator=torch.Generator().manual_seed(0))[:count]
    moved = torch.zeros(1920, dtype=torch.float64).index_fill_(0, chosen, 1.0).reshape(48, 40)
    assert run.outcome(NAME, toy(weight, x, u, stored=stored + moved * step)) == outcome


@pytest.mark.parametrize("bits", [4, 8])
def test_without_the_quantiser_rounding_bounds_it(run, toy, data, bits):
    weight, x = data()
    u = haar(40, seed=1)
    assert run.outcome(NAME, toy(weight, x, u, bits, quantize=None)) == "passed"
    named = {"W, rounded": weight, "W @ basis.T, rounded": weight @ u.T}
    for name, matrix in named.items():
        assert run.matched(NAME, toy(weight, x, u, bits, toy.nearest(matrix, bits), quantize=None)) == name


def test_without_the_quantiser_another_grid_is_no_bug(run, right):
    """Calibrated clipping, zero points, groups: their errors are those of rounding to nearest, or less."""
    for kind in ("4 bits per channel", "4 bits per group of 20, zero points", "8 bits per group of 5"):
        for basis in ("hadamard", "haar"):
            assert run.outcome(NAME, right(kind, basis, quantize=None)) == "passed"


def test_rounding_that_changes_nothing_is_undecided(run, toy, data):
    weight, x = data()
    verdict = run(NAME, toy(weight, x, haar(40, seed=1), stored=weight, quantize=lambda w, moment: w))
    assert verdict.headline == "toy: rounding changes nothing, so it commutes with every rotation"


@pytest.mark.parametrize(
    ("quantize", "text"),
    [
        (lambda w, m: w[:, 1:], "toy cannot be run: quantize of toy answered with shape (48, 39), expected (48, 40)"),
        (lambda w, m: w / 0, "toy cannot be run: quantize of toy gives numbers that are not finite"),
        (lambda w, m: [1], "toy cannot be run: quantize of toy answered with list, expected a tensor"),
    ],
)
def test_a_quantiser_that_cannot_be_run(run, toy, data, quantize, text):
    assert run(NAME, toy(*data(), haar(40, seed=1), quantize=quantize)).headline == text


def test_a_quantiser_may_answer_with_an_object(run, toy, data):
    settings = RoundToNearest(bits=4)
    weight, x = data()
    u = haar(40, seed=1)
    stored = quantize_weight(weight @ u, settings).dequantize()
    subject = toy(weight, x, u, stored=stored, quantize=lambda w, m: quantize_weight(w, settings, moment=m))
    assert run.outcome(NAME, subject) == "passed"


def test_no_outputs_no_ratio(run, toy, data):
    weight, x = data()
    verdict = run(NAME, toy(weight, torch.zeros_like(x), haar(40, seed=1)))
    assert verdict.outcome is Outcome.PASSED
    assert verdict.facts == ()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("group", [None, 10])
def test_a_weight_rotated_in_a_coarse_dtype(run, data, dtype, bits, group):
    """Many codes go the other way there, and every end of a symmetric range may."""
    settings = RoundToNearest(bits=bits, group=group)
    for seed in SEEDS:
        weight, x = (t.to(dtype) for t in data(seed))
        u = haar(40, seed=seed).to(dtype)

        def q(w, moment=None):
            return quantize_weight(w, settings).dequantize()

        given = {"weight": weight, "basis": u, "inputs": x, "bits": bits, "group": group, "quantize": q}
        right = run(NAME, QuantizedLayer(q(weight @ u), **given))
        assert right.outcome is not Outcome.FAILED, str(right)
        assert right.outcome is Outcome.PASSED or dtype is torch.bfloat16
        assert run.outcome(NAME, QuantizedLayer(q(weight) @ u.double(), **given)) in ("failed", right.outcome.value)
        if right.outcome is Outcome.PASSED:
            assert run.matched(NAME, QuantizedLayer(q(weight) @ u.double(), **given)) == "Q(W) @ basis"


def test_ends_of_a_symmetric_range_may_go_either_way(run, data):
    """Half a step from two codes, up to the rounding of the step: the lower one or not, in half of the groups."""
    weight, x = (t.float() for t in data())
    u, settings = haar(40, seed=2).float(), RoundToNearest(bits=4, group=8)
    rotated = (weight.double() @ u.double()).unflatten(1, (5, 8))
    ends = (rotated == -rotated.abs().amax(-1, keepdim=True)).flatten(1)
    right = quantize_weight(rotated.flatten(1), settings)
    flipped = right.dequantize() + torch.where(right.integers == 0, 1.0, -1.0) * right.steps * ends
    assert ends.sum() > 80
    given = {"weight": weight, "basis": u, "inputs": x, "bits": 4, "group": 8}
    given["quantize"] = lambda w, m: quantize_weight(w, settings)
    for stored in (right.dequantize(), flipped):
        assert run.outcome(NAME, QuantizedLayer(stored, **given)) == "passed"
    others = ends.roll(1, dims=1)
    moved = right.dequantize() + right.steps * others
    assert run.outcome(NAME, QuantizedLayer(moved, **given)) == "failed"


def test_a_chaotic_quantiser_is_undecided(run, toy, data):
    def chaotic(w, moment):
        return toy.nearest(w, 4) + (1e17 * w).sin() * w.abs().amax(1, keepdim=True) / 7

    weight, x = data()
    u = haar(40, seed=1)
    verdict = run(NAME, toy(weight, x, u, stored=chaotic(weight @ u, None), quantize=chaotic))
    assert verdict.headline == "toy: rounding before quantisation decides too many of its codes"


def test_rounding_of_a_dequantised_weight_is_allowed_for(run, toy, data):
    """In bfloat16 8 bits are rounded by more than what a few changed codes explain."""
    weight, x = data()
    u = haar(40, seed=1)
    verdict = run(NAME, toy(weight, x, u, 8, toy.nearest(weight @ u, 8).to(torch.bfloat16)))
    assert verdict.outcome is Outcome.PASSED
    assert verdict.claim.error > few_changed_codes().value
    assert "u |W'| / error = 0.67, bfloat16" in verdict.allowed.derivation


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_another_basis_is_one_that_the_runtime_can_hold(run, toy, data, dtype):
    weight, x = (t.to(dtype) for t in data())
    seen = []

    def made(u):
        seen.append(u)
        return toy(weight, x, u.to(dtype), stored=toy.nearest(weight.double() @ u, 4), make=made)

    run(NAME, made(_symmetric(40)))
    assert len(seen) > 1
    assert all(torch.equal(u, u.to(dtype).double()) for u in seen[1:])
