"""The uses that a manifest names, applied to the unrotated tensors, give the rotated ones: of every architecture."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rotcheck.models import architecture_of
from rotcheck.models.tiny import SMALL
from rotcheck.slicing import describe, identity_plan, rotate_and_slice


def blocks(tensor, use, axis):
    start, stop = use.block or (0, tensor.shape[axis])
    width = (stop - start) // len(use.bases)
    return [(start + index * width, width) for index in range(len(use.bases))]


def turned(tensor, use, basis, shape):
    """One use of one tensor, from the definition: ``W @ U``, ``U.T @ W``, ``U.T @ b``, and the leading coordinates."""
    tensor = tensor.clone()
    axis = {"reader": -1, "embedding": -1, "writer": -2, "bias": -1}[use.side]
    for name, (start, width) in zip(use.bases, blocks(tensor, use, axis), strict=True):
        part = tensor.narrow(axis, start, width)
        if axis == -2:
            tensor.narrow(axis, start, width).copy_(torch.einsum("ji,...jk->...ik", basis(name), part.clone()))
        else:
            tensor.narrow(axis, start, width).copy_(part.clone() @ basis(name))
    return tensor.narrow(axis, 0, shape[axis])


@pytest.mark.parametrize("model_type", SMALL)
def test_every_tensor(model_type, rotated):
    made = rotated(model_type, dtype=torch.float64, grouping="k-block:1")
    manifest = describe(made.model, made.plan, made.inner)
    by_id = {basis.id: basis for basis in manifest.facts.bases}
    before, after = made.original.state_dict(), made.model.state_dict()
    if made.plan is not None:
        branches = len(architecture_of(made.original).branches)
        fused = rotate_and_slice(made.original, identity_plan(made.original.config.hidden_size, 2, branches=branches))
        before = fused.state_dict()

    def basis(name):
        return manifest.factored(by_id[name]).matrix()

    seen = set()
    for name, stored in manifest.facts.tensors.items():
        actual, uses = after[name], {use.side: use for use in stored.uses}
        seen |= set(uses)
        if "shortcut" in uses:
            one, two = map(basis, uses["shortcut"].bases)
            expected = one[:, : actual.shape[0]].T @ two[:, : actual.shape[1]]
        elif "online" in uses:
            continue
        else:
            expected = before[name]
            for use in uses.values():
                expected = turned(expected, use, basis, actual.shape)
        torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-12, msg=name)
        if not uses:
            assert torch.equal(actual, before[name]), name
    wanted = {"reader", "writer", "online"} | ({"embedding", "shortcut"} if made.plan is not None else set())
    assert wanted <= seen


@settings(max_examples=5)
@given(seed=st.integers(0, 2**20), kinds=st.sets(st.sampled_from(["R2", "R3", "R4"])))
def test_only_what_a_rotation_touches_has_uses(seed, kinds, rotated):
    """Without R2 no tensor names one, and so on; every basis that is there is named by some tensor."""
    made = rotated("phi3", seed=seed, rotations=tuple(sorted(kinds)), grouping="global")
    facts = describe(made.model, made.plan, made.inner).facts
    named = {one for stored in facts.tensors.values() for use in stored.uses for one in use.bases}
    assert named == {basis.id for basis in facts.bases}
    assert {one.partition(".")[0] for one in named} == kinds | {"R1"}


def test_sites_that_share_a_basis_share_its_id(rotated):
    made = rotated("llama", grouping="k-block:1")
    facts = describe(made.model, made.plan, made.inner).facts
    stream = {site: basis.id for basis in facts.bases if basis.role == "R1" for site in basis.sites}
    assert [stream[site] for site in range(5)] == [f"R1.{index}" for index in made.plan.site_basis]


def test_query_heads_name_the_basis_of_the_head_that_they_read(rotated):
    made = rotated("llama")
    uses = describe(made.model, made.plan, made.inner).facts.tensors["model.layers.1.self_attn.o_proj.weight"].uses
    heads = next(use for use in uses if use.side == "reader")
    assert heads.bases == ("R2.1.0",) * 3 + ("R2.1.1",) * 3
    assert heads.block == (0, 72)


def test_values_of_a_fused_projection_are_its_last_rows(rotated):
    made = rotated("phi3")
    uses = describe(made.model, made.plan, made.inner).facts.tensors["model.layers.0.self_attn.qkv_proj.weight"].uses
    assert next(use for use in uses if use.side == "writer").block == (64, 80)
