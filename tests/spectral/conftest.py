"""Small random decoders of several families on which no mistake is harmless, and rows with a known covariance."""

from __future__ import annotations

import functools
from types import SimpleNamespace

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from rotcheck.bases import haar
from rotcheck.models import bundled
from rotcheck.models.adversarial import adversarial_opt
from rotcheck.models.loading import load_model, load_tokenizer
from rotcheck.models.text import read_text, token_windows
from rotcheck.spectral import Settings, build_codec, calibrate_cache
from rotcheck.spectral.calibrate import TensorStatistics
from rotcheck.spectral.moments import moments

COMMON = {
    "vocab_size": 61, "hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 3, "num_attention_heads": 4,
    "max_position_embeddings": 96, "pad_token_id": 1, "bos_token_id": 2, "eos_token_id": 2,
    "tie_word_embeddings": False,
}  # fmt: skip
GROUPED = COMMON | {"num_key_value_heads": 2, "head_dim": 20}
FAMILIES = {
    "llama": GROUPED,
    "mistral": GROUPED | {"sliding_window": 7},
    "qwen3": GROUPED,
    "phi": COMMON | {"num_key_value_heads": 2, "partial_rotary_factor": 0.5},
    "glm": GROUPED | {"partial_rotary_factor": 0.4},
    "gpt_neox": {k: v for k, v in COMMON.items() if k != "pad_token_id"} | {"rotary_pct": 0.5},
    "gemma3_text": GROUPED | {
        "sliding_window": 6, "query_pre_attn_scalar": 20,
        "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
    },
    "gptj": {
        "vocab_size": 61, "n_embd": 48, "n_layer": 3, "n_head": 4, "n_positions": 96, "rotary_dim": 8, "n_inner": 80,
        "bos_token_id": 2, "eos_token_id": 2, "tie_word_embeddings": False,
    },
    "deepseek_v3": COMMON | {
        "num_key_value_heads": 4, "q_lora_rank": 22, "kv_lora_rank": 14, "qk_rope_head_dim": 6, "qk_nope_head_dim": 10,
        "v_head_dim": 18, "first_k_dense_replace": 3, "n_routed_experts": 4, "num_experts_per_tok": 2, "n_group": 2,
        "topk_group": 1,
    },
}  # fmt: skip
"""No two sizes are equal, heads are wider than hidden size over heads where the family allows it, windows are short."""


@functools.cache
def _tiny(family, dtype=torch.float64, seed=0):
    if family == "opt":
        return adversarial_opt(seed=seed, hidden_size=48, heads=4, vocab_size=61, max_positions=96, dtype=dtype)
    config = AutoConfig.for_model(family, **FAMILIES[family])
    attention = "eager" if family == "gptj" else "sdpa"  # which GPT-J had not in every release
    with torch.random.fork_rng(devices=[]):  # initial values are overwritten
        model = AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation=attention).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            values = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            if name.endswith("bias"):
                values *= 0.3
            elif parameter.dim() == 1:  # a gain, stored as 1 + w by Gemma
                values = 0.3 * values + (0 if family.startswith("gemma") else 1)
            elif "embed" in name or "wte" in name:
                values = 0.7 * values + 0.3 + 0.3 * torch.randn(parameter.shape[1], generator=generator)
            else:
                values /= parameter.shape[-1] ** 0.5
            parameter.copy_(values)
    return model


def _batch(model, *, seed, rows=3, length=13, padded=True):
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(3, model.config.vocab_size, (rows, length), generator=generator)
    mask = torch.ones_like(ids)
    if padded:  # by another length in each row, and by none in the last
        for row in range(rows):
            mask[row, : 2 * (rows - 1 - row)] = 0
    return {"input_ids": ids.masked_fill(mask == 0, 1), "attention_mask": mask}


@functools.cache
def _calibrated(family, dtype=torch.float64):
    model = _tiny(family, dtype)
    return calibrate_cache(model, [_batch(model, seed=seed, rows=4, length=21) for seed in range(4)])


@functools.cache
def _codec(family, dtype=torch.float64, settings=None):
    return build_codec(_calibrated(family, dtype), settings)


def _rows(seed, *, heads=2, count=90, width=7, mean=1.0, dtype=torch.float64):
    """Rows (heads, count, width) with a power law on Haar axes of their own in each head, and a mean."""
    generator = torch.Generator().manual_seed(seed)
    scale = torch.arange(1, width + 1, dtype=torch.float64) ** -0.8
    axes = torch.stack([haar(width, seed=generator) for _ in range(heads)])
    normal = torch.randn(heads, count, width, generator=generator, dtype=torch.float64)
    centre = mean * torch.randn(heads, 1, width, generator=generator, dtype=torch.float64)
    return ((normal * scale) @ axes.mT + centre).to(dtype)


@pytest.fixture(scope="session")
def tiny():
    """``tiny(family, dtype)``: a model in eval mode; the same object each time."""
    return _tiny


@pytest.fixture(scope="session")
def batch_of():
    """``batch_of(model, seed=...)``: ids and mask of left-padded rows of unlike lengths."""
    return _batch


@pytest.fixture(scope="session")
def calibrated():
    """``calibrated(family, dtype)``: calibration of the tiny model over 4 padded batches."""
    return _calibrated


@pytest.fixture(scope="session")
def codec_of():
    """``codec_of(family, dtype, settings)``: built from `calibrated`."""
    return _codec


@pytest.fixture(scope="session")
def rows_of():
    return _rows


@pytest.fixture(scope="session")
def statistics_of():
    """``statistics_of(rows)``: as calibration would give them for these rows (H, n, d)."""

    def make(rows, rotary=0):
        return TensorStatistics(moments=moments(rows), rows=rows.float(), rotary=rotary)

    return make


@pytest.fixture(scope="session")
def trained():
    """The bundled model in float32, its calibration over 16 windows, and 3 windows of other text in one batch."""
    model, tokenizer = load_model("bundled", torch.float32), load_tokenizer("bundled")
    texts = [read_text(path) for path in (bundled.calibration_text(), bundled.evaluation_text())]
    windows = token_windows(tokenizer, texts[0], context=256, windows=16, seed=0)
    calibration = calibrate_cache(model, windows, sample=1024)
    (others,) = token_windows(tokenizer, texts[1], context=256, windows=3)
    return SimpleNamespace(
        model=model, calibration=calibration, windows=others,
        codec=functools.cache(lambda **settings: build_codec(calibration, Settings(**settings))),
    )  # fmt: skip
