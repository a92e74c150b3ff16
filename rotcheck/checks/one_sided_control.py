"""ROT203: rotating without the partner must move the output, or equivalence is tested on nothing."""

from __future__ import annotations

import copy
from typing import Any

import torch

from rotcheck.bases.haar import haar
from rotcheck.checking import Broken, Measurement, Missing, check
from rotcheck.checks._models import finite, influence, model_allowance, model_sites, without_stream
from rotcheck.models.tensors import linear
from rotcheck.subjects.pair import ModelPair
from rotcheck.subjects.running import cast, logit_error, logits, longest_row
from rotcheck.witness import Witness

LONGEST = 16
"""Tokens of the row that the control runs on."""


@check(code="ROT203", kinds=["ModelPair"], needs=["modules"])
def one_sided_control(subject: ModelPair, witness: Witness) -> list[Measurement | Broken] | Missing:
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
    if (missing := without_stream(subject)) is not None:
        return missing
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
        found.append(influence(moved, floor, site.name, f"readers {', '.join(site.readers)} times a Haar matrix"))
    if subject.control is not None:
        control = logits(subject.control, batches, what=f"control of {subject}")
        found.append(influence(logit_error(control, base), floor, "the control", "the subject's own control"))
    return found


def _moved(model: Any, readers: tuple[str, ...], base: torch.Tensor, batches: Any, witness: Witness) -> float:
    kept = {}
    for path in readers:
        weight = linear(model, path).weight
        kept[path] = weight.data
        rotation = haar(weight.shape[-1], seed=witness.seed).to(weight.device)
        weight.data = (weight.data.double() @ rotation).to(weight.dtype)
    try:
        return logit_error(logits(model, batches, what="the control"), base)
    finally:
        for path, data in kept.items():
            linear(model, path).weight.data = data
