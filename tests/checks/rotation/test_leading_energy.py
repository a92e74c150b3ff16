"""leading_energy: each verdict, over bases of every structure and spectra of every shape."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.fft
import scipy.linalg
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rotcheck.bases import haar, principal_basis
from rotcheck.convention import Convention
from rotcheck.subjects import Rotation

D, N = 24, 1500
SEEDS = st.integers(0, 2**31)
INDEX = torch.arange(D, dtype=torch.float64)
SPIKED = torch.where(INDEX < 3, 20.0, 1.0)
POWER = 1 / (INDEX + 1)
GEOMETRIC = 10 ** (-2 * INDEX / (D - 1))
SPECTRA = {"spiked": SPIKED, "power law": POWER, "geometric": GEOMETRIC}


def dct(n):
    return torch.from_numpy(scipy.fft.dct(np.eye(n), type=2, norm="ortho"))


def skew(n, seed):
    """``U.T = -U``: every sign flipped."""
    q, j = haar(n, seed=seed), torch.tensor([[0.0, 1.0], [-1.0, 0.0]], dtype=torch.float64)
    return q @ torch.block_diag(*[j] * (n // 2)) @ q.T


def householder(n, seed):
    v = haar(n, seed=seed)[:, :1]
    return torch.eye(n, dtype=torch.float64) - 2 * v @ v.T


def hadamard(n):
    return torch.from_numpy(scipy.linalg.hadamard(n, dtype=float)) / math.sqrt(n)


def near_symmetric(n, seed, size):
    """``expm(size A)`` for a skew-symmetric A of spectral norm 1."""
    a = torch.randn(n, n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    a = a - a.T
    return torch.linalg.matrix_exp(size * a / torch.linalg.matrix_norm(a, 2))


def cyclic(n):
    return torch.eye(n, dtype=torch.float64).roll(7, dims=1)


def rows(basis, spectrum, seed=0, n=N, law="gaussian"):
    """Rows whose second moment has this eigenbasis and spectrum."""
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(n, len(spectrum), generator=generator, dtype=torch.float64)
    if law == "t3":
        drawn /= torch.randn(3, n, 1, generator=generator, dtype=torch.float64).square().mean(0).sqrt()
    return (drawn * spectrum.sqrt()) @ basis.T


def subject(basis, spectrum, applied=None, /, *, seed=0, n=N, law="gaussian", **changes):
    """Code that applies ``applied``, declared to apply the eigenbasis of the samples' second moment."""
    applied = basis if applied is None else applied
    declared = {
        "basis": basis,
        "covariance": (basis * spectrum) @ basis.T,
        "samples": rows(basis, spectrum, seed, n, law),
        "effective_samples": n,
    }
    return Rotation(lambda x: x @ applied.to(x.dtype), **(declared | changes))


BASES = {"haar": haar(D, seed=1), "cyclic permutation": cyclic(D)}


@pytest.mark.parametrize("basis", BASES)
@pytest.mark.parametrize("spectrum", SPECTRA)
@pytest.mark.parametrize("law", ["gaussian", "t3"])
def test_the_eigenbasis_passes(run, basis, spectrum, law):
    verdict = run("leading_energy", subject(BASES[basis], SPECTRA[spectrum], law=law))
    assert verdict.outcome.value == "passed", str(verdict)


@pytest.mark.parametrize("spectrum", SPECTRA)
def test_the_transposed_basis_fails_by_name(run, spectrum):
    basis = BASES["haar"]
    verdict = run("leading_energy", subject(basis, SPECTRA[spectrum], basis.T))
    assert (verdict.outcome.value, verdict.matched) == ("failed", "the transposed basis"), str(verdict)
    assert "has the leading energy of the transposed basis, declared x @ basis" in verdict.headline
    assert verdict.hint.startswith("torch.linalg.eigh puts eigenvectors in columns")


