"""Watching the residual stream of a running model, dense or sliced."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from rotcheck.models.architecture import Architecture
from rotcheck.models.sites import sites
from rotcheck.models.tensors import norm


@contextmanager
def record(model: nn.Module, architecture: Architecture, visit: Callable[[int, Tensor], None]) -> Iterator[None]:
    """Call ``visit(site_index, stream)`` for every site, in order, at each forward pass inside the context.

    Parameters
    ----------
    model
        Dense or sliced model with a language-model head. Its hooks are removed on leaving.
    architecture
        Its declaration.
    visit
        Receives the site's index and the stream before the norm, shape (batch, tokens, width) and the model's
        dtype: the tensor of the forward pass itself, not a copy, so it must not be written to.

    Notes
    -----
    Forward pre-hooks sit on the norms because ``output_hidden_states`` shows only the input of each layer,
    and its last entry lies behind the final norm. OPT hands its second norm a (batch * tokens, width) tensor;
    it is given the batch shape of the same forward pass back.
    """
    shape: list[torch.Size] = []
    handles = []

    def hook(index: int) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        def before(module: nn.Module, inputs: tuple[Any, ...]) -> None:
            stream = inputs[0]
            if index == 0:
                shape[:] = [stream.shape[:-1]]
            visit(index, stream if stream.dim() > 2 else stream.reshape(*shape[0], stream.shape[-1]))

        return before

    try:
        for site in sites(architecture, model.config):
            handles.append(norm(model, site.norm).register_forward_pre_hook(hook(site.index)))
        yield
    finally:
        for handle in handles:
            handle.remove()
