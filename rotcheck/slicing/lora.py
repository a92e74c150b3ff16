"""Adapters of low rank on a model that is rotated."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from rotcheck.errors import RotcheckError
from rotcheck.models.declared import architecture_of
from rotcheck.models.sites import sites
from rotcheck.models.tensors import linear
from rotcheck.slicing.consumers import declared_sites, fold
from rotcheck.slicing.inner import InnerPlan
from rotcheck.slicing.inner_edits import inner_edits
from rotcheck.slicing.inner_steps import InnerSteps
from rotcheck.slicing.plan import Plan
from rotcheck.slicing.steps import Steps

_STEPS = Steps()
_INNER_STEPS = InnerSteps()


@dataclass(frozen=True, kw_only=True, eq=False)
class Lora:
    """An adapter of low rank: the layer becomes ``y = x @ (W + B A).T + b + c``.

    Attributes
    ----------
    down, up
        A (r, in) and B (out, r), or (experts, r, in) and (experts, out, r); any scale is multiplied into B.
    bias
        c (out,), or ``None``. A rotated adapter has one where the norm in front had a bias, which A saw too.
    """

    down: Tensor
    up: Tensor
    bias: Tensor | None = None


def rotate_lora(
    model: nn.Module,
    path: str,
    adapter: Lora,
    *,
    plan: Plan | None = None,
    inner: InnerPlan | None = None,
    steps: Steps = _STEPS,
    inner_steps: InnerSteps = _INNER_STEPS,
) -> Lora:
    """An adapter of the declared tensor at `path`, as it must be on the model rotated by these plans.

    With W -> ``L W R`` (L the output's basis, R the gain and the input's basis), A becomes ``A R`` and B ``L B``, so
    the product ``B A`` turns as the weight does. Of the stream R is ``diag(g) U`` for readers and L is ``U.T`` for
    writers, after mean removal for LayerNorm; values are written, and read by the output projection, in their head's
    basis (R2), and a down projection reads its hidden basis (R4).

    Parameters
    ----------
    model
        The original, without the adapter.
    path
        A reader or writer of the model's :func:`rotcheck.models.sites`; not an embedding.
    adapter
        As trained.
    plan, inner
        Those that the model was rotated with.
    steps, inner_steps
        The arithmetic; replaced only to plant a defect.

    Raises
    ------
    RotcheckError
        A path that the architecture does not declare, an embedding, or an adapter of other sizes than the tensor.

    Notes
    -----
    Source: ohdearquant/lattice#1631 (the delta's cosine is 0.927 with the right signs, 0.306 with others, and -0.118
    with none).
    """
    architecture, found = architecture_of(model), ()
    if plan is not None:
        architecture, found = declared_sites(model, plan)
    held = linear(model, path)
    refused = architecture.refuse(model.config) is not None  # then heads and feed-forward dimensions alone can turn
    places = () if refused else found or sites(architecture, model.config)
    reads = next((site for site in places if path in site.readers), None)
    writes = next((site for site in places if path in site.writers), None)
    if held.embedding or (places and reads is None and writes is None):
        what = (
            "is an embedding" if held.embedding else f"is no reader or writer that {architecture.model_type} declares"
        )
        raise RotcheckError(f"rotate_lora: {path} {what}; adapt a linear layer of the stream")
    if adapter.down.shape[-1] != held.weight.shape[-1] or adapter.up.shape[-2] != held.weight.shape[-2]:
        raise RotcheckError(
            f"rotate_lora: down {tuple(adapter.down.shape)} and up {tuple(adapter.up.shape)} do not fit {path}, "
            f"{tuple(held.weight.shape)}; pass A (r, in) and B (out, r)"
        )
    down, up = adapter.down.double(), adapter.up.double()
    bias = None if adapter.bias is None else adapter.bias.double()
    if plan is not None and reads is not None:
        norm = model.get_submodule(reads.norm)
        down, seen = fold(down, None, norm, architecture, steps)
        down = steps.read(down, plan.sliced_basis(reads.index).to(down.device))
        if seen is not None:
            moved = (up @ seen[..., None])[..., 0]
            bias = moved if bias is None else bias + moved
    if plan is not None and writes is not None:
        basis = plan.sliced_basis(writes.index).to(up.device)
        centred = steps.writers_centred(architecture.norm)
        up = steps.write(steps.center_weight(up) if centred else up, basis)
        if bias is not None:
            bias = steps.write_bias(steps.center_bias(bias) if centred else bias, basis)
    edits = inner_edits(model, architecture, inner, inner_steps)
    if held.weight_name in edits.weights:
        if held.bias_name in edits.weights:  # values alone: both their weight's rows and their bias are turned
            up = edits.apply(held.weight_name, up)
            bias = None if bias is None else edits.apply(held.bias_name, bias)
        else:
            down = edits.apply(held.weight_name, down)
    kind = adapter.down.dtype
    return Lora(down=down.to(kind), up=up.to(kind), bias=None if bias is None else bias.to(kind))


def with_lora(model: nn.Module, adapters: Mapping[str, Lora]) -> Any:
    """Copy of a model, rotated or not, with adapters merged into the tensors of these paths.

    Raises
    ------
    RotcheckError
        A path that is not there, or an adapter with a bias for a layer without one.
    """
    copied = copy.deepcopy(model)
    with torch.no_grad():
        for path, adapter in adapters.items():
            held = linear(copied, path)
            delta = adapter.up.double() @ adapter.down.double()
            if delta.shape != held.weight.shape:
                raise RotcheckError(
                    f"with_lora: the adapter of {path} gives {tuple(delta.shape)}, the model holds "
                    f"{tuple(held.weight.shape)}; rotate it with the plans of the model"
                )
            held.weight.copy_(held.weight.double() + delta)
            if adapter.bias is not None:
                if held.bias is None:
                    raise RotcheckError(f"with_lora: the adapter of {path} has a bias and the layer has none")
                held.bias.copy_(held.bias.double() + adapter.bias.double())
    return copied