@settings(max_examples=15)
@given(seed=SEEDS, d=st.sampled_from([11, 18, 24, 40]), kind=st.sampled_from(["spiked", "power law"]))
def test_haar_bases_are_decided_both_ways(run, seed, d, kind):
    index = torch.arange(d, dtype=torch.float64)
    spectrum = torch.where(index < 3, 20.0, 1.0) if kind == "spiked" else 1 / (index + 1)
    basis = haar(d, seed=seed)
    assert run.outcome("leading_energy", subject(basis, spectrum, seed=seed)) == "passed"
    assert run.outcome("leading_energy", subject(basis, spectrum, basis.T, seed=seed)) == "failed"


WRONG = {
    "x, not rotated": torch.eye(D, dtype=torch.float64),
    "the basis in ascending order": BASES["haar"].flip(1),
    "a random basis": haar(D, seed=77),
}


@pytest.mark.parametrize("rival", WRONG)
@pytest.mark.parametrize("spectrum", ["spiked", "power law"])
def test_each_rival_fails_by_name(run, rival, spectrum):
    verdict = run("leading_energy", subject(BASES["haar"], SPECTRA[spectrum], WRONG[rival]))
    assert (verdict.outcome.value, verdict.matched) == ("failed", rival), str(verdict)


def test_the_basis_of_a_neighbour_fails_by_its_name(run):
    other = haar(D, seed=5)
    wrong = subject(BASES["haar"], SPIKED, other, neighbours={"keys": other, "head 3": haar(D, seed=6)})
    verdict = run("leading_energy", wrong)
    assert (verdict.outcome.value, verdict.matched) == ("failed", "the basis of keys")


def test_a_neighbour_that_energies_cannot_tell_apart_is_no_reason_for_doubt(run):
    """The heads share a basis, or differ in signs: `side` sees that, energies need not."""
    neighbours = {"same": BASES["haar"], "signs": -BASES["haar"]}
    assert run.outcome("leading_energy", subject(BASES["haar"], SPIKED, neighbours=neighbours)) == "passed"


def test_a_declared_basis_that_is_not_the_eigenbasis_fails_by_name(run):
    """The code does what it declares; what it declares is wrong for these rows."""
    other = haar(D, seed=8)
    verdict = run("leading_energy", subject(BASES["haar"], SPIKED, other, basis=other))
    assert verdict.matched == "the supplied basis, which is not the eigenbasis"
    assert verdict.hint.startswith("the code applies what it declares")


def test_a_rotation_of_two_leading_axes_is_seen_in_the_correlations_only(run):
    """Energies stay within the first k; the off-diagonal share is what sees it."""
    spectrum = torch.where(INDEX < 1, 40.0, torch.where(INDEX < 2, 4.0, 0.3))
    basis = BASES["haar"]
    mix = torch.eye(D, dtype=torch.float64)
    mix[:2, :2] = torch.tensor([[1.0, 1.0], [-1.0, 1.0]], dtype=torch.float64) / math.sqrt(2)
    right, wrong = subject(basis, spectrum, basis), subject(basis, spectrum, basis @ mix)
    assert run.outcome("leading_energy", right) == "passed"
    verdict = run("leading_energy", wrong)
    assert verdict.outcome.value == "failed"
    facts = dict(verdict.facts)
    leading = next(value for name, value in facts.items() if name.startswith("energy in the first "))
    assert leading == pytest.approx(facts["predicted for x @ basis"], abs=0.02)
    assert facts["off-diagonal share"] > 0.25


SYMMETRIC = {
    "identity": torch.eye(D, dtype=torch.float64),
    "Householder": householder(D, 3),
    "signs": torch.diag(torch.tensor([1.0, -1.0, -1.0] * 8, dtype=torch.float64)),
    "reversal": torch.eye(D, dtype=torch.float64).flip(0),
    "skew-symmetric": skew(D, 4),
    "near symmetric": near_symmetric(D, 5, 0.01),
}


@pytest.mark.parametrize("name", SYMMETRIC)
@pytest.mark.parametrize("applied", ["as declared", "transposed"])
def test_what_no_energy_can_tell_is_undecided_and_not_failed(run, name, applied):
    basis = SYMMETRIC[name]
    found = run("leading_energy", subject(basis, SPIKED, basis if applied == "as declared" else basis.T))
    assert found.outcome.value == "undecided", str(found)
    assert "are equal, or closer than calibrations drift" in found.headline
    assert "operator access, for the check side" in found.needs
    assert dict(found.facts)["delta"] < 0.1


