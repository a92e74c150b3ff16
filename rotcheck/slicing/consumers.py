"""What else reads the stream of a model that is rotated: draft heads, early-exit heads, probes.

Such a consumer was made for the model as it was. On the rotated model it meets a stream in another basis, whose norms
have lost their gains. It is treated as :func:`rotcheck.slicing.rotate_and_slice` treats the model's own readers, with
the same arithmetic. For adapters of low rank see :mod:`rotcheck.slicing.lora`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rotcheck.errors import RotcheckError
from rotcheck.models.architecture import Architecture
from rotcheck.models.declared import architecture_of
from rotcheck.models.sites import Site, sites
from rotcheck.slicing.plan import Plan
from rotcheck.slicing.sliced import is_sliced
from rotcheck.slicing.steps import Steps

_STEPS = Steps()


def rotate_reader(
    model: nn.Module,
    plan: Plan,
    site: str | int,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    norm: nn.Module | None = None,
    steps: Steps = _STEPS,
) -> tuple[Tensor, Tensor | None]:
    """Linear consumer of a normalised stream, as it must be on the rotated model: ``W diag(g) U`` and ``b + W b_norm``.

    Parameters
    ----------
    model
        The original.
    plan
        That the model was rotated (and sliced) with.
    site
        Name or index of the site whose stream the consumer reads; ``"head input"`` for what the head reads.
    weight, bias
        W (..., out, d) and b (out,), for ``y = n(x) @ W.T + b``.
    norm
        The norm in front of the consumer: that of the site by default, which is gain-free in the rotated model; a norm
        of the consumer's own must become a :class:`rotcheck.slicing.norm.GainFreeRMSNorm` with its eps. Its gain is
        taken as stored in the architecture's way (``1 + w`` for Gemma).
    steps
        The arithmetic; replaced only to plant a defect.

    Returns
    -------
    weight, bias
        (..., out, w) and (out,), in the dtype of `weight`; computed in float64. No bias only where neither had one.

    Raises
    ------
    RotcheckError
        Unknown site, a weight of another width, or a plan for another model.

    Notes
    -----
    Source: vllm-project/vllm-ascend#5974, ohdearquant/lattice#42 (draft heads left in the old basis).
    """
    architecture, found = declared_sites(model, plan)
    place = _site(found, site)
    if weight.shape[-1] != plan.hidden_size:
        raise RotcheckError(
            f"rotate_reader: the weight has {weight.shape[-1]} columns, the stream at the {place.name} has "
            f"{plan.hidden_size} coordinates; pass W (out, {plan.hidden_size})"
        )
    in_front = model.get_submodule(place.norm) if norm is None else norm
    folded, moved = fold(weight, bias, in_front, architecture, steps)
    turned = steps.read(folded, plan.sliced_basis(place.index).to(weight.device))
    return turned.to(weight.dtype), None if moved is None else moved.to(weight.dtype)


def declared_sites(model: nn.Module, plan: Plan) -> tuple[Architecture, tuple[Site, ...]]:
    """Architecture and sites of an original, for a plan that is its own.

    Raises
    ------
    RotcheckError
        The model is rotated already, or the plan is for another one.
    """
    if is_sliced(model):
        raise RotcheckError("the model is rotated already: pass the original, whose gains and biases are needed")
    architecture = architecture_of(model)
    found = sites(architecture, model.config)
    if plan.hidden_size != model.config.hidden_size or plan.n_sites != len(found):
        raise RotcheckError(
            f"{plan!r} does not fit a model of hidden size {model.config.hidden_size} with {len(found)} sites; "
            "pass the plan that it was rotated with"
        )
    return architecture, found


def _site(found: tuple[Site, ...], wanted: str | int) -> Site:
    for site in found:
        if wanted in (site.name, site.index):
            return site
    names = f"{found[0].name!r} to {found[-2].name!r} and {found[-1].name!r}"
    raise RotcheckError(f"no site {wanted!r}: there are {names}, or indices 0 to {len(found) - 1}")


def fold(
    weight: Tensor, bias: Tensor | None, norm: nn.Module, architecture: Architecture, steps: Steps
) -> tuple[Tensor, Tensor | None]:
    """Gain and bias of a norm moved into a map behind it, in float64; see :func:`rotcheck.slicing.steps.fold_gain`."""
    gain, shift = (_double(getattr(norm, name, None), weight) for name in ("weight", "bias"))
    if gain is not None:
        gain = steps.full_gain(gain, architecture.gain_offset)
    return steps.fold_gain(weight.detach().double(), _double(bias, weight), gain, shift)


def _double(tensor: Tensor | None, like: Tensor) -> Tensor | None:
    return None if tensor is None else tensor.detach().to(like.device, torch.float64)
