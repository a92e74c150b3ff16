"""The axes of a head: orthogonal, principal for its own moment, sorted, and within the parts that rotate apart."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rotcheck import RotcheckError
from rotcheck.bases import hadamard
from rotcheck.measures.spectra import participation_ratio
from rotcheck.spectral import ROTATIONS, head_axes
from rotcheck.spectral.axes import declared_moment, spectrum
from rotcheck.tolerance import Tolerance

SEEDS = st.integers(0, 2**31)
KINDS = st.sampled_from(["spectral", "none", "haar"])


def allowed(width):
    return Tolerance(storage="float64", length=8 * width, kappa=width**0.5).value


def in_axes(moment, axes):
    return axes.basis.mT @ moment @ axes.basis


@given(
    seed=SEEDS, rotation=KINDS, centred=st.booleans(), ordered=st.booleans(), width=st.integers(2, 9), data=st.data()
)
def test_every_basis_is_orthogonal_and_knows_its_variances(
    seed, rotation, centred, ordered, width, data, rows_of, statistics_of
):
    rotary = data.draw(st.integers(0, width - 1))
    statistics = statistics_of(rows_of(seed, width=width), rotary)
    axes = head_axes(statistics, rotation, centred=centred, ordered=ordered, seed=seed)
    assert axes.basis.shape == (2, width, width)
    assert (axes.heads, axes.width, axes.rotary, axes.rotation) == (2, width, rotary, rotation)
    eye = torch.eye(width, dtype=torch.float64)
    assert (axes.basis.mT @ axes.basis - eye).norm(dim=(1, 2)).max() <= allowed(width)
    moment = declared_moment(statistics, centred=centred)
    found = in_axes(moment, axes).diagonal(dim1=1, dim2=2)
    assert (axes.variances - found).abs().max() <= allowed(width) * moment.norm()
    assert (axes.variances >= 0).all()
    if ordered or rotation == "spectral":
        assert (axes.variances.diff(dim=1) <= 0).all()
    # whatever the axes are, the spectrum is that of the moment
    assert (axes.spectrum.diff(dim=1) <= 0).all()
    assert (axes.spectrum - torch.linalg.eigvalsh(moment).flip(1)).abs().max() <= allowed(width) * moment.norm()


@given(seed=SEEDS, centred=st.booleans(), width=st.integers(2, 9))
def test_principal_axes_diagonalise_the_declared_moment(seed, centred, width, rows_of, statistics_of):
    statistics = statistics_of(rows_of(seed, width=width))
    axes = head_axes(statistics, centred=centred)
    moment = statistics.moments.second(centred=centred)
    turned = in_axes(moment, axes)
    assert (turned - torch.diag_embed(axes.spectrum)).norm() <= allowed(width) * moment.norm()
    assert (axes.variances - axes.spectrum).abs().max() <= allowed(width) * moment.norm()


@given(seed=SEEDS)
def test_columns_are_axes_and_not_rows(seed, rows_of, statistics_of):
    """The transposed basis, another head's, and the other moment's do not diagonalise."""
    statistics = statistics_of(rows_of(seed, mean=2.0))
    axes, other = head_axes(statistics), head_axes(statistics, centred=False)
    moment = statistics.moments.second(centred=True)
    for rival in (axes.basis.mT, axes.basis.flip(0), other.basis):
        turned = rival.mT @ moment @ rival
        off = turned - torch.diag_embed(turned.diagonal(dim1=1, dim2=2))
        assert off.norm() > 1e-3 * moment.norm()


@given(seed=SEEDS, centred=st.booleans(), width=st.integers(3, 9), data=st.data())
def test_parts_rotate_apart(seed, centred, width, data, rows_of, statistics_of):
    """Each axis lies in one part, each part diagonalises its own moment, and all columns are sorted together."""
    rotary = data.draw(st.integers(1, width - 1))
    statistics = statistics_of(rows_of(seed, width=width), rotary)
    axes = head_axes(statistics, centred=centred)
    in_first = (axes.basis[:, :rotary] != 0).any(1)
    in_second = (axes.basis[:, rotary:] != 0).any(1)
    assert not (in_first & in_second).any()
    assert (in_first.sum(1) == rotary).all()
    moment = statistics.moments.second(centred=centred)
    for head in range(2):
        for part, member in ((slice(0, rotary), in_first), (slice(rotary, width), in_second)):
            columns = axes.basis[head][part][:, member[head]]
            turned = columns.T @ moment[head][part, part] @ columns
            expected = torch.linalg.eigvalsh(moment[head][part, part]).flip(0)
            limit = allowed(width) * moment[head].norm()
            assert (turned - torch.diag(expected)).norm() <= limit
    assert (axes.variances - axes.spectrum).abs().max() <= allowed(width) * moment.norm()


def test_what_links_two_parts_is_left_out_of_both_spectra(rows_of, statistics_of):
    statistics = statistics_of(rows_of(0), 3)
    moment = declared_moment(statistics, centred=True)
    whole = statistics.moments.second(centred=True)
    assert (moment[:, :3, 3:] == 0).all()
    assert (moment[:, 3:, :3] == 0).all()
    assert torch.equal(moment[:, :3, :3], whole[:, :3, :3])
    assert torch.equal(moment[:, 3:, 3:], whole[:, 3:, 3:])
    assert not torch.allclose(spectrum(moment), spectrum(whole))


@given(seed=SEEDS, centred=st.booleans())
def test_effective_dimension_split_and_gap_are_of_the_spectrum(seed, centred, rows_of, statistics_of):
    axes = head_axes(statistics_of(rows_of(seed)), centred=centred)
    assert torch.equal(axes.effective, participation_ratio(axes.spectrum))
    for head, (split, gap) in enumerate(zip(axes.splits, axes.gaps, strict=True)):
        assert split == min(max(round(axes.effective[head].item()), 1), 6)
        assert gap == pytest.approx((axes.spectrum[head, split - 1] / axes.spectrum[head, split]).item())


def test_a_large_mean_hides_the_spectrum_of_uncentred_data(rows_of, statistics_of):
    statistics = statistics_of(rows_of(2, mean=20.0))
    centred, uncentred = (head_axes(statistics, centred=c).effective for c in (True, False))
    assert (centred > 2).all()
    assert (uncentred < 1.1).all()


def test_the_mean_is_zero_unless_centred(rows_of, statistics_of):
    statistics = statistics_of(rows_of(2))
    assert torch.equal(head_axes(statistics).mean, statistics.moments.mean)
    uncentred = head_axes(statistics, centred=False)
    assert (uncentred.mean == 0).all()
    assert (head_axes(statistics).centred, uncentred.centred) == (True, False)


@given(seed=SEEDS, count=st.integers(2, 6))
def test_fewer_rows_than_coordinates(seed, count, rows_of, statistics_of):
    """The moment is singular: axes are complete all the same, and the variances behind its rank are rounding."""
    statistics = statistics_of(rows_of(seed, count=count, width=7))
    axes = head_axes(statistics)
    rank = count - 1
    size = axes.spectrum[:, :1]
    assert (axes.spectrum[:, rank:] <= 1e-12 * size).all()
    assert (axes.basis.mT @ axes.basis - torch.eye(7, dtype=torch.float64)).norm(dim=(1, 2)).max() <= allowed(7)
    assert all(1 <= split <= max(rank, 1) for split in axes.splits)


def test_rows_that_are_all_the_same_have_one_dimension(statistics_of):
    axes = head_axes(statistics_of(torch.ones(1, 5, 4, dtype=torch.float64)))
    assert axes.effective.tolist() == [1.0]
    assert axes.splits == (1,)
    assert axes.gaps == (math.inf,)


def test_without_rotation_coordinates_are_only_put_in_order(rows_of, statistics_of):
    statistics = statistics_of(rows_of(4))
    asis, ordered = (head_axes(statistics, "none", ordered=o) for o in (False, True))
    assert torch.equal(asis.basis, torch.eye(7, dtype=torch.float64).expand(2, 7, 7))
    assert set(ordered.basis.unique().tolist()) == {0.0, 1.0}
    variances = statistics.moments.second(centred=True).diagonal(dim1=1, dim2=2)
    torch.testing.assert_close(asis.variances, variances)
    torch.testing.assert_close(ordered.variances, variances.sort(dim=1, descending=True).values)


def test_haar_axes_are_drawn_for_each_head_from_the_seed(rows_of, statistics_of):
    statistics = statistics_of(rows_of(4))
    one, again, other = (head_axes(statistics, "haar", seed=seed, ordered=False).basis for seed in (1, 1, 2))
    assert torch.equal(one, again)
    assert (one - other).norm() > 1
    assert (one[0] - one[1]).norm() > 1


def test_hadamard_axes_are_those_of_the_matrix(rows_of, statistics_of):
    axes = head_axes(statistics_of(rows_of(4, width=12)), "hadamard", ordered=False)
    assert torch.equal(axes.basis, hadamard(12).expand(2, 12, 12))
    blocks = head_axes(statistics_of(rows_of(4, width=12), rotary=4), "hadamard", ordered=False)
    assert torch.equal(blocks.basis[0], torch.block_diag(hadamard(4), hadamard(8)))


@pytest.mark.parametrize("rotation", ROTATIONS)
def test_moved_elsewhere(rotation, rows_of, statistics_of):
    axes = head_axes(statistics_of(rows_of(4, width=8)), rotation)
    moved = axes.to("meta")
    for name in ("basis", "mean", "variances", "spectrum"):
        assert getattr(moved, name).device.type == "meta"
        assert getattr(moved, name).shape == getattr(axes, name).shape
    assert (moved.rotation, moved.centred, moved.rotary) == (axes.rotation, axes.centred, axes.rotary)


def test_another_rotation_is_refused(rows_of, statistics_of):
    with pytest.raises(RotcheckError, match=r"^rotation 'pca' is not one of spectral, none, haar, hadamard$"):
        head_axes(statistics_of(rows_of(4)), "pca")


def test_a_width_without_a_hadamard_matrix_is_refused(rows_of, statistics_of):
    with pytest.raises(RotcheckError, match=r"^hadamard: n is 7, "):
        head_axes(statistics_of(rows_of(4)), "hadamard")
