"""Readers, heads and shortcuts in the basis of another site."""

from __future__ import annotations

from dataclasses import replace

import torch

from rotcheck.defects._slicing import RIGHT, pair, sliced
from rotcheck.defects.defect import Defect
from rotcheck.slicing import Plan

FORK = "Danish-Ahmed007/Slicegpt-Global-Rotations, rotate_and_slice_kblock"


def _next_where_it_changes(site: int, plan: Plan) -> int:
    return site + 1 if plan.site_basis[site] != plan.site_basis[site + 1] else site


EARLY = replace(RIGHT, reader_site=_next_where_it_changes)
HEAD_FIRST = replace(RIGHT, head_site=lambda site, plan: 0)
HEAD_BEFORE = replace(RIGHT, head_site=lambda site, plan: plan.site_basis.index(plan.site_basis[-1]) - 1)
OMITTED = replace(RIGHT, shortcut=lambda u, v: torch.eye(u.shape[1], v.shape[1], dtype=u.dtype))
TRANSPOSED = replace(RIGHT, shortcut=lambda u, v: v.T @ u if u.shape == v.shape else u.T @ v)

DEFECTS = (
    Defect(
        name="attention_inputs_in_the_new_basis",
        kind="ModelPair",
        issue=FORK,
        summary="attention inputs at a block start are rotated with the new block's basis",
        plant=lambda seed: pair(seed, steps=EARLY),
        twin=pair,
        killed_by=("equivalence", "streams"),
    ),
    Defect(
        name="sliced_attention_inputs_in_the_new_basis",
        kind="SlicedModel",
        issue=FORK,
        summary="the same, sliced: perplexity follows the number of boundaries, not the sparsity",
        plant=lambda seed: sliced(seed, steps=EARLY),
        twin=sliced,
        killed_by=("tensor_bases", "projected_stream", "kept_energy"),
    ),
    Defect(
        name="head_in_the_first_basis",
        kind="ModelPair",
        issue="bugs class B2: wrong side or wrong neighbour",
        summary="the head is rotated with the basis of the embeddings",
        plant=lambda seed: pair(seed, steps=HEAD_FIRST),
        twin=pair,
        killed_by=("equivalence",),
    ),
    Defect(
        name="head_in_the_basis_before",
        kind="SlicedModel",
        issue="bugs class B2: wrong side or wrong neighbour",
        summary="the head is rotated with the block before the last",
        plant=lambda seed: sliced(seed, steps=HEAD_BEFORE),
        twin=sliced,
        killed_by=("tensor_bases", "projected_stream"),
    ),
    Defect(
        name="shortcuts_omitted",
        kind="ModelPair",
        issue="bugs class B3: partner missing",
        summary="the residual keeps its basis while the branches change theirs",
        plant=lambda seed: pair(seed, steps=OMITTED),
        twin=pair,
        killed_by=("equivalence", "streams"),
    ),
    Defect(
        name="shortcuts_transposed",
        kind="ModelPair",
        issue="intel/auto-round#1884 (one side transposed)",
        summary="U_next.T @ U in place of U.T @ U_next",
        plant=lambda seed: pair(seed, steps=TRANSPOSED),
        # A transposed orthogonal shortcut is still orthogonal, but the branch written beside it is not turned.
        twin=pair,
        killed_by=("equivalence", "streams"),
    ),
    Defect(
        name="sliced_shortcuts_transposed",
        kind="SlicedModel",
        issue="intel/auto-round#1884 (one side transposed)",
        summary="the same in a sliced model",
        plant=lambda seed: sliced(seed, steps=TRANSPOSED),
        twin=sliced,
        killed_by=("tensor_bases", "projected_stream"),
    ),
    Defect(
        name="shortcuts_of_zeros",
        kind="SlicedModel",
        issue="microsoft/TransformerCompression: shortcuts are zeros until a state dict fills them",
        summary="the shortcut was allocated and never written",
        plant=lambda seed: sliced(
            seed, steps=replace(RIGHT, shortcut=lambda u, v: torch.zeros(u.shape[1], v.shape[1], dtype=u.dtype))
        ),
        twin=sliced,
        killed_by=("shortcuts", "tensor_bases", "projected_stream"),
    ),
    Defect(
        name="shortcuts_scaled",
        kind="SlicedModel",
        issue="bugs class B13: scale",
        summary="the shortcut carries a factor sqrt(d / w)",
        plant=lambda seed: sliced(
            seed, steps=replace(RIGHT, shortcut=lambda u, v: (u.shape[0] / u.shape[1]) ** 0.5 * (u.T @ v))
        ),
        twin=sliced,
        killed_by=("shortcuts", "tensor_bases", "projected_stream"),
    ),
)
