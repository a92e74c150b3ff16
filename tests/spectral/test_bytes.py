"""Bytes are counted from what is stored, and what is stored is enough to reconstruct."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rotcheck.models.caching import with_cache
from rotcheck.quantize import Codec, LevelQuantizer, MinMaxQuantizer, Sketch
from rotcheck.spectral import HeadAxes, Settings, SpectralCache, TensorPath

SETTINGS = (
    Settings(bits=3.0),
    Settings(bits=2.5, value_bits=1.5, codebook="gaussian", normalize=True),
    Settings(allocation="4/2", codebook="minmax"),
    Settings(bits=2.0, codebook="uniform", sketch=32, centred=False),
    Settings(bits=1.3, rotation="haar", allocation="two-regimes", codebook="regime"),
)
FULL = ("opt", "llama", "phi", "deepseek_v3")


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("family", FULL)
def test_a_cache_holds_the_bytes_that_its_codec_declares(family, settings, tiny, codec_of, batch_of):
    model, codec = tiny(family), codec_of(family, torch.float64, settings)
    cache = SpectralCache(codec, model.config)
    batch = batch_of(model, seed=0, rows=3, length=13)
    with torch.no_grad():
        model(**batch, use_cache=True, **with_cache(model, cache))
    assert cache.calls == (1, 1, 1)
    assert cache.stored_bytes == codec.bytes_per_token * 13 * 3
    stored = [t for layer in cache.layers for t in (layer.keys, layer.values)]
    assert sum(t.untyped_storage().nbytes() for t in stored) == cache.stored_bytes
    assert {t.dtype for t in stored} == {torch.uint8}
    assert codec.bytes_per_token < 2 * codec.numbers_per_token


def test_nothing_else_in_a_layer_grows(tiny, codec_of):
    """No copy of the exact or of the decoded numbers stays behind."""
    cache = SpectralCache(codec_of("llama"), tiny("llama").config)
    layer, x = cache.layers[0], torch.randn(1, 2, 5, 20, generator=torch.Generator().manual_seed(0))
    sizes = []
    for _ in range(3):
        layer.update(x, x)
        tensors = [value for name, value in vars(layer).items() if isinstance(value, torch.Tensor)]
        sizes.append(sum(t.untyped_storage().nbytes() for t in tensors))
    per_update = 5 * 2 * (layer.key_path.bytes + layer.value_path.bytes)
    assert sizes == [per_update, 2 * per_update, 3 * per_update]


def test_a_window_holds_its_tokens_only(tiny, codec_of, batch_of):
    model, codec = tiny("mistral"), codec_of("mistral")
    cache = SpectralCache(codec, model.config)
    with torch.no_grad():
        model(**batch_of(model, seed=0), use_cache=True, **with_cache(model, cache))
    assert cache.stored_bytes == codec.bytes_per_token * (7 - 1) * 3


def rebuilt(path):
    """A path made anew of the tensors and numbers that are counted, each in the dtype in which it is counted."""
    axes, codec = path.axes, path.codec
    zeros = torch.zeros(axes.heads, axes.width, dtype=torch.float64)
    new_axes = HeadAxes(
        basis=axes.basis.clone(), mean=axes.mean.clone() if axes.centred else zeros, variances=zeros, spectrum=zeros,
        rotation="spectral", centred=axes.centred,
    )  # fmt: skip
    bits = codec.bits.to(torch.uint8).long()
    if isinstance(codec.scalar, LevelQuantizer):
        scalar = LevelQuantizer(bits=bits, levels=codec.scalar.levels.float().double())
    else:
        scalar = MinMaxQuantizer(
            bits=bits, group=codec.scalar.group.to(torch.uint8).long(), centre=codec.scalar.centre.float().double()
        )
    sketch = Sketch(projections=codec.sketch.projections.float().double()) if codec.sketch else None
    return TensorPath(axes=new_axes, codec=Codec(scalar=scalar, normalize=codec.normalize, sketch=sketch))


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_what_is_counted_is_enough_to_decode(settings, tiny, codec_of):
    model, codec = tiny("llama"), codec_of("llama", torch.float64, settings)
    cache = SpectralCache(codec, model.config)
    x = 3 * torch.randn(2, 2, 6, 20, generator=torch.Generator().manual_seed(1))
    for layer in range(3):
        given_back = cache.update(x, x, layer)
        held = cache.layers[layer]
        for path, rows, found in zip(
            (codec.keys[layer], codec.values[layer]), (held.keys, held.values), given_back, strict=True
        ):
            copied = torch.frombuffer(bytearray(rows.contiguous().numpy().tobytes()), dtype=torch.uint8)
            assert torch.equal(rebuilt(path).decode(copied.view(rows.shape)).float(), found)


@given(seed=st.integers(0, 2**31), tokens=st.integers(1, 9), rows=st.integers(1, 4))
def test_every_token_of_every_row_costs_the_same(seed, tokens, rows, tiny, codec_of):
    cache = SpectralCache(codec_of("llama"), tiny("llama").config)
    x = torch.randn(rows, 2, tokens, 20, generator=torch.Generator().manual_seed(seed))
    for layer in range(3):
        cache.update(x, x, layer)
    assert cache.stored_bytes == codec_of("llama").bytes_per_token * tokens * rows
    cache.crop(-(tokens // 2))
    assert cache.stored_bytes == codec_of("llama").bytes_per_token * (tokens - tokens // 2) * rows


def test_a_codec_is_shared_and_not_copied(tiny, codec_of):
    codec = codec_of("llama")
    caches = [SpectralCache(codec, tiny("llama").config) for _ in range(2)]
    assert caches[0].layers[1].key_path is caches[1].layers[1].key_path is codec.keys[1]
    assert copy.deepcopy(caches[0]).layers[1].key_path is not codec.keys[1]
