"""local_pca: each cluster in its own principal axes, and back again, with what is wrong named."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from rotcheck.bases import haar, local_pca, orthogonality_error
from rotcheck.errors import RotcheckError

D, K = 7, 3
SIZES = (40, 25, 61)


def clouds(seed=0):
    """Three clouds far apart, each a Gaussian on axes of its own; the rows of cloud 0 come first."""
    generator = torch.Generator().manual_seed(seed)
    spread = torch.logspace(0, -2, D, dtype=torch.float64)
    parts, axes = [], []
    for size in SIZES:
        axes.append(haar(D, seed=generator))
        centre = 30 * torch.randn(D, generator=generator, dtype=torch.float64)
        drawn = torch.randn(size, D, generator=generator, dtype=torch.float64)
        parts.append(centre + (drawn * spread.sqrt()) @ axes[-1].T)
    return torch.cat(parts), axes


@pytest.fixture(scope="module")
def x():
    return clouds()[0]


@pytest.fixture(scope="module")
def local(x):
    return local_pca(x, K, seed=1)


def test_the_clouds_are_found(local):
    parts = local.labels.split(list(SIZES))
    assert all(len(part.unique()) == 1 for part in parts)
    assert sorted(local.labels.bincount().tolist()) == sorted(SIZES)


def test_what_is_returned(local, x):
    assert local.centres.shape == local.means.shape == local.variances.shape == (K, D)
    assert local.bases.shape == (K, D, D)
    assert (local.clusters, local.width, local.centred) == (K, D, True)
    assert local.labels.dtype == torch.int64
    assert repr(local) == "LocalPCA(3 clusters, d=7)"
    with pytest.raises(dataclasses.FrozenInstanceError):
        local.centred = False


def test_each_basis_diagonalises_its_cluster(local, x):
    for cluster in range(K):
        members = x[local.labels == cluster]
        mean = members.mean(0)
        torch.testing.assert_close(local.means[cluster], mean)
        y = (members - mean) @ local.bases[cluster]
        torch.testing.assert_close(y.T @ y / len(y), torch.diag(local.variances[cluster]), rtol=0, atol=1e-13)
        assert (local.variances[cluster].diff() <= 0).all()
        assert orthogonality_error(local.bases[cluster]) < 1e-14


def test_rotated_rows_are_centred_and_ordered(local, x):
    y = local.rotate(x)
    for cluster in range(K):
        mine = y[local.labels == cluster]
        torch.testing.assert_close(mine.mean(0), torch.zeros(D, dtype=torch.float64), rtol=0, atol=1e-13)
        assert (mine.square().mean(0).diff() <= 1e-13).all()


def test_labels_are_those_of_assign(local, x):
    assert torch.equal(local.assign(x), local.labels)
    assert torch.equal(local.rotate(x), local.rotate(x, local.labels))


def test_a_label_decides_the_basis(local, x):
    other = (local.labels + 1) % K
    turned = local.rotate(x, other)
    assert (turned - local.rotate(x)).norm() > 1
    torch.testing.assert_close(local.unrotate(turned, other), x, rtol=0, atol=1e-12)


def test_rows_not_seen_go_to_the_nearest_centre(local):
    other = clouds()[0][:5] + 0.1
    distances = (other[:, None] - local.centres).norm(dim=-1)
    assert torch.equal(local.assign(other), distances.argmin(1))


def test_one_basis_for_all_keeps_less(x, local):
    """Leading coordinates of local axes hold more of the energy around the means than those of one global basis."""
    one = local_pca(x, 1, seed=0)
    lost_local = local.rotate(x)[:, 2:].square().sum()
    lost_global = one.rotate(x)[:, 2:].square().sum()
    assert lost_local < 0.5 * lost_global


def test_without_centring_nothing_is_subtracted(x):
    raw = local_pca(x, K, seed=1, centred=False)
    assert not raw.centred
    assert not raw.means.any()
    y = raw.rotate(x)
    torch.testing.assert_close(y.norm(dim=1), x.norm(dim=1))
    for cluster in range(K):
        members = x[raw.labels == cluster]
        torch.testing.assert_close(
            raw.bases[cluster] @ torch.diag(raw.variances[cluster]) @ raw.bases[cluster].T,
            members.T @ members / len(members),
        )


def test_a_seed_decides_and_the_random_state_is_left_alone(x, local):
    state = torch.get_rng_state()
    again = local_pca(x, K, seed=1)
    assert torch.equal(again.bases, local.bases)
    assert torch.equal(again.labels, local.labels)
    assert torch.equal(torch.get_rng_state(), state)


def test_small_clusters_still_have_whole_bases():
    x = clouds()[0][:6]
    found = local_pca(x, 2, seed=0)
    for basis in found.bases:
        assert orthogonality_error(basis) < 1e-14
    assert (found.variances[:, -1] < 1e-13).all()
    torch.testing.assert_close(found.unrotate(found.rotate(x), found.labels), x, rtol=0, atol=1e-12)


def test_coarse_rows_are_used_as_float64(x):
    found = local_pca(x.float(), K, seed=1)
    assert found.bases.dtype == torch.float64
    assert found.rotate(x.float()).dtype == torch.float64


def test_as_many_clusters_as_rows():
    x = clouds()[0][:4]
    found = local_pca(x, 4, seed=0)
    assert sorted(found.labels.tolist()) == [0, 1, 2, 3]
    assert found.rotate(x).abs().max() < 1e-13


HOLED = torch.ones(5, 2, dtype=torch.float64)
HOLED[3, 1] = math.inf


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda x, _: local_pca(x, 0, seed=0), "clusters is 0 for 126 rows; pass 1 to 126"),
        (lambda x, _: local_pca(x, 127, seed=0), "clusters is 127"),
        (lambda x, _: local_pca(x[0], 1, seed=0), r"x has shape \(7,\)"),
        (lambda x, _: local_pca(x[:0], 1, seed=0), r"x has shape \(0, 7\)"),
        (lambda x, _: local_pca(x.long(), 1, seed=0), "torch.int64; pass non-empty real rows"),
        (lambda *_: local_pca(HOLED, 1, seed=0), r"x\[3, 1\] is inf"),
        (lambda *_: local_pca(torch.ones(5, 2), 2, seed=0), "more than there are different rows"),
        (lambda x, local: local.assign(x[:, :3]), r"LocalPCA.assign: rows have shape \(126, 3\)"),
        (lambda x, local: local.rotate(x[0]), r"LocalPCA.rotate: rows have shape \(7,\)"),
        (lambda x, local: local.unrotate(x, local.labels[:4]), r"labels have shape \(4,\)"),
        (lambda x, local: local.unrotate(x, local.labels.double()), "torch.float64; pass 126 int64"),
        (lambda x, local: local.rotate(x, local.labels + 1), "labels go from 1 to 3; there are clusters 0 to 2"),
        (lambda x, local: local.rotate(x, local.labels - 1), "labels go from -1 to 1"),
    ],
)
def test_what_is_wrong_is_named(x, local, call, says):
    with pytest.raises(RotcheckError, match=says) as raised:
        call(x, local)
    assert "\n" not in str(raised.value)


def test_a_cluster_that_loses_its_rows_is_an_error(monkeypatch):
    """k-means may empty a cluster: scipy says so where that happens before the last round, and we where it is last."""
    import scipy.cluster.vq as vq

    x = clouds()[0]

    def emptied(*_, **__):
        raise vq.ClusterError("one is empty")

    monkeypatch.setattr(vq, "kmeans2", emptied)
    with pytest.raises(RotcheckError, match="one of 2 clusters has no rows left; use fewer clusters, or another seed"):
        local_pca(x, 2, seed=0)
    far = torch.stack([x.mean(0), x.mean(0) + 1e6]).numpy()
    monkeypatch.setattr(vq, "kmeans2", lambda *_, **__: (far, None))
    with pytest.raises(RotcheckError, match="one of 2 clusters has no rows left"):
        local_pca(x, 2, seed=0)
