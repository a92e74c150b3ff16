"""Whatever orthogonal matrices and means a cache uses, going there and back leaves the logits alone."""

from __future__ import annotations

from dataclasses import replace

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import rotcheck
from rotcheck.bases import haar
from rotcheck.defects import _spectral as planted
from rotcheck.strategies import seeds


def drawn(codec, seed, size):
    """The codec with Haar bases and means of a size."""
    generator = torch.Generator().manual_seed(seed)

    def change(path):
        basis = torch.stack([haar(path.width, seed=generator) for _ in range(path.heads)])
        mean = size * torch.randn(path.heads, path.width, generator=generator, dtype=torch.float64)
        return planted.with_axes(path, basis=basis, mean=mean)

    return planted.with_paths(codec, keys=change, values=change)


@settings(deadline=None, max_examples=5)
@given(seed=seeds(), size=st.sampled_from([0.0, 1.0, 30.0]), kind=st.sampled_from(["llama", "phi"]))
def test_logits_scores_and_round_trips(seed, size, kind):
    found = planted.bench(0, kind)
    codec = drawn(found.codec, seed, size)
    subject = planted.subject(found, codec, claimed=codec)
    bare = {place: replace(part, covariance=None, samples=None) for place, part in subject.heads.items()}
    report = rotcheck.verify(
        replace(subject, heads=bare), select=["lossless_cache", "scores", "round_trip", "side", "isometry"], seed=seed
    )
    assert {verdict.outcome for verdict in report} == {rotcheck.Outcome.PASSED}, [str(v) for v in report]


@settings(deadline=None, max_examples=5)
@given(seed=seeds(), layer=st.integers(0, 2), kind=st.sampled_from(["keys", "values"]))
def test_one_matrix_that_is_not_orthogonal_shows(seed, layer, kind):
    found = planted.bench(0)
    paths = list(getattr(found.codec, kind))
    skewed = paths[layer].axes.basis.clone()
    skewed[1] = skewed[1] + 0.02 * haar(20, seed=seed)
    paths[layer] = planted.with_axes(paths[layer], basis=skewed)
    wrong = planted.subject(found, replace(found.codec, **{kind: tuple(paths)}))
    (verdict,) = rotcheck.verify(wrong, select=["lossless_cache"]).verdicts
    assert verdict.outcome is rotcheck.Outcome.FAILED
    assert verdict.place == f"layer {layer} head 1 {kind}"
