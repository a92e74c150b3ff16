"""ROT203: rotating without the partner must move the output, or equivalence is tested on nothing."""

from __future__ import annotations

import copy
from typing import Any

import torch

from rotcheck.bases.haar import haar
from rotcheck.checking import Broken, Measurement, check
from rotcheck.checks._models import finite, model_allowance, model_sites
from rotcheck.outcome import Allowance, Distance
from rotcheck.subjects.pair import ModelPair
from rotcheck.subjects.running import cast, logit_error, logits, longest_row
from rotcheck.witness import Witness

LONGEST = 16
"""Tokens of the row that the control runs on."""


@check(code="ROT203", kinds=["ModelPair"], needs=["modules", "architecture"])
def one_sided_control(subject: ModelPair, witness: Witness) -> list[Measurement | Broken]:
    r"""A seeded rotation of the readers of one site alone, without its writers, changes the logits.

    For every site the readers' weights of a copy of ``after`` become ``W @ R`` with a Haar matrix R. If the logits
    stay within two allowances, that site has no influence on this witness and `equivalence` says nothing
    about it. A ``control`` that the subject brings is held to the same.

    Catches
    -------
    A branch whose output is dropped or multiplied by zero, a rotation hook that never fires, an output that was
    baked as a constant, inputs too poor to reach a branch.

    Cannot see
    ----------
    Whether the rotation is right: that is `equivalence`.

    References
    ----------
    NVIDIA/Model-Optimizer#1424 (constant output); ROCm/ATOM#1507 (a flag that is stored and never read).
    """
    # One row is enough to see an influence, and there are as many forward passes as sites.
    batches = [longest_row(subject.batches[0], LONGEST)]
    # In float64, so that a branch of small influence is not lost in the noise of a coarse dtype.
    after = cast(subject.after, torch.float64)
    base = finite(logits(after, batches, what=f"after of {subject}"), what=f"after of {subject}")
    floor = model_allowance(after, batches, torch.float64, base)
    changed = copy.deepcopy(after)
    found = []
    for site in model_sites(subject.architecture, subject.after):
        moved = _moved(changed, site.readers, base, batches, witness)
        found.append(_measure(moved, floor, site.name, f"readers {', '.join(site.readers)} times a Haar matrix"))
    if subject.control is not None:
        control = logits(subject.control, batches, what=f"control of {subject}")
        found.append(_measure(logit_error(control, base), floor, "the control", "the subject's own control"))
    return found


def _moved(model: Any, readers: tuple[str, ...], base: torch.Tensor, batches: Any, witness: Witness) -> float:
    kept = {}
    for path in readers:
        weight = model.get_submodule(path).weight
        kept[path] = weight.data
        rotation = haar(weight.shape[1], seed=witness.seed).to(weight.device)
        weight.data = (weight.data.double() @ rotation).to(weight.dtype)
    try:
        return logit_error(logits(model, batches, what="the control"), base)
    finally:
        for path, data in kept.items():
            model.get_submodule(path).weight.data = data


def _measure(moved: float, floor: Allowance, place: str, how: str) -> Measurement | Broken:
    needed = 2 * floor.value
    if not moved > needed:  # NaN included
        return Broken(
            what=f"does not depend on {place}: the logits move by {moved:.1e}, and {needed:.1e} would be noise",
            place=place,
            hint="the branch has no influence: a zero weight, a dropped output, or inputs that never reach it",
        )
    return Measurement(
        claim=Distance(name="an output that depends on it", error=0.0),
        allowed=Allowance(value=0.0, derivation=f"the logits must move by more than 2 * {floor.value:.2e}"),
        verb="has",
        place=place,
        witness=how,
        facts=(("moved", moved),),
    )
