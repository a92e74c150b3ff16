"""Calibration sees what a cache stores: after RoPE and key norms, one set per KV head, keys and values alike."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import nn
from transformers.cache_utils import DynamicCache

from rotcheck.models.caching import with_cache
from rotcheck.spectral import calibrate_cache
from rotcheck.spectral.moments import moments

FAMILIES = ("opt", "llama", "mistral", "qwen3", "phi", "glm", "gpt_neox", "gemma3_text", "deepseek_v3")
ROPE = ("llama", "mistral", "qwen3", "phi", "glm", "gpt_neox", "gemma3_text")
WIDTHS = {"llama": (2, 20), "mistral": (2, 20), "qwen3": (2, 20), "glm": (2, 20), "gemma3_text": (2, 20)}
WIDTHS |= {"opt": (4, 12), "phi": (2, 12), "gpt_neox": (4, 12)}


def filled(model, batch):
    """Keys and values of each layer in a plain cache, as rows of the unmasked tokens (heads, n, d)."""
    cache = DynamicCache()  # with a configuration it would keep a window only
    with torch.no_grad():
        model(**batch, use_cache=True, **with_cache(model, cache))
    tokens = batch["attention_mask"].bool()
    return [
        tuple(tensor.transpose(1, 2)[tokens].transpose(0, 1) for tensor in (layer.keys, layer.values))
        for layer in cache.layers
    ]


@pytest.mark.parametrize("family", FAMILIES)
def test_moments_are_those_of_a_plain_cache(family, tiny, batch_of):
    model = tiny(family)
    batches = [batch_of(model, seed=seed, padded=False) for seed in range(2)]
    calibration = calibrate_cache(model, batches)
    stored = [filled(model, batch) for batch in batches]
    assert len(calibration.keys) == len(calibration.values) == model.config.num_hidden_layers
    for layer in range(model.config.num_hidden_layers):
        for which, statistics in enumerate((calibration.keys[layer], calibration.values[layer])):
            expected = moments(torch.cat([part[layer][which] for part in stored], dim=1))
            assert statistics.moments.count == expected.count == calibration.tokens == 78
            torch.testing.assert_close(statistics.moments.total, expected.total, rtol=1e-10, atol=1e-10)
            torch.testing.assert_close(statistics.moments.outer, expected.outer, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("family", sorted(WIDTHS))
def test_heads_and_widths_are_those_stored(family, calibrated):
    """Not hidden size over heads, which is 12, and KV heads rather than query heads."""
    for statistics in (*calibrated(family).keys, *calibrated(family).values):
        assert (statistics.heads, statistics.width) == WIDTHS[family]
        assert statistics.moments.outer.shape == (*WIDTHS[family], WIDTHS[family][1])


def test_keys_and_values_may_have_other_widths(calibrated):
    """Latent attention stores one latent head as keys, and its rotary part as values."""
    found = calibrated("deepseek_v3")
    assert [(s.heads, s.width) for s in found.keys] == [(1, 14)] * 3
    assert [(s.heads, s.width) for s in found.values] == [(1, 6)] * 3
    assert found.model.keys[0] == (1, 14)
    assert found.model.values[0] == (1, 6)


@pytest.mark.parametrize("family", ROPE)
def test_keys_are_seen_after_rope(family, tiny, batch_of, calibrated):
    """The rows of the projection have other moments: as long, and turned by nothing."""
    model = tiny(family)
    batch = batch_of(model, seed=1, padded=False)
    before = {}
    # layer 0 alone: its input does not depend on positions
    whole = {name: module for name, module in model.named_modules() if ".0." in name}
    fused = [module for name, module in whole.items() if name.endswith("query_key_value")]
    normed = [module for name, module in whole.items() if name.endswith("k_norm")]
    plain = [module for name, module in whole.items() if name.endswith("k_proj")]
    source = (normed or fused or plain)[0]
    handle = source.register_forward_hook(lambda module, args, out: before.update(out=out))
    try:
        statistics = calibrate_cache(model, [batch]).keys[0]
    finally:
        handle.remove()
    out = before["out"]
    if fused:
        out = out.unflatten(-1, (statistics.heads, 3 * statistics.width))[..., statistics.width : 2 * statistics.width]
    elif not normed:
        out = out.unflatten(-1, (statistics.heads, statistics.width))
    elif out.shape[1] == statistics.heads:  # Gemma norms after moving heads to the front
        out = out.transpose(1, 2)
    rows = out.flatten(0, 1).transpose(0, 1)
    second, other = statistics.moments.second(centred=False), moments(rows).second(centred=False)
    trace, expected = (x.diagonal(dim1=1, dim2=2).sum(1) for x in (second, other))
    torch.testing.assert_close(trace, expected, rtol=1e-6, atol=0)  # a rotation keeps lengths; cos and sin are float32
    assert (second - other).norm() > 0.1 * other.norm()


def test_values_are_not_turned(tiny, batch_of):
    model = tiny("llama")
    found = {}
    handle = model.model.layers[0].self_attn.v_proj.register_forward_hook(lambda m, a, out: found.update(out=out))
    try:
        statistics = calibrate_cache(model, [batch_of(model, seed=1, padded=False)]).values[0]
    finally:
        handle.remove()
    expected = moments(found["out"].unflatten(-1, (2, 20)).flatten(0, 1).transpose(0, 1))
    torch.testing.assert_close(statistics.moments.outer, expected.outer, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_coarse_model_is_summed_in_float64(dtype, tiny, batch_of):
    model = tiny("llama", dtype)
    batch = batch_of(model, seed=1, padded=False)
    calibration, stored = calibrate_cache(model, [batch]), filled(model, batch)
    for layer, (keys, values) in enumerate(stored):
        for rows, statistics in ((keys, calibration.keys[layer]), (values, calibration.values[layer])):
            assert rows.dtype == dtype
            assert statistics.moments.outer.dtype == torch.float64
            torch.testing.assert_close(statistics.moments.outer, moments(rows).outer, rtol=1e-12, atol=0)
            assert torch.equal(statistics.rows, rows.float())


def test_the_language_model_of_a_larger_one_is_calibrated(tiny, batch_of, calibrated):
    """Its vocabulary, layers and frequencies are looked up where they are."""

    class Larger(nn.Module):
        def __init__(self, model):
            super().__init__()
            self.language_model, self.device = model, model.device
            self.config = SimpleNamespace(model_type="larger", get_text_config=lambda decoder: model.config)

        @property
        def base_model(self):
            return self.language_model.base_model

    model = tiny("phi")
    batch = batch_of(model, seed=1)
    found, expected = calibrate_cache(Larger(model), [batch]), calibrate_cache(model, [batch])
    assert found.model == expected.model
    for one, two in zip(found.keys, expected.keys, strict=True):
        assert torch.equal(one.moments.outer, two.moments.outer)
        assert one.rotary == two.rotary == 6


def test_repr_names_the_model(calibrated):
    assert repr(calibrated("qwen3")) == ("CacheCalibration(3 layers, 288 tokens, qwen3, 3 layers, 2 KV heads of 20)")
