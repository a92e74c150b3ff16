"""Second moments of rows divided by their norm: the integral, its predictions, and what a sample shows."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.integrate import quad

from rotcheck.bases import haar
from rotcheck.measures.unit_rows import Shares, delta, measured, predicted, unit_energies, unit_rows


def by_scipy(spectrum):
    """The same integral in its plain form, by adaptive quadrature."""
    values = np.asarray(spectrum, dtype=float)
    values = values / values.max()

    def integrand(t, value):
        return value / (1 + 2 * value * t) * np.prod((1 + 2 * values * t) ** -0.5)

    return [sum(quad(integrand, a, b, args=(v,), limit=200)[0] for a, b in ((0, 1), (1, np.inf))) for v in values]


SPECTRA = {
    "two": [1.0, 0.2],
    "equal": [3.0] * 7,
    "spiked": [16.0] * 2 + [1.0] * 9,
    "power law": [1 / i for i in range(1, 14)],
    "one and nothing": [1.0, 0.0, 0.0],
    "rank two": [1.0, 0.3, 0.0, 0.0, 0.0],
    "six decades": [1.0, 1e-2, 1e-4, 1e-6],
}


@pytest.mark.parametrize("name", SPECTRA)
def test_the_integral_is_that_of_scipy(name):
    found = unit_energies(torch.tensor(SPECTRA[name], dtype=torch.float64))
    np.testing.assert_allclose(found.numpy(), by_scipy(SPECTRA[name]), rtol=0, atol=1e-7)  # quad's own error


@pytest.mark.parametrize(
    ("spectrum", "exact"),
    [
        ([2.0, 2.0, 2.0], [1 / 3] * 3),
        ([5.0], [1.0]),
        ([7.0, 0.0], [1.0, 0.0]),
        ([9.0, 1.0], [3 / 4, 1 / 4]),
        ([1.0, 1e-8], [1 / (1 + 1e-4), 1e-4 / (1 + 1e-4)]),
    ],
)
def test_closed_forms(spectrum, exact):
    """In two dimensions ``p_1 = sqrt(l_1) / (sqrt(l_1) + sqrt(l_2))``: the angle of a stretched circle."""
    found = unit_energies(torch.tensor(spectrum, dtype=torch.float64))
    torch.testing.assert_close(found, torch.tensor(exact, dtype=torch.float64), rtol=0, atol=1e-14)


@pytest.mark.parametrize("law", ["gaussian", "t with 3 degrees of freedom", "on an ellipsoid"])
def test_every_elliptical_law_has_these_energies(law):
    generator = torch.Generator().manual_seed(1)
    values = torch.tensor([4.0, 2.0, 1.0, 0.5, 0.5], dtype=torch.float64)
    rows = torch.randn(40_000, 5, generator=generator, dtype=torch.float64)
    if law == "on an ellipsoid":
        rows /= rows.norm(dim=1, keepdim=True)
    if law.startswith("t"):
        rows /= torch.randn(3, 40_000, 1, generator=generator, dtype=torch.float64).square().mean(0).sqrt()
    unit = unit_rows(rows * values.sqrt())
    # each mean of 40,000 numbers from 0 to 1, of variance below 1/4, strays by more than 5 / sqrt(160,000) once in 1e6
    torch.testing.assert_close(unit.square().mean(0), unit_energies(values), rtol=0, atol=5 / math.sqrt(160_000))


def test_independent_heavy_tails_are_no_elliptical_law_but_close():
    """What the docstring says of other laws, as a number: t coordinates with 3 degrees of freedom are off by 0.02."""
    generator = torch.Generator().manual_seed(1)
    values = 1 / torch.arange(1, 17, dtype=torch.float64)
    rows = torch.randn(40_000, 16, generator=generator, dtype=torch.float64)
    rows /= torch.randn(3, *rows.shape, generator=generator, dtype=torch.float64).square().mean(0).sqrt()
    off = (unit_rows(rows * values.sqrt()).square().mean(0) - unit_energies(values)).abs().max().item()
    assert 0.005 < off < 0.03


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_energies_are_float64_and_add_to_one(dtype):
    found = unit_energies(torch.tensor([3.0, 1.0, 0.25, 0.0], dtype=dtype))
    assert found.dtype == torch.float64
    assert found.sum().item() == pytest.approx(1, abs=1e-15)


def test_rows_of_zeros_have_no_direction():
    rows = torch.tensor([[3.0, 4.0], [0.0, 0.0], [0.0, -2.0]], dtype=torch.float64)
    expected = torch.tensor([[0.6, 0.8], [0.0, -1.0]], dtype=torch.float64)
    torch.testing.assert_close(unit_rows(rows), expected, rtol=0, atol=1e-16)
    assert unit_rows(torch.zeros(3, 2)).shape == (0, 2)


ENERGIES = unit_energies(torch.tensor([8.0, 4, 2, 1, 1, 0.5, 0.5], dtype=torch.float64))


def test_predicted_shares_of_right_code():
    found = predicted(ENERGIES, torch.eye(7, dtype=torch.float64), 3)
    assert found == Shares(leading=ENERGIES[:3].sum().item(), first=ENERGIES[0].item(), off_diagonal=0.0)


def test_predicted_shares_of_ascending_order():
    found = predicted(ENERGIES, torch.eye(7, dtype=torch.float64).flip(1), 3)
    assert found.leading == pytest.approx(ENERGIES[4:].sum().item())
    assert found.first == pytest.approx(ENERGIES[6].item())
    assert found.off_diagonal == 0.0


def test_predicted_shares_of_random_bases_are_those_of_chance_on_average():
    found = [predicted(ENERGIES, haar(7, seed=seed), 3) for seed in range(200)]
    purity = ENERGIES.square().sum().item()
    assert np.mean([share.leading for share in found]) == pytest.approx(3 / 7, abs=0.03)
    assert np.mean([share.first for share in found]) == pytest.approx(1 / 7, abs=0.02)
    # E sum_i S_ii^2 = (1 + 2 sum p^2) / (d + 2), so 1 / d stands for it where d is large
    assert np.mean([share.off_diagonal for share in found]) == pytest.approx(
        1 - (1 + 2 * purity) / 9 / purity, abs=0.03
    )


def test_shares_are_measured_as_they_are_predicted():
    generator = torch.Generator().manual_seed(3)
    rotation = haar(7, seed=generator)
    values = torch.tensor([8.0, 4, 2, 1, 1, 0.5, 0.5], dtype=torch.float64)
    rows = torch.randn(30_000, 7, generator=generator, dtype=torch.float64) * values.sqrt() @ rotation
    seen, expected = measured(unit_rows(rows), ENERGIES, 3, 30_000), predicted(ENERGIES, rotation, 3)
    for name in ("leading", "first", "off_diagonal"):
        assert getattr(seen, name) == pytest.approx(getattr(expected, name), abs=0.015)


@pytest.mark.parametrize("n", [3, 8, 40])
def test_the_off_diagonal_share_of_few_independent_rows_has_no_bias(n):
    """Without the subtraction the average would be far from zero: 0.9, 0.3 and 0.07."""
    generator = torch.Generator().manual_seed(4)
    values = torch.tensor([8.0, 4, 2, 1, 1, 0.5, 0.5], dtype=torch.float64)
    samples = [
        unit_rows(torch.randn(n, 7, generator=generator, dtype=torch.float64) * values.sqrt()) for _ in range(4000)
    ]
    shares = torch.tensor([measured(unit, ENERGIES, 3, n).off_diagonal for unit in samples])
    raw = torch.tensor([measured(unit, ENERGIES, 3, 1e12).off_diagonal for unit in samples])
    assert abs(shares.mean().item()) < 5 * shares.std().item() / math.sqrt(4000)
    assert raw.mean().item() > 20 * raw.std().item() / math.sqrt(4000)


def test_the_off_diagonal_share_of_few_rows_in_a_wrong_basis_has_no_bias_either():
    """Six rows: without the last factor the average would be a sixth too small."""
    generator = torch.Generator().manual_seed(6)
    values, rotation = torch.tensor([8.0, 4, 2, 1, 1, 0.5, 0.5], dtype=torch.float64), haar(7, seed=generator)
    rows = torch.randn(4000, 6, 7, generator=generator, dtype=torch.float64) * values.sqrt() @ rotation
    shares = torch.tensor([measured(unit_rows(six), ENERGIES, 3, 6).off_diagonal for six in rows])
    expected = predicted(ENERGIES, rotation, 3).off_diagonal
    stray = 5 * shares.std().item() / math.sqrt(4000)
    assert stray < expected / 12
    assert shares.mean().item() == pytest.approx(expected, abs=stray)


def test_rows_that_are_worth_fewer_leave_more_to_chance():
    generator = torch.Generator().manual_seed(5)
    one = unit_rows(torch.randn(20, 7, generator=generator, dtype=torch.float64))
    twice = one.repeat_interleave(2, dim=0)
    assert measured(twice, ENERGIES, 3, 20).off_diagonal == pytest.approx(measured(one, ENERGIES, 3, 20).off_diagonal)
    assert measured(twice, ENERGIES, 3, 40).off_diagonal > measured(one, ENERGIES, 3, 20).off_diagonal


@pytest.mark.parametrize(
    ("rotation", "value"),
    [
        (torch.eye(7).double(), 0.0),
        (-torch.eye(7).double(), 0.0),
        (torch.diag(torch.tensor([1.0, -1, 1, 1, -1, 1, -1]).double()), 0.0),
        (torch.eye(7).double()[:, [0, 1, 2, 4, 3, 5, 6]], 0.0),  # two equal energies change places
    ],
)
def test_delta_is_zero_for_what_no_energy_shows(rotation, value):
    assert delta(ENERGIES, rotation) == pytest.approx(value, abs=1e-12)


def test_delta_of_a_flat_spectrum_is_zero_and_of_a_random_rotation_about_the_square_root_of_two():
    assert delta(torch.full((7,), 1 / 7, dtype=torch.float64), haar(7, seed=1)) == 0.0
    found = [delta(ENERGIES, haar(7, seed=seed)) for seed in range(50)]
    assert np.mean(found) == pytest.approx(math.sqrt(2), abs=0.1)


def test_delta_is_the_distance_of_the_two_second_moments():
    rotation = haar(7, seed=8)
    right, turned = torch.diag(ENERGIES), rotation @ torch.diag(ENERGIES) @ rotation.T
    expected = (turned - right).norm() / (right - ENERGIES.mean() * torch.eye(7)).norm()
    assert delta(ENERGIES, rotation) == pytest.approx(expected.item(), rel=1e-12)