def test_a_symmetric_hadamard_is_undecided_and_a_signed_one_decided(run):
    """``H diag(s)`` differs from its transpose, which is why fused signs made a public bug visible."""
    index = torch.arange(16, dtype=torch.float64)
    spectrum = torch.where(index < 3, 20.0, 1.0)
    signs = torch.tensor([1.0, -1, -1, 1, -1, 1, 1, 1, -1, 1, -1, -1, 1, -1, 1, 1], dtype=torch.float64)
    assert run.outcome("leading_energy", subject(hadamard(16), spectrum)) == "undecided"
    signed = hadamard(16) * signs[:, None]
    assert run.outcome("leading_energy", subject(signed, spectrum)) == "passed"
    assert run.outcome("leading_energy", subject(signed, spectrum, signed.T)) == "failed"


@pytest.mark.parametrize("spectrum", SPECTRA)
def test_a_cosine_transform_is_undecided_where_its_transpose_is_nearly_as_good(run, spectrum):
    """U and U.T of a DCT-II put similar energies first, and an off-diagonal share of 0.1 is no more than drift."""
    for applied in (dct(D), dct(D).T):
        found = run("leading_energy", subject(dct(D), SPECTRA[spectrum], applied))
        assert found.outcome.value == "undecided"
        assert 0.2 < dict(found.facts)["delta"] < 0.6


def test_a_cosine_transform_with_its_fastest_cosines_first_is_decided(run):
    basis = dct(D).flip(1)
    assert run.outcome("leading_energy", subject(basis, SPIKED)) == "passed"
    assert run.outcome("leading_energy", subject(basis, SPIKED, basis.T)) == "failed"


@pytest.mark.parametrize("applied", ["right", "transposed", "random"])
def test_a_flat_spectrum_is_undecided(run, applied):
    basis = BASES["haar"]
    matrix = {"right": basis, "transposed": basis.T, "random": haar(D, seed=9)}[applied]
    verdict = run("leading_energy", subject(basis, torch.ones(D, dtype=torch.float64), matrix))
    assert verdict.outcome.value == "undecided"
    assert "the spectrum is flat" in verdict.headline


@settings(max_examples=15)
@given(seed=SEEDS)
def test_signs_are_free(run, seed):
    basis = haar(D, seed=seed)
    signs = torch.where(haar(D, seed=seed + 1)[0] > 0, 1.0, -1.0).double()
    assert run.outcome("leading_energy", subject(basis, POWER, basis * signs, seed=seed)) == "passed"
    without = subject(basis, POWER, basis * signs, seed=seed, basis=None)
    run.assert_silent("leading_energy", without)


@settings(max_examples=15)
@given(seed=SEEDS, equal=st.integers(2, 12))
def test_rotations_and_permutations_inside_equal_eigenvalues_are_free(run, seed, equal):
    axes = haar(D, seed=seed)
    values = torch.cat([torch.full((equal,), 4.0), torch.logspace(0, -2, D - equal)]).double()
    inside = torch.block_diag(haar(equal, seed=seed + 1), torch.eye(D - equal, dtype=torch.float64))
    order = torch.cat([torch.arange(equal).roll(1), torch.arange(equal, D)])
    for applied in (axes @ inside, axes[:, order]):
        run.assert_silent("leading_energy", subject(axes, values, applied, seed=seed))


def test_a_two_level_spectrum_is_decided_and_its_levels_may_be_mixed(run):
    values = torch.where(INDEX < 6, 8.0, 1.0)
    basis = BASES["haar"]
    inside = torch.block_diag(haar(6, seed=1), haar(D - 6, seed=2))
    assert run.outcome("leading_energy", subject(basis, values, basis @ inside)) == "passed"
    assert run.outcome("leading_energy", subject(basis, values, basis.T)) == "failed"


