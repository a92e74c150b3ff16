"""A plan says which subspace each site keeps; the axes inside it are a gauge that no output depends on."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rotcheck.models.adversarial import adversarial_batch
from rotcheck.slicing import rotate_and_slice
from rotcheck.strategies import adversarial_models, basis, plans, seeds

TURNS = ("haar", "permutation", "householder", "signs")


def turn(kind, size, seed):
    """An orthogonal matrix of a kind."""
    if kind != "signs":
        return basis(kind, size, seed)
    signs = torch.randint(2, (size,), generator=torch.Generator().manual_seed(seed))
    return torch.diag(2.0 * signs.double() - 1)


def turned(plan, kind, seed):
    """Each basis times a block diagonal matrix, whose blocks end at the widths at which this basis is used."""
    bases = []
    for group, matrix in enumerate(plan.bases):
        used = {width for width, other in zip(plan.widths, plan.site_basis, strict=True) if other == group}
        segments = list(pairwise(sorted({0, plan.hidden_size} | used)))
        blocks = [turn(kind, stop - start, (seed + 97 * group + start) % 2**63) for start, stop in segments]
        bases.append(matrix @ torch.block_diag(*blocks))
    return replace(plan, bases=tuple(bases))


@settings(deadline=None, max_examples=15)
@given(data=st.data(), model=adversarial_models(), kind=st.sampled_from(TURNS), seed=seeds())
def test_turning_inside_the_segments_changes_no_logit(data, model, kind, seed, logits_of, same_function):
    """``f(U_s R_s, w) = f(U_s, w)`` for orthogonal ``R_s = blockdiag(R, R')`` that keeps every span of w columns."""
    plan = data.draw(plans(model.config.hidden_size, model.config.num_hidden_layers))
    batch = adversarial_batch(model, seed=seed, length=6)
    expected = logits_of(rotate_and_slice(model, plan), batch)
    same_function(rotate_and_slice(model, turned(plan, kind, seed)), expected, batch)
