"""Running a fused model site by site, with the stream in the caller's hands."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from rotcheck.errors import RotcheckError
from rotcheck.models.architecture import Architecture, architecture_of
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
    A layer's keyword arguments are those of the first layer, which fits architectures whose layers all get
    the same.
    """
    if not require_unsliced(fused, "walk"):
        raise RotcheckError("walk: the model's norms are not fused; pass fuse(model)")
    architecture = architecture_of(fused)
    stream, context = _first_layer(fused, architecture, one(batch, fused.config, number))
    for layer in fused.get_submodule(architecture.layers):
        for branch in architecture.branches:
            stream = yield stream
            stream = stream + branch_output(layer, architecture, branch, stream, context)
    stream = yield stream
    hidden = fused.get_submodule(architecture.final_norm)(stream)
    if architecture.projected(fused.config):
        hidden = fused.get_submodule(str(architecture.project_out))(hidden)
    return fused.get_submodule(architecture.head)(hidden)


class _Captured(Exception):  # noqa: N818 - not an error: it stops a forward pass at the first layer
    def __init__(self, stream: Tensor, context: dict[str, Any]) -> None:
        super().__init__()
        self.stream, self.context = stream, context


def _first_layer(
    model: PreTrainedModel, architecture: Architecture, batch: dict[str, Tensor]
) -> tuple[Tensor, dict[str, Any]]:
    """Embedded stream and keyword arguments that the model itself hands to its first layer."""

    def before(module: nn.Module, inputs: tuple[Any, ...], context: dict[str, Any]) -> None:
        raise _Captured(inputs[0], context)

    first = model.get_submodule(architecture.layers)[0]
    handle = first.register_forward_pre_hook(before, with_kwargs=True)
    try:
        model.base_model(**{key: value.to(model.device) for key, value in batch.items()}, use_cache=False)
    except _Captured as captured:
        return captured.stream, captured.context
    finally:
        handle.remove()
    raise RotcheckError(f"walk: {type(model).__name__} did not run {architecture.layers}.0; check its declaration")
