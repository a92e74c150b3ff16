"""Small random OPT models on which every known defect of a rotation changes the logits.

A freshly initialised OPT has gains of one and biases of zero: dropping a bias, forgetting a gain or leaving
the mean in the embeddings is then invisible. Here all of them are random, and all sizes differ pairwise, so
that a transposed or misplaced matrix does not fit by accident.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from transformers import OPTConfig, OPTForCausalLM


def adversarial_opt(
    *,
    seed: int,
    layers: int = 3,
    hidden_size: int = 40,
    heads: int = 5,
    ffn_dim: int = 72,
    vocab_size: int = 97,
    max_positions: int = 64,
    tied: bool = True,
    word_embed_proj_dim: int | None = None,
    enable_bias: bool = True,
    dtype: torch.dtype = torch.float64,
) -> OPTForCausalLM:
    """OPT in eval mode with random gains (1 +- 0.3), biases (0.3) and embeddings of non-zero mean.

    Linear weights have variance 1/fan_in, so activations and logits are of order one to ten. Everything is
    drawn in float64 from one ``torch.Generator`` and then cast; torch's global random state is not used.

    Parameters
    ----------
    seed
        Of the generator.
    layers, hidden_size, heads, ffn_dim, vocab_size, max_positions, word_embed_proj_dim, enable_bias
        As in ``OPTConfig``.
    tied
        Whether the head shares the token embedding.
    dtype
        Of the parameters. Attention is ``sdpa``: the eager one computes its softmax in float32.
    """
    config = OPTConfig(
        vocab_size=vocab_size,
        hidden_size=hidden_size,
        num_hidden_layers=layers,
        ffn_dim=ffn_dim,
        max_position_embeddings=max_positions,
        num_attention_heads=heads,
        word_embed_proj_dim=word_embed_proj_dim,
        enable_bias=enable_bias,
        tie_word_embeddings=tied,
        dropout=0.0,
        attention_dropout=0.0,
        layerdrop=0.0,
        pad_token_id=1,
        bos_token_id=2,
        eos_token_id=2,
    )
    config._attn_implementation = "sdpa"
    with torch.device("meta"):  # no time is spent on initial values that are overwritten
        model = OPTForCausalLM(config).to(dtype).eval()
    model.to_empty(device="cpu")
    model.tie_weights()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(draw(name, parameter.shape, generator, embedding="embed_" in name))
    return model


def adversarial_batch(
    model: OPTForCausalLM, *, seed: int, batch: int = 3, length: int = 12, padded: bool = True
) -> dict[str, Tensor]:
    """Random tokens over the whole vocabulary, left-padded by another length in each row.

    Returns
    -------
    dict
        ``input_ids`` and ``attention_mask``, both int64 of shape (batch, length). Every row keeps a token.
    """
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(model.config.vocab_size, (batch, length), generator=generator)
    mask = torch.ones_like(ids)
    if padded:
        drawn = torch.cat([torch.randperm(length, generator=generator) for _ in range(-(-batch // length))])
        mask = (torch.arange(length)[None, :] >= drawn[:batch, None]).long()
        ids = ids.masked_fill(mask == 0, model.config.pad_token_id)
    return {"input_ids": ids, "attention_mask": mask}


def draw(name: str, shape: torch.Size, generator: torch.Generator, *, embedding: bool, offset: float = 0.0) -> Tensor:
    """Float64 values for the parameter of that name: an embedding, a bias, a gain (one dimension) or a weight.

    Gains are ``1 - offset + 0.3 z``, for models that store ``g - offset``.
    """
    values = torch.randn(shape, generator=generator, dtype=torch.float64)
    if embedding:
        # A mean per row and a direction common to all rows: neither may get lost when the mean is removed.
        row = 0.3 + 0.3 * torch.randn(shape[0], 1, generator=generator, dtype=torch.float64)
        common = 0.3 * torch.randn(1, shape[1], generator=generator, dtype=torch.float64)
        return 0.7 * values + row + common
    if name.endswith("bias"):
        return 0.3 * values
    return 1.0 - offset + 0.3 * values if len(shape) == 1 else values / math.sqrt(shape[-1])
