"""Whatever the architecture, its weights, its depth and the way bases are shared: the same function at full width."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from rotcheck.models import architecture_of
from rotcheck.models.tiny import SMALL
from rotcheck.slicing import inner_plan, random_plan, rotate_and_slice

ROTATABLE = sorted(set(SMALL) - {"gemma2", "gemma3_text"})


@settings(deadline=None, max_examples=15)
@given(
    model_type=st.sampled_from(ROTATABLE),
    seed=st.integers(0, 2**31),
    layers=st.integers(1, 3),
    tied=st.booleans(),
    data=st.data(),
)
def test_at_full_width(model_type, seed, layers, tied, data, subject, error):
    made = subject(model_type, seed=seed, layers=layers, tied=tied)
    branches = len(architecture_of(made.model).branches)
    grouping = data.draw(st.sampled_from(["per-layer", "global", *(f"k-block:{k}" for k in range(1, layers + 1))]))
    change = data.draw(st.sampled_from(["mlp", "attention"])) if branches > 1 and ":" in grouping else "mlp"
    plan = random_plan(48, layers, grouping, seed=seed, change=change, branches=branches)
    rotations = data.draw(st.lists(st.sampled_from(["R2", "R3", "R4"]), unique=True))
    inner = inner_plan(made.model, rotations=rotations, seed=seed) if rotations else None
    assert error(rotate_and_slice(made.model, plan, inner=inner), made) <= 1e-12
