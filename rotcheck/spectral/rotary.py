"""Which coordinates of a head RoPE turns, where it leaves others alone."""

from __future__ import annotations

from typing import Any

from rotcheck.spectral.recorder import text_config


def rotary_width(model: Any, layer: int, width: int) -> int:
    """Place at which the keys of a layer fall into a part that RoPE turns and one that it leaves alone.

    The size of the turned part is read from the frequencies that the model holds (those of the layer's own type, where
    types differ), or from ``config.rotary_dim`` where it holds none (GPT-J). It comes first; in latent attention that
    stores whole heads, it comes last.

    Parameters
    ----------
    model
        A transformers decoder.
    layer : int
    width : int
        Of the keys that the layer stores.

    Returns
    -------
    int
        0 without RoPE, where it turns whole heads, and for keys that are stored before it turns anything, as latent
        attention stores them. Heads in which turned and other coordinates alternate count as turned altogether
        (proportional RoPE).
    """
    config = text_config(model.config)
    turned = _turned(model, config, layer)
    if (rope := getattr(config, "qk_rope_head_dim", None)) is not None:
        plain = getattr(config, "qk_nope_head_dim", 0)
        turned = plain if width == plain + rope else 0
    return turned if 0 < turned < width else 0


def _turned(model: Any, config: Any, layer: int) -> int:
    buffers = {name.rpartition(".")[2]: len(buffer) for name, buffer in model.named_buffers() if buffer.dim() == 1}
    types = getattr(config, "layer_types", None)
    own = f"{types[layer]}_inv_freq" if types else "inv_freq"
    pairs = buffers.get(own, buffers.get("inv_freq"))
    return 2 * pairs if pairs is not None else getattr(config, "rotary_dim", None) or 0
