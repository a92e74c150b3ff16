"""Cropping, reordering, repeating, selecting, moving and copying act on bytes as they act on numbers."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from rotcheck.spectral import CacheCalibration, Settings, SpectralCache, TensorPath, build_codec, head_axes
from rotcheck.spectral.build import fit_codec
from rotcheck.spectral.cache import SpectralLayer, SpectralSlidingLayer

WINDOW = 6
OPERATIONS = ("grow", "crop", "reorder", "repeat", "select", "offload", "copy", "reset")


@pytest.fixture(scope="module")
def paths(rows_of, statistics_of):
    def make(kind, seed, width):
        rows = rows_of(seed, width=width)
        axes = head_axes(statistics_of(rows))
        return TensorPath(axes=axes, codec=fit_codec(axes, rows, Settings(bits=3.0), kind, seed=0))

    return make("keys", 0, 7), make("values", 1, 5)


def states(generator, batch, tokens):
    return (torch.randn(batch, 2, tokens, width, generator=generator) for width in (7, 5))


def operate(name, layer, plain, generator, *, record):
    """One operation on both layers; the batch that is left."""
    length = plain.get_seq_length()
    if name == "grow" or not plain.is_initialized:
        rows = plain.keys.shape[0] if plain.is_initialized else 2
        keys, values = states(generator, rows, int(torch.randint(1, 4, (), generator=generator)))
        layer.update(keys, values)
        plain.update(keys, values)
        return layer
    rows = plain.keys.shape[0]
    if name == "crop":
        held = plain.keys.shape[-2]
        if (record or held == length) and held > 1:
            most = min(held, length) - 1
            count = -int(torch.randint(1, min(most, 3) + 1, (), generator=generator))
            layer.crop(count)
            plain.crop(count)
    elif name == "reorder":
        order = torch.randint(rows, (rows,), generator=generator)
        layer.reorder_cache(order)
        plain.reorder_cache(order)
    elif name == "repeat" and rows < 4:
        layer.batch_repeat_interleave(2)
        plain.batch_repeat_interleave(2)
    elif name == "select":
        chosen = torch.randint(rows, (2,), generator=generator)
        layer.batch_select_indices(chosen)
        plain.batch_select_indices(chosen)
    elif name == "offload":
        layer.offload()
        layer.prefetch()
    elif name == "copy":
        layer = copy.deepcopy(layer)
    elif name == "reset":
        layer.reset()
        plain.keys = plain.values = None  # releases below 5.23 only zero them
        plain.is_initialized = False
        if record is not None:
            plain.cumulative_length = 0
    return layer


def agree(layer, plain, paths):
    assert layer.is_initialized == plain.is_initialized
    assert layer.get_seq_length() == plain.get_seq_length()
    assert layer.get_mask_sizes(3) == plain.get_mask_sizes(3)
    if plain.is_initialized:
        assert torch.equal(layer.keys, paths[0].encode(plain.keys))
        assert torch.equal(layer.values, paths[1].encode(plain.values))


@given(seed=st.integers(0, 2**31), names=st.lists(st.sampled_from(OPERATIONS), min_size=2, max_size=12))
def test_bytes_are_those_of_a_plain_layer_that_is_treated_alike(seed, names, paths):
    generator = torch.Generator().manual_seed(seed)
    layer, plain = SpectralLayer(*paths), DynamicLayer()
    for name in ["grow", *names]:
        layer = operate(name, layer, plain, generator, record=None)
        agree(layer, plain, paths)
    if plain.is_initialized:
        rows = plain.keys.shape[0]
        keys, values = states(generator, rows, 2)
        found, expected = layer.update(keys, values), plain.update(keys, values)
        for path, one, two in zip(paths, found, expected, strict=True):
            torch.testing.assert_close(one, path.decode(path.encode(two)).float())


@given(
    seed=st.integers(0, 2**31),
    names=st.lists(st.sampled_from(OPERATIONS), min_size=2, max_size=12),
    record=st.booleans(),
)
def test_bytes_in_a_window_too(seed, names, record, paths):
    """With and without the record of the past that assisted decoding asks for."""
    generator = torch.Generator().manual_seed(seed)
    layer = SpectralSlidingLayer(*paths, sliding_window=WINDOW)
    plain = DynamicSlidingWindowLayer(sliding_window=WINDOW)
    assert layer.is_sliding
    if record:
        layer.activate_past_recording()
        plain.activate_past_recording()
    for name in ["grow", *names]:
        layer = operate(name, layer, plain, generator, record=record)
        agree(layer, plain, paths)


@pytest.mark.parametrize("family", ["llama", "gemma3_text"])
def test_a_cache_that_was_reset_is_as_new(family, tiny, codec_of):
    model, codec = tiny(family), codec_of(family)
    cache, generator = SpectralCache(codec, model.config), torch.Generator().manual_seed(0)
    keys, values = (torch.randn(2, 2, 9, 20, generator=generator) for _ in range(2))
    first = [tuple(t.clone() for t in cache.update(keys, values, layer)) for layer in range(3)]
    assert cache.calls == (1, 1, 1)
    cache.reset()
    assert cache.calls == (0, 0, 0)
    assert cache.stored_bytes == cache.get_seq_length() == 0
    again = [cache.update(keys, values, layer) for layer in range(3)]
    assert all(torch.equal(a, b) for x, y in zip(first, again, strict=True) for a, b in zip(x, y, strict=True))
    # a batch of another size fits, too
    cache.reset()
    cache.update(keys[:1], values[:1], 0)


def test_a_copy_grows_by_itself(tiny, codec_of):
    cache = SpectralCache(codec_of("llama"), tiny("llama").config)
    keys = torch.randn(1, 2, 4, 20, generator=torch.Generator().manual_seed(0))
    cache.update(keys, keys, 0)
    other = copy.deepcopy(cache)
    other.update(keys, keys, 0)
    assert (cache.get_seq_length(), other.get_seq_length()) == (4, 8)
    assert (cache.calls[0], other.calls[0]) == (1, 2)


@pytest.mark.parametrize("family", ["llama", "gemma3_text"])
def test_layers_that_were_laid_out_early_hold_bytes(family, tiny, codec_of):
    """As torch.export does, with the dtype of the model."""
    model, codec = tiny(family), codec_of(family)
    cache, late = (SpectralCache(codec, model.config) for _ in range(2))
    cache.early_initialization(2, 2, 20, torch.float32, torch.device("cpu"))
    assert all(layer.keys.dtype == torch.uint8 and layer.get_seq_length() == 0 for layer in cache.layers)
    keys = torch.randn(2, 2, 9, 20, generator=torch.Generator().manual_seed(0))
    for layer in range(3):
        for one, two in zip(cache.update(keys, keys, layer), late.update(keys, keys, layer), strict=True):
            assert torch.equal(one, two)
        assert torch.equal(cache.layers[layer].keys, late.layers[layer].keys)


def test_layers_may_have_heads_of_their_own(tiny, rows_of, statistics_of, calibrated):
    """Another width and another number of heads in each layer, for keys and for values."""
    shapes = {"keys": [(2, 7), (3, 5), (1, 11)], "values": [(2, 6), (3, 9), (1, 4)]}
    statistics = {
        kind: tuple(statistics_of(rows_of(i, heads=heads, width=width)) for i, (heads, width) in enumerate(found))
        for kind, found in shapes.items()
    }
    calibration = CacheCalibration(**statistics, tokens=90, model=calibrated("opt").model)
    codec = build_codec(calibration, Settings(bits=6.0, codebook="gaussian"))
    cache = SpectralCache(codec, tiny("opt").config)
    for layer in range(3):
        keys, values = (statistics[kind][layer].rows[None, :, :8] for kind in ("keys", "values"))
        for exact, found in zip((keys, values), cache.update(keys, values, layer), strict=True):
            assert found.shape == exact.shape
            assert (found - exact).norm() < 0.1 * exact.norm()
    assert cache.stored_bytes == 8 * codec.bytes_per_token


def test_what_the_cache_says_of_itself(tiny, codec_of):
    cache = SpectralCache(codec_of("gemma3_text"), tiny("gemma3_text").config)
    assert len(cache) == 3
    assert cache.is_sliding == [True, False, True]
    assert not cache.is_compileable
    assert cache.calls == (0, 0, 0)
    assert cache.stored_bytes == 0
    assert cache.codec is codec_of("gemma3_text")


class Elsewhere:
    """A path that records where it was asked to be before anything was coded."""

    bytes = 3

    def __init__(self, log):
        self.log = log

    def to(self, device):
        self.log.append(("to", device))
        return self

    def encode(self, x):
        self.log.append(("encode", x.device))
        return torch.zeros(*x.shape[:-1], self.bytes, dtype=torch.uint8)

    def decode(self, rows):
        return torch.zeros(*rows.shape[:-1], 4, dtype=torch.float64)


@pytest.mark.parametrize("sliding", [False, True])
def test_paths_follow_the_keys_before_anything_is_coded(sliding):
    log, window = [], {"sliding_window": WINDOW} if sliding else {}
    layer = (SpectralSlidingLayer if sliding else SpectralLayer)(Elsewhere(log), Elsewhere(log), **window)
    x = torch.zeros(1, 2, 3, 4)
    for _ in range(2):
        layer.update(x, x)
    one = [("to", x.device), ("to", x.device), ("encode", x.device), ("encode", x.device)]
    assert log == one * 2
