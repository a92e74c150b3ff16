"""Whatever orthogonal matrices the heads and feed-forward dimensions have: the same function."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rotcheck.bases import haar, hadamard, hadamard_factors
from rotcheck.bases.factored import dense
from rotcheck.models import architecture_of, head_sites, hidden_sites
from rotcheck.models.tiny import SMALL
from rotcheck.slicing import InnerPlan, rotate_and_slice


def permutation(size, generator):
    return torch.eye(size, dtype=torch.float64)[torch.randperm(size, generator=generator)]


def signs(size, generator):
    return torch.diag(1.0 - 2.0 * torch.randint(2, (size,), generator=generator)).to(torch.float64)


KINDS = {
    "haar": lambda n, g: haar(n, seed=g),
    "hadamard": lambda n, g: hadamard(n, signs=g),
    "permutation": permutation,
    "signs": signs,
}


@settings(deadline=None, max_examples=15)
@given(
    model_type=st.sampled_from(sorted(SMALL)),
    seed=st.integers(0, 2**31),
    heads=st.lists(st.sampled_from(sorted(KINDS)), min_size=2, max_size=2),
    factored=st.booleans(),
    hidden=st.sampled_from(sorted(KINDS)),
)
def test_inside_the_branches(model_type, seed, heads, factored, hidden, subject, error):
    made = subject(model_type, seed=seed, layers=2)
    architecture, config = architecture_of(made.model), made.model.config
    generator = torch.Generator().manual_seed(seed)
    values, queries = (
        tuple(
            torch.stack([KINDS[kind](site.width, generator) for _ in range(site.heads)])
            for site in head_sites(architecture, config)
        )
        for kind in heads
    )
    plan = InnerPlan(
        values=values,
        queries=queries,
        hidden=tuple(
            hadamard_factors(site.width, signs=generator) if factored else dense(KINDS[hidden](site.width, generator))
            for site in hidden_sites(architecture, config)
        ),
    )
    assert error(rotate_and_slice(made.model, None, inner=plan), made) <= 1e-12
