"""What a compressed cache does to the output of attention, layer by layer, with everything else exact."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from torch.overrides import TorchFunctionMode
from transformers import PreTrainedModel

from rotcheck.errors import RotcheckError
from rotcheck.slicing.batches import Batch, checked, kept
from rotcheck.slicing.calibrate import evaluating
from rotcheck.spectral.build import CacheCodec
from rotcheck.spectral.path import TensorPath
from rotcheck.spectral.recorder import layer_count, run_recorded, text_config

ARGUMENTS = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal")
"""Positional parameters of ``scaled_dot_product_attention``, in order."""


def attention_errors(
    model: PreTrainedModel, codecs: Mapping[str, CacheCodec], batches: Iterable[Batch], *, progress: bool = False
) -> dict[str, Tensor]:
    """``|softmax(q k_hat) v_hat - softmax(q k) v| / |softmax(q k) v|`` in each layer, for several codecs at once.

    The model runs as it is. At each attention call the queries are those of the exact model, and each codec's decoded
    keys and values take the place of the exact ones for a second result, which goes nowhere: errors of earlier layers
    do not add up. Norms are over all unmasked tokens and heads.

    Parameters
    ----------
    model
        With ``sdpa`` attention.
    codecs
        By name.
    batches
        As for :func:`rotcheck.spectral.calibrate_cache`.

    Returns
    -------
    dict of Tensor (layers,) float64

    Raises
    ------
    RotcheckError
        When a codec is of another model, or the model does not call ``scaled_dot_product_attention`` in every layer, or
        attends with other heads than it stores.
    """
    layers = layer_count(model.config)
    wrong = {name: torch.zeros(layers, dtype=torch.float64) for name in codecs}
    size = torch.zeros(layers, dtype=torch.float64)
    for codec in codecs.values():
        codec.model.check(model.config)
    with evaluating(model):
        for batch in checked(batches, text_config(model.config), progress=progress, title="attention errors"):
            with _Attention(codecs, kept(batch), wrong, size) as watch:
                run_recorded(model, batch, watch.stored)
    if not (size > 0).all():
        layer = int((size <= 0).nonzero()[0])
        raise RotcheckError(
            f"no attention was seen in layer {layer}: load the model with attn_implementation='sdpa', "
            "whose calls can be watched, and pass batches with unmasked tokens"
        )
    return {name: (error / size).sqrt() for name, error in wrong.items()}


class _Attention(TorchFunctionMode):
    """Watches attention calls inside its context; nothing outside of it changes."""

    def __init__(
        self, codecs: Mapping[str, CacheCodec], tokens: Tensor, wrong: dict[str, Tensor], size: Tensor
    ) -> None:
        super().__init__()
        self.codecs, self.tokens, self.wrong, self.size = codecs, tokens, wrong, size
        self.given: tuple[int, Tensor, Tensor] | None = None

    def stored(self, layer: int, keys: Tensor, values: Tensor) -> None:
        """What the cache is given just before the layer's attention call."""
        self.given = layer, keys, values

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        answer = func(*args, **kwargs)
        if func is scaled_dot_product_attention and self.given is not None:
            given, self.given = self.given, None  # a second call in the layer is not over what it stored
            self._compare(*given, dict(zip(ARGUMENTS, args, strict=False)) | kwargs, answer)
        return answer

    def _compare(self, layer: int, keys: Tensor, values: Tensor, call: dict[str, Any], exact: Tensor) -> None:
        pairs = ((keys, call["key"]), (values, call["value"]))
        if any(used.shape[1] % held.shape[1] or used.shape[3] != held.shape[3] for held, used in pairs):
            raise RotcheckError(
                f"layer {layer} stores keys {tuple(keys.shape)} and attends with {tuple(call['key'].shape)}: the error "
                "of latent attention cannot be measured"
            )
        tokens = self.tokens.to(exact.device)
        reference = exact.transpose(1, 2)[tokens].double()
        self.size[layer] += reference.square().sum().cpu()
        for name, codec in self.codecs.items():
            coded = {
                "key": _coded(codec.keys[layer], keys, tokens, call["key"]),
                "value": _coded(codec.values[layer], values, tokens, call["value"]),
            }
            again = scaled_dot_product_attention(**(call | coded))
            found = again.transpose(1, 2)[tokens].double()
            self.wrong[name][layer] += (found - reference).square().sum().cpu()


def _coded(path: TensorPath, held: Tensor, tokens: Tensor, used: Tensor) -> Tensor:
    """Decoded keys or values in the place of those that attention used, one per query head where these are.

    What is under the mask is not coded: it need not even be finite.
    """
    path = path.to(held.device)
    held = held.masked_fill(~tokens.unsqueeze(1).unsqueeze(-1), 0)
    return path.decode(path.encode(held)).to(used.dtype).repeat_interleave(used.shape[1] // held.shape[1], 1)
