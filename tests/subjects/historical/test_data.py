"""The rows under the historical subjects: known covariances, bases of their own, nothing symmetric."""

from __future__ import annotations

import itertools

import pytest
import torch

from rotcheck.bases import haar
from rotcheck.subjects.historical.calibration import calibrate
from rotcheck.subjects.historical.data import HEAD, LAYER, SPIKES, drawn, gaussian_rows, spiked_spectrum


@pytest.mark.parametrize("width", [20, 33, 64, 128, 300])
def test_the_spectrum_has_four_spikes_and_an_effective_dimension_of_four(width):
    values = spiked_spectrum(width)
    assert values[:4].tolist() == list(SPIKES)
    assert (values.diff() < 0).all()
    assert 3.9 < values.sum() ** 2 / values.square().sum() < 4.4
    assert 0.05 < values[4:].sum() / values.sum() < 0.1


def test_rows_have_the_covariance_that_is_asked_for():
    """A sample moment errs by ``sqrt(2 / n) hypot(tr(C), |C|)`` at most, in the mean over Gaussian samples."""
    width, count = 17, 20_000
    basis, values = haar(width, seed=1), spiked_spectrum(width)
    rows = gaussian_rows(count, values, basis, torch.Generator().manual_seed(2))
    covariance = (basis * values) @ basis.T
    error = (rows.T @ rows / count - covariance).norm()
    assert error < 2 * (2 / count) ** 0.5 * torch.hypot(values.sum(), values.norm())


def test_every_tensor_has_a_basis_of_its_own_that_is_far_from_symmetric():
    data = drawn(0)
    bases = [calibrate(rows).basis for rows in (*data.heads.values(), data.values)]
    bases.append(calibrate(data.shifted, centred=True).basis)
    assert len(bases) == 6
    for basis in bases:
        assert (basis - basis.T).norm() / basis.norm() > 1
    for one, other in itertools.combinations(bases, 2):
        assert (one[:, :4].T @ other[:, :4]).square().sum() / 4 < 0.3  # of 1 for the same leading axes


def test_only_the_shifted_rows_have_a_mean():
    data = drawn(0)
    for rows in (*data.heads.values(), data.values):
        assert rows.mean(0).norm() < 0.2 * rows.norm(dim=-1).mean()
    assert data.shifted.mean(0).norm() > 0.5 * data.shifted.norm(dim=-1).mean()


def test_the_seed_decides_everything():
    one, again, other = drawn(1), drawn(1), drawn(2)
    assert torch.equal(one.keys, again.keys)
    assert torch.equal(one.shifted, again.shifted)
    assert not torch.equal(one.values, other.values)
    assert one.keys is one.heads[LAYER, HEAD]
