"""Running a fused model site by site, with the stream in the caller's hands."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from rotcheck.errors import RotcheckError
from rotcheck.models.architecture import Architecture
from rotcheck.models.declared import architecture_of
from rotcheck.slicing.batches import Batch, one
from rotcheck.slicing.calibrate import require_unsliced
from rotcheck.slicing.layer import branch_output


def walk(fused: PreTrainedModel, batch: Batch, at_site: Callable[[int, Tensor], Tensor]) -> Tensor:
    """Logits of a fused model whose stream is replaced by ``at_site(site, stream)`` at every site.

    With ``at_site = lambda s, x: x @ U_s @ U_s.T`` and U_s a sliced basis this is the dense reference of a
    sliced model: the stream is projected before the norm and the residual are read, and nothing is rotated.

    Parameters
    ----------
    fused
        From :func:`rotcheck.slicing.fuse`.
    batch
        Mapping with ``input_ids`` and optionally ``attention_mask``, or the ids, (batch, tokens).
    at_site
        Receives the site's index and the stream (batch, tokens, d) in the model's dtype, and returns one of
        the same shape.

    Returns
    -------
    Tensor
        (batch, tokens, vocabulary), without gradient.

    Raises
    ------
    RotcheckError
        The model is not a fused one, the batch is malformed, or `at_site` changed the stream's shape.
    """
    with torch.no_grad():
        steps = stages(fused, batch)
        stream, site = next(steps), 0
        while True:
            replaced = at_site(site, stream)
            if replaced.shape != stream.shape:
                raise RotcheckError(
                    f"walk: at_site({site}, ...) returned shape {tuple(replaced.shape)} for {tuple(stream.shape)}; "
                    "return a stream of the same shape"
                )
            try:
                stream, site = steps.send(replaced.to(stream.dtype)), site + 1
            except StopIteration as end:
                return end.value


def stages(fused: PreTrainedModel, batch: Batch, number: int = 0) -> Generator[Tensor, Tensor, Tensor]:
    """The same as a generator: yields the stream at each site, takes its replacement, and returns the logits.

    Suspended generators let sequential calibration bring all batches to a site before any of them passes it.
    Layers get the keyword arguments that the model itself hands to each of them, which differ between layers where
    ``config.layer_types`` does (sliding windows).
    """
    if not require_unsliced(fused, "walk"):
        raise RotcheckError("walk: the model's norms are not fused; pass fuse(model)")
    architecture = architecture_of(fused)
    stream, contexts = _first_layer(fused, architecture, one(batch, fused.config, number))
    for index, layer in enumerate(fused.get_submodule(architecture.layers)):
        context = contexts[index if len(contexts) > 1 else 0]
        for branch in architecture.branches:
            stream = yield stream
            stream = stream + branch_output(layer, branch, stream, context)
    stream = yield stream
    hidden = fused.get_submodule(architecture.final_norm)(stream)
    if architecture.projected(fused.config):
        hidden = fused.get_submodule(str(architecture.project_out))(hidden)
    return fused.get_submodule(architecture.head)(hidden)


class _Captured(Exception):  # noqa: N818 - not an error: it stops a forward pass at a layer
    """Raised once everything wanted was seen."""


def _first_layer(
    model: PreTrainedModel, architecture: Architecture, batch: dict[str, Tensor]
) -> tuple[Tensor, list[dict[str, Any]]]:
    """Embedded stream, and the keyword arguments that the model itself hands to its layers.

    Those of the first layer alone where all layers are of one type, which saves running the others.
    """
    layers = model.get_submodule(architecture.layers)
    kinds = getattr(model.config, "layer_types", None) or ()
    last = len(layers) - 1 if len(set(kinds)) > 1 else 0
    streams: list[Tensor] = []
    contexts: list[dict[str, Any]] = []

    def before(module: nn.Module, inputs: tuple[Any, ...], context: dict[str, Any]) -> None:
        streams.append(inputs[0])
        contexts.append(context)
        if len(contexts) > last:
            raise _Captured

    handles = [layer.register_forward_pre_hook(before, with_kwargs=True) for layer in layers[: last + 1]]
    try:
        model.base_model(**{key: value.to(model.device) for key, value in batch.items()}, use_cache=False)
    except _Captured:
        return streams[0], contexts
    finally:
        for handle in handles:
            handle.remove()
    raise RotcheckError(f"walk: {type(model).__name__} did not run {architecture.layers}.0; check its declaration")
