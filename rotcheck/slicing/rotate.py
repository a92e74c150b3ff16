"""One function that rotates and slices a model by a plan."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from rotcheck.errors import RotcheckError
from rotcheck.models.architecture import Architecture
from rotcheck.models.declared import architecture_of
from rotcheck.models.exact import rms_eps
from rotcheck.models.sites import Site, sites
from rotcheck.models.tensors import linear, norm
from rotcheck.slicing.inner import InnerPlan
from rotcheck.slicing.inner_edits import InnerEdits, inner_edits
from rotcheck.slicing.inner_steps import InnerSteps
from rotcheck.slicing.plan import Plan, identity_plan
from rotcheck.slicing.sliced import is_sliced, skeleton
from rotcheck.slicing.steps import Steps

_STEPS = Steps()
_INNER_STEPS = InnerSteps()


def rotate_and_slice(
    model: PreTrainedModel,
    plan: Plan | None,
    *,
    inner: InnerPlan | None = None,
    steps: Steps = _STEPS,
    inner_steps: InnerSteps = _INNER_STEPS,
) -> PreTrainedModel:
    """The model with site s of its residual stream in basis U_s, of which w_s columns are kept.

    Norms are fused, readers become ``W @ U_s[:, :w_s]``, writers ``U_s[:, :w_s].T @ W``, and between sites
    with different bases the residual passes ``U_s[:, :w_s].T @ U_next[:, :w_next]``. At full width this is
    the same function as before, whatever the bases. Source: SliceGPT, arXiv:2401.15024, section 3.

    An inner plan rotates heads and feed-forward dimensions beside (R2 to R4 of SpinQuant, arXiv:2405.16406), always at
    full width and always the same function.

    Parameters
    ----------
    model
        A stock model of a declared architecture, any floating dtype, on any device with float64. Unchanged.
    plan
        For this model's hidden size and sites. ``None`` leaves the stream and its norms alone: for an inner plan on its
        own, which is all that a model can have whose stream cannot be rotated.
    inner
        For this model's heads and hidden sites.
    steps, inner_steps
        The arithmetic; replaced only to plant a defect.

    Returns
    -------
    PreTrainedModel
        In eval mode, same dtypes and device. One module at a time is computed in float64 and cast once.

    Raises
    ------
    RotcheckError
        Undeclared or refused architecture, a model that is already sliced, a plan for another model, neither a plan nor
        an inner plan, or a non-finite weight.
    """
    if is_sliced(model):
        raise RotcheckError("rotate_and_slice: the model is already sliced; slice the original with another plan")
    if plan is None and inner is None:
        raise RotcheckError("rotate_and_slice: no plan and no inner plan; pass one of them")
    architecture = architecture_of(model)
    found = () if plan is None else sites(architecture, model.config)
    if plan is not None and (plan.hidden_size != model.config.hidden_size or plan.n_sites != len(found)):
        raise RotcheckError(
            f"rotate_and_slice: {plan!r} does not fit a model of hidden size {model.config.hidden_size} with "
            f"{len(found)} sites; make the plan from this model's calibration"
        )
    edits = inner_edits(model, architecture, inner, inner_steps)
    result = skeleton(
        model.config,
        plan and plan.widths,
        plan and plan.site_basis,
        norm_divisor=plan and [steps.norm_divisor(plan.hidden_size, width) for width in plan.widths],
        norm_eps=[steps.norm_eps(rms_eps(norm(model, site.norm))) for site in found],
        online_queries=inner is not None and inner.queries is not None,
        online_hidden=inner and inner.hidden and [basis.sizes for basis in inner.hidden],
        dtype=model.dtype,
    )
    wanted = dict(result.named_parameters())
    with torch.no_grad():
        for name, tensor in _tensors(model, architecture, found, plan, steps, set(wanted)):
            _assign(result, name, edits.apply(name, tensor), wanted)
        _set_buffers(result, model, edits)
    if result.config.tie_word_embeddings:
        result.tie_weights()
    if model.generation_config is not None:
        result.generation_config = copy.deepcopy(model.generation_config)
    return result.eval()


def fuse(model: PreTrainedModel) -> PreTrainedModel:
    """The model with its norms fused and nothing rotated: full widths, one basis, no shortcuts.

    Its stream is the original's after mean removal (LayerNorm) or the original's itself (RMSNorm).
    """
    architecture = architecture_of(model)
    config = model.config
    return rotate_and_slice(
        model,
        identity_plan(config.hidden_size, config.num_hidden_layers, branches=len(architecture.branches)),
    )


def _tensors(
    model: PreTrainedModel,
    architecture: Architecture,
    found: tuple[Site, ...],
    plan: Plan | None,
    steps: Steps,
    names: set[str],
) -> Iterator[tuple[str, Tensor]]:
    """Every parameter of the sliced model, one at a time, those of a module together."""
    done: set[str] = set()
    for site in found:
        for name, tensor in (
            *_writers(model, architecture, site, plan, steps),
            *_readers(model, architecture, site, plan, steps, names, last=site is found[-1]),
        ):
            done.add(name)
            yield name, tensor
        if site.layer is not None and plan.site_basis[site.index] != plan.site_basis[site.index + 1]:
            branch = next(branch for branch in architecture.branches if branch.name == site.branch)
            name = f"{architecture.layers}.{site.layer}.{branch.shortcut}"
            done.add(name)
            device = linear(model, site.readers[0]).weight.device
            bases = (plan.sliced_basis(site.index).to(device), plan.sliced_basis(site.index + 1).to(device))
            yield name, steps.shortcut(*bases)
    for name in sorted(names - done):
        yield name, _finite(name, model.get_parameter(name))


def _writers(
    model: nn.Module, architecture: Architecture, site: Site, plan: Plan, steps: Steps
) -> Iterator[tuple[str, Tensor]]:
    for path in site.writers:
        held = linear(model, path)
        weight = _float64(held.weight_name, held.weight)
        basis = plan.sliced_basis(site.index).to(weight.device)
        if held.embedding:
            first = path == architecture.embeddings[0]
            center, embed = (
                (steps.center_embedding, steps.embed) if first else (steps.center_positions, steps.embed_positions)
            )
            centred = steps.embeddings_centred(architecture.norm)
            yield held.weight_name, embed(center(weight) if centred else weight, basis)
            continue
        centred = steps.writers_centred(architecture.norm)
        yield held.weight_name, steps.write(steps.center_weight(weight) if centred else weight, basis)
        if held.bias is not None:
            bias = _float64(held.bias_name, held.bias)
            yield held.bias_name, steps.write_bias(steps.center_bias(bias) if centred else bias, basis)


def _readers(
    model: nn.Module,
    architecture: Architecture,
    site: Site,
    plan: Plan,
    steps: Steps,
    names: set[str],
    *,
    last: bool,
) -> Iterator[tuple[str, Tensor]]:
    held_norm = norm(model, site.norm)
    gain = _optional(f"{site.norm}.weight", getattr(held_norm, "weight", None))
    if gain is not None:
        gain = steps.full_gain(gain, architecture.gain_offset)
    norm_bias = _optional(f"{site.norm}.bias", getattr(held_norm, "bias", None))
    source, fold = (steps.head_site, steps.fold_head_gain) if last else (steps.reader_site, steps.fold_gain)
    # A reader in another site's basis (a planted defect) still has to have the width of the stream it reads.
    columns = plan.basis(source(site.index, plan))[:, : plan.widths[site.index]]
    for path in site.readers:
        held = linear(model, path)
        weight = _float64(held.weight_name, held.weight)
        weight, bias = fold(weight, _optional(held.bias_name, held.bias), gain, norm_bias)
        yield held.weight_name, steps.read(weight, columns.to(weight.device))
        if held.bias_name in names:
            yield held.bias_name, weight.new_zeros(weight.shape[0]) if bias is None else bias


def _assign(model: nn.Module, name: str, tensor: Tensor, wanted: dict[str, Any]) -> None:
    if tensor.shape != wanted[name].shape:
        raise RotcheckError(
            f"rotate_and_slice: {name} came out as {tuple(tensor.shape)}, the sliced model holds "
            f"{tuple(wanted[name].shape)}; check the steps"
        )
    parent, _, leaf = name.rpartition(".")
    cast = tensor.to(wanted[name].dtype)
    setattr(
        model.get_submodule(parent),
        leaf,
        nn.Parameter(cast.contiguous(), requires_grad=wanted[name].requires_grad),
    )


def _set_buffers(result: nn.Module, model: PreTrainedModel, edits: InnerEdits) -> None:
    """Those of the original as they are, and those of the online rotations in the model's dtype and on its device."""
    own = {name: buffer.detach().clone() for name, buffer in model.named_buffers()}
    online = {
        # A copy: without one, a float64 model would hold the plan's own memory.
        name: tensor.to(device=model.device, dtype=model.dtype, copy=True).contiguous()
        for name, tensor in edits.buffers.items()
    }
    for name, buffer in {**own, **online}.items():
        parent, _, leaf = name.rpartition(".")
        setattr(result.get_submodule(parent), leaf, buffer)


def _finite(name: str, tensor: Tensor) -> Tensor:
    if tensor.is_meta:
        raise RotcheckError(f"rotate_and_slice: {name} is on the meta device; load the model's weights first")
    if not torch.isfinite(tensor).all():
        raise RotcheckError(f"rotate_and_slice: {name} has non-finite entries; repair or reload the checkpoint")
    return tensor.detach().clone()


def _float64(name: str, tensor: Tensor) -> Tensor:
    return _finite(name, tensor).to(torch.float64)


def _optional(name: str, tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else _float64(name, tensor)
