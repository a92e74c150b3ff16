"""Rounding the weights of a model, stock or rotated, in the basis in which it multiplies them."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from rotcheck.errors import RotcheckError
from rotcheck.models.architecture import Architecture
from rotcheck.models.declared import architecture_of
from rotcheck.models.tensors import Linear, linear
from rotcheck.quantize.moments import second_moment
from rotcheck.quantize.rounding import RoundToNearest
from rotcheck.quantize.weights import quantize_weight
from rotcheck.slicing.batches import Batch, checked, kept
from rotcheck.slicing.calibrate import evaluating


def weight_paths(architecture: Architecture, config: Any) -> tuple[str, ...]:
    """Paths of the matrices that are rounded: readers and writers of every layer, but no router, head or embedding.

    A router decides between experts with a few numbers per token, and is left in full precision, as usual.
    """
    router = architecture.experts.router if architecture.experts is not None else None
    found = []
    for layer in range(config.num_hidden_layers):
        for branch in architecture.branches:
            for path in (*branch.readers, *branch.writers):
                if path != router:
                    found.append(f"{architecture.layers}.{layer}.{path}")
    return tuple(found)


def input_moments(model: PreTrainedModel, batches: Iterable[Batch]) -> dict[str, Tensor]:
    """Second moment of what each linear module *multiplies*, (in, in) float64 on the CPU, by path.

    A module that rotates its input before it multiplies (R4) is calibrated on the rotated one, which is what meets its
    weight. Matrices of experts have no module of their own, and are left out. Masked tokens are excluded.

    Parameters
    ----------
    model
        Of a declared architecture, stock or rotated; run in its own dtype and in eval mode.
    batches
        As for :func:`rotcheck.slicing.calibrate`.

    Raises
    ------
    RotcheckError
        As :func:`rotcheck.slicing.calibrate`.
    """
    architecture = architecture_of(model)
    sums: dict[str, Tensor] = {}
    rows = 0
    tokens = torch.zeros(0)

    def watch(path: str) -> Any:
        def before(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            x = inputs[0].detach()
            rotation = getattr(module, "rotation", None)
            x = x if rotation is None else rotation(x)
            seen = x.reshape(-1, x.shape[-1])[tokens].to(torch.float64)
            if len(seen):
                moment = (second_moment(seen) * len(seen)).cpu()
                sums[path] = sums[path] + moment if path in sums else moment

        return before

    modules = {path: linear(model, path).module for path in weight_paths(architecture, model.config)}
    handles = [m.register_forward_pre_hook(watch(path)) for path, m in modules.items() if m is not None]
    try:
        with torch.no_grad(), evaluating(model):
            for batch in checked(batches, model.config, progress=False, title="calibrating"):
                tokens = kept(batch).to(model.device).reshape(-1)
                rows += int(tokens.sum())
                model.base_model(**{key: value.to(model.device) for key, value in batch.items()}, use_cache=False)
    finally:
        for handle in handles:
            handle.remove()
    if not rows:
        raise RotcheckError("every token of every batch is masked; pass batches with unmasked tokens")
    return {path: moment / rows for path, moment in sums.items()}


def quantize_weights(
    model: PreTrainedModel, settings: RoundToNearest, *, moments: Mapping[str, Tensor] | None = None
) -> PreTrainedModel:
    """Copy of a model whose matrices hold ``s (q - z)``, rounded to the nearest as `settings` say.

    The matrices are those that the model multiplies with: of a rotated model the rotated ones. Biases, norms,
    shortcuts, rotations, embeddings, routers and the head stay as they are. The result computes in the model's dtype,
    and is for measuring: it takes no less memory.

    Parameters
    ----------
    model
        Of a declared architecture, stock or rotated. Unchanged.
    settings
        Bits, groups and symmetry.
    moments
        From :func:`input_moments` of *this* model; each range is then clipped to what costs its outputs least. Those of
        the model before it was rotated weigh other inputs (ModelCloud/GPTQModel#2980).

    Raises
    ------
    RotcheckError
        An undeclared architecture, moments of another size, a group that does not divide an input width, or weights
        that are not finite.
    """
    architecture = architecture_of(model)
    copied = copy.deepcopy(model)
    for path in weight_paths(architecture, model.config):
        held = linear(copied, path)
        try:
            held.weight.data = _rounded(held, settings, (moments or {}).get(path))
        except RotcheckError as error:
            raise RotcheckError(f"{path}: {error}") from error
    return copied


def _rounded(held: Linear, settings: RoundToNearest, moment: Tensor | None) -> Tensor:
    weight = held.weight.detach()
    matrices = weight if weight.dim() == 3 else weight[None]
    moved = None if moment is None else moment.to(weight.device)
    rounded = torch.stack([quantize_weight(matrix, settings, moment=moved).dequantize() for matrix in matrices])
    return rounded.reshape(weight.shape).to(weight.dtype)
