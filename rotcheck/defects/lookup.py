"""The right operation with the wrong basis: another head, layer, or tensor."""

from __future__ import annotations

from torch import Tensor

from rotcheck.defects._paths import bank, looked_up
from rotcheck.defects.defect import Defect
from rotcheck.kernels.dense import rotate
from rotcheck.subjects.rotation import Rotation

DECLARED = "layer 1 head 0 value"


def _neighbour(seed: int) -> Rotation:
    return bank(seed).subject(DECLARED, used="layer 1 head 1 value")


def _key_for_value(seed: int) -> Rotation:
    return bank(seed).subject(DECLARED, used="layer 1 head 0 key")


def _wrong_layer(seed: int) -> Rotation:
    return bank(seed).subject(DECLARED, used="layer 0 head 0 value")


def _tiled(seed: int) -> Rotation:
    """Query head 1 of four shares key head 0 of two; a tiled lookup gives it head ``1 % 2``."""
    query, groups, heads = 1, 2, 2
    right, wrong = query // groups, query % heads
    return bank(seed).subject(f"layer 0 head {right} key", used=f"layer 0 head {wrong} key")


def _tiled_twin(seed: int) -> Rotation:
    return bank(seed).subject("layer 0 head 0 key")


def _by_path(seed: int) -> Rotation:
    """Prefill takes one basis and a single decoded row another."""
    found = bank(seed)
    right, wrong = (found.samples[name].basis for name in (DECLARED, "layer 0 head 0 value"))

    def path(x: Tensor) -> Tensor:
        return rotate(x, wrong if x.shape[0] == 1 else right)

    return Rotation(path, basis=right, covariance=found.samples[DECLARED].covariance, name="prefill and decode")


KILLERS = ("side", "energy_order")

DEFECTS = (
    Defect(
        name="neighbouring_head",
        kind="Rotation",
        issue="spcl/QuaRot#36",
        summary="the basis of the next head",
        plant=_neighbour,
        killed_by=KILLERS,
        twin=looked_up,
    ),
    Defect(
        name="key_basis_for_values",
        kind="Rotation",
        issue="tetherto/qvac-fabric-llm.cpp#115",
        summary="values are rotated with the basis that was calibrated on keys",
        plant=_key_for_value,
        killed_by=KILLERS,
        twin=looked_up,
    ),
    Defect(
        name="wrong_layer",
        kind="Rotation",
        issue="class B2 (wrong side, wrong neighbour; the boundary of the K-block study)",
        summary="the basis of the layer before",
        plant=_wrong_layer,
        killed_by=KILLERS,
        twin=looked_up,
    ),
    Defect(
        name="tiled_head",
        kind="Rotation",
        issue="class B10 (head layout, grouped queries)",
        summary="query head h looks up h % heads where the group is h // groups",
        plant=_tiled,
        killed_by=KILLERS,
        twin=_tiled_twin,
    ),
    Defect(
        name="decode_basis",
        kind="Rotation",
        issue="Blaizzy/mlx-vlm#973",
        summary="one row at a time is rotated with another basis than many",
        plant=_by_path,
        killed_by=("determinism",),
        twin=looked_up,
    ),
)