def test_a_basis_that_turns_only_inside_a_level_is_undecided(run):
    """``U`` maps each eigenspace to itself, so its transpose has the same energies, and is as good."""
    values = torch.where(INDEX < 6, 8.0, 1.0)
    basis = torch.block_diag(haar(6, seed=1), haar(D - 6, seed=2))
    for applied in (basis, basis.T):
        assert run.outcome("leading_energy", subject(basis, values, applied)) == "undecided"


@pytest.mark.parametrize("code", ["right", "transposed"])
def test_coarse_arithmetic_is_allowed_for(run, dtype, code):
    basis = BASES["haar"].to(dtype)
    wrong = subject(BASES["haar"], SPIKED, BASES["haar"] if code == "right" else BASES["haar"].T, basis=basis)
    verdict = run("leading_energy", wrong)
    assert verdict.outcome.value == ("passed" if code == "right" else "failed"), str(verdict)
    assert "of rounding" in verdict.allowed.derivation


@pytest.mark.parametrize("code", ["right", "transposed"])
def test_paths_that_subtract_a_mean_and_normalise(run, code):
    mean = 10 * torch.randn(D, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    applied = BASES["haar"] if code == "right" else BASES["haar"].T

    def rotate(x):
        x = x - mean
        return x / (x.norm(dim=-1, keepdim=True) + 1e-8) @ applied

    found = subject(BASES["haar"], SPIKED)
    affine = Rotation(
        rotate, basis=found.basis, covariance=found.covariance, samples=found.samples + mean, mean=mean, normalizes=True
    )
    assert run.outcome("leading_energy", affine) == ("passed" if code == "right" else "failed")


def test_another_claim_is_respected(run):
    """Rows of the stored basis are the axes, and the code computes ``x @ basis.T``."""
    stored = BASES["haar"].T.contiguous()
    convention = Convention(claim="x @ basis.T")
    right = subject(BASES["haar"], SPIKED, BASES["haar"], basis=stored, convention=convention)
    wrong = subject(BASES["haar"], SPIKED, stored, basis=stored, convention=convention)
    assert str(run("leading_energy", right).headline).endswith("of x @ basis.T")
    assert run("leading_energy", wrong).matched == "the transposed basis"


def test_numpy_subjects_are_read(run):
    basis = BASES["haar"].numpy()
    found = subject(BASES["haar"], SPIKED)
    for applied, outcome in ((basis, "passed"), (basis.T, "failed")):
        numpy = Rotation(
            lambda x, u=applied: x @ u,
            basis=basis,
            covariance=found.covariance.numpy(),
            samples=found.samples.numpy(),
            effective_samples=N,
        )
        assert run.outcome("leading_energy", numpy) == outcome


def test_rotated_rows_alone_are_enough(run):
    """A cache holds nothing else: ``rotate`` returns its input."""
    basis, found = BASES["haar"], subject(BASES["haar"], SPIKED)
    for applied, outcome in ((basis, "passed"), (basis.T, "failed")):
        cached = Rotation(
            lambda y: y, basis=basis, covariance=found.covariance, samples=found.samples @ applied, name="cache"
        )
        assert run.outcome("leading_energy", cached) == outcome


def test_the_decision_is_made_on_outputs_only(run):
    """Rows that have nothing to do with the samples but their energies are as good as the rotated samples."""
    others = rows(torch.eye(D, dtype=torch.float64), SPIKED, seed=99)
    found = subject(BASES["haar"], SPIKED)
    unrelated = Rotation(
        lambda x: others, basis=found.basis, covariance=found.covariance, samples=found.samples, effective_samples=N
    )
    assert run.outcome("leading_energy", unrelated) == "passed"


@pytest.mark.parametrize("code", ["right", "transposed"])
def test_with_make_a_symmetric_basis_is_tried_elsewhere(run, code):
    make = (lambda u: lambda x: x @ u) if code == "right" else (lambda u: lambda x: x @ u.T)
    basis = householder(D, 3)
    verdict = run("leading_energy", subject(basis, SPIKED, make=make))
    assert verdict.outcome.value == ("passed" if code == "right" else "failed")
    assert "the same code on samples in a Haar eigenbasis" in verdict.witness


def test_with_make_a_mean_is_kept(run):
    mean = 3 * torch.ones(D, dtype=torch.float64)
    basis = householder(D, 3)
    found = subject(basis, SPIKED)
    affine = Rotation(
        make=lambda u: lambda x: (x - mean) @ u,
        basis=basis,
        covariance=found.covariance,
        samples=found.samples + mean,
        mean=mean,
    )
    assert run.outcome("leading_energy", affine) == "passed"


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_are_not_finite_fail(run, value):
    def rotate(x):
        y = x @ BASES["haar"]
        y[3, 4] = value
        return y

    found = subject(BASES["haar"], SPIKED)
    verdict = run(
        "leading_energy", Rotation(rotate, basis=found.basis, covariance=found.covariance, samples=found.samples)
    )
    assert verdict.outcome.value == "failed"
    assert "returns numbers that are not finite for the samples" in verdict.headline


def test_rows_of_zeros_fail_when_they_are_all_there_is_and_are_left_out_otherwise(run):
    found = subject(BASES["haar"], SPIKED)
    kept = {"basis": found.basis, "covariance": found.covariance, "samples": found.samples}
    verdict = run("leading_energy", Rotation(lambda x: 0 * x, **kept))
    assert verdict.outcome.value == "failed"
    assert "returns rows of zeros for the samples" in verdict.headline
    padded = kept | {"samples": torch.cat([found.samples, torch.zeros(9, D, dtype=torch.float64)])}
    assert run.outcome("leading_energy", Rotation(lambda x: x @ found.basis, **padded)) == "passed"


def test_code_that_crashes_on_the_samples_fails(run):
    found = subject(BASES["haar"], SPIKED)

    def rotate(x):
        raise ZeroDivisionError("inside")

    crash = Rotation(rotate, basis=found.basis, covariance=found.covariance, samples=found.samples)
    verdict = run("leading_energy", crash)
    assert verdict.outcome.value == "failed"
    assert "raised ZeroDivisionError: inside" in verdict.headline


@pytest.mark.parametrize(
    ("changes", "missing"),
    [({"samples": None, "effective_samples": None}, "samples"), ({"covariance": None}, "covariance")],
)
def test_what_it_needs_is_named(run, changes, missing):
    verdict = run("leading_energy", subject(BASES["haar"], SPIKED, **changes))
    assert verdict.outcome.value == "not applicable"
    assert f"does not supply {missing}" in verdict.headline


def test_a_spectrum_without_a_basis_does_not_say_which_way(run):
    found = subject(BASES["haar"], SPIKED)
    alone = Rotation(
        lambda x: x @ BASES["haar"], mean=torch.zeros(D, dtype=torch.float64), samples=found.samples, spectrum=SPIKED
    )
    verdict = run("leading_energy", alone)
    assert verdict.outcome.value == "not applicable"
    assert "does not supply basis: a spectrum alone" in verdict.headline


@pytest.mark.parametrize("code", ["right", "transposed"])
def test_a_spectrum_and_a_basis_replace_the_covariance(run, code):
    basis = BASES["haar"]
    found = subject(basis, SPIKED, basis if code == "right" else basis.T, covariance=None, spectrum=SPIKED)
    assert run.outcome("leading_energy", found) == ("passed" if code == "right" else "failed")


def test_the_principal_axes_need_no_basis(run):
    covariance = subject(BASES["haar"], SPIKED).covariance
    basis = principal_basis(covariance)[0]
    assert run.outcome("leading_energy", subject(BASES["haar"], SPIKED, basis, basis=None)) == "passed"
    assert run.outcome("leading_energy", subject(BASES["haar"], SPIKED, basis.T, basis=None)) == "failed"


def test_the_message_shows_energies_predictions_and_the_floor(run):
    text = str(run("leading_energy", subject(BASES["haar"], SPIKED, BASES["haar"].T)))
    for part in (
        "energy in the first", "predicted for x @ basis", "predicted for the transposed basis", "off-diagonal share",
        "energy in the first coordinate", "its floor 1 / d_eff", "delta", "independent rows needed",
    ):  # fmt: skip
        assert f"measured  {part}" in text
