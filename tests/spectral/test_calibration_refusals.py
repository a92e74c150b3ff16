"""What cannot be calibrated is refused in one line that names the place."""

from __future__ import annotations

import copy
from types import SimpleNamespace

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.cache_utils import DynamicCache

from rotcheck import RotcheckError
from rotcheck.models.caching import cache_name
from rotcheck.spectral import SpectralCache, build_codec, calibrate_cache
from rotcheck.spectral.recorder import RecordingLayer, layer_count, recording_cache, windows

SIZES = {"vocab_size": 61, "hidden_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4, "pad_token_id": 1}
HYBRID = SIZES | {
    "intermediate_size": 80, "num_key_value_heads": 2, "layer_types": ["full_attention", "conv", "full_attention"],
}  # fmt: skip


def model_of(family, **fields):
    with torch.random.fork_rng(devices=[]):
        return AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **fields)).eval()


def test_no_batch(tiny):
    with pytest.raises(RotcheckError, match=r"^batches is empty; pass at least one batch of token ids$"):
        calibrate_cache(tiny("opt"), [])


def test_no_unmasked_token(tiny, batch_of):
    batch = batch_of(tiny("opt"), seed=0)
    batch["attention_mask"][:] = 0
    with pytest.raises(RotcheckError, match=r"^every token of every batch is masked; pass batches with unmasked"):
        calibrate_cache(tiny("opt"), [batch, batch])


def test_a_single_token(tiny):
    with pytest.raises(RotcheckError, match=r"^a single token has no variance: calibrate on more$"):
        calibrate_cache(tiny("opt"), [torch.tensor([[5]])])


def test_two_tokens_are_enough_to_build(tiny):
    """The covariance has rank one: most axes are arbitrary, and their coordinates get no bits."""
    codec = build_codec(calibrate_cache(tiny("opt"), [torch.tensor([[5, 9]])]))
    assert all(path.axes.splits == (1, 1, 1, 1) for path in codec.keys)


@pytest.mark.parametrize(
    ("batch", "says"),
    [
        ({"input_ids": torch.zeros(2, 3)}, "batch 1: input_ids is torch.float32"),
        (torch.full((2, 3), 61), "batch 1: token id 61 is outside the vocabulary of 61"),
        (torch.zeros(2, 97, dtype=torch.long), "batch 1: 97 tokens, the model takes 96"),
    ],
)
def test_a_malformed_batch_is_numbered(batch, says, tiny):
    with pytest.raises(RotcheckError, match=says):
        calibrate_cache(tiny("opt"), [torch.full((2, 3), 4), batch])


@pytest.mark.parametrize(("projection", "kind"), [("k_proj", "keys"), ("v_proj", "values")])
def test_numbers_that_are_not_finite_are_placed(projection, kind, tiny, batch_of):
    model = copy.deepcopy(tiny("llama"))
    with torch.no_grad():
        getattr(model.model.layers[1].self_attn, projection).weight[25] = float("inf")  # in head 1 of width 20
    with pytest.raises(RotcheckError, match=rf"^batch 0: the {kind} of layer 1 are not finite at head 1: run the"):
        calibrate_cache(model, [batch_of(model, seed=0)])


def test_numbers_under_the_mask_may_be_anything(tiny, batch_of):
    """A visitor's view: the first token of a padded row is NaN."""
    model = copy.deepcopy(tiny("llama"))
    batch = batch_of(model, seed=0)
    plain = calibrate_cache(model, [batch])
    with torch.no_grad():
        model.model.embed_tokens.weight[1] = float("nan")  # the padding token
    assert not batch["attention_mask"][batch["input_ids"] == 1].any()
    hook = model.model.layers[0].register_forward_hook(lambda m, a, out: out.nan_to_num())
    found = calibrate_cache(model, [batch]).keys[0].moments.outer
    hook.remove()
    assert found.isfinite().all()
    torch.testing.assert_close(found, plain.keys[0].moments.outer)


def test_layers_that_keep_a_state_are_named():
    model = model_of("lfm2", **HYBRID)
    says = r"^layer 1 of 3 uses LinearAttentionLayer, which holds more than keys and values, and cannot be calibrated"
    with pytest.raises(RotcheckError, match=says):
        calibrate_cache(model, [torch.full((2, 3), 4)])


def test_layers_that_share_keys_are_named(tiny, codec_of):
    """As Gemma 3n declares them: the last layers read what an earlier one wrote."""
    fields = {"num_kv_shared_layers": 2, "vocab_size_per_layer_input": 61, "hidden_size_per_layer_input": 6}
    fields |= {"head_dim": 20, "num_key_value_heads": 2, "intermediate_size": 80, "laurel_rank": 5}
    layers = {"num_hidden_layers": 5, "layer_types": ["full_attention"] * 5}
    try:
        config = AutoConfig.for_model("gemma3n_text", **SIZES | fields | layers)
    except (TypeError, ValueError) as error:  # a release that names the fields differently
        pytest.skip(str(error))
    says = r"^layer 3 of 5 stores no keys: it shares those of another layer or has no attention, and cannot be calibr"
    with pytest.raises(RotcheckError, match=says):
        windows(config)


def test_encoder_decoders_are_refused():
    config = AutoConfig.for_model("t5", d_model=48, num_layers=2, num_heads=4, vocab_size=61)
    with pytest.raises(RotcheckError, match=r"^T5Config is of an encoder-decoder, whose cache is two: pass a decoder$"):
        windows(config)


def test_layers_of_an_unknown_type_are_named(tiny):
    config = copy.deepcopy(tiny("llama").config)
    config.layer_types = ["full_attention", "odd", "full_attention"]
    with pytest.raises(RotcheckError, match=r"^LlamaConfig has layers of a type 'odd' that no cache is known for$"):
        windows(config)


def test_a_layer_that_writes_nothing_is_named(tiny, batch_of):
    """Whatever its configuration says."""
    model = copy.deepcopy(tiny("llama"))
    attention = model.model.layers[2].self_attn
    stock, name = attention.forward, cache_name(attention)
    attention.forward = lambda *args, **kwargs: stock(*args, **kwargs | {name: None})
    with pytest.raises(RotcheckError, match=r"^layers 2 of 3 wrote no keys to the cache: they share those of another"):
        calibrate_cache(model, [batch_of(model, seed=0)])


def test_a_layer_that_writes_twice_is_named(tiny, batch_of):
    """Keys and values would be counted twice, and sampled at the wrong places."""
    model = copy.deepcopy(tiny("llama"))
    attention = model.model.layers[1].self_attn
    stock = attention.forward
    attention.forward = lambda *args, **kwargs: stock(*args, **kwargs) and stock(*args, **kwargs)
    with pytest.raises(RotcheckError, match=r"^layer 1 wrote keys twice in one pass: it cannot be calibrated$"):
        calibrate_cache(model, [batch_of(model, seed=0)])


def test_tokens_that_are_not_those_of_the_batch_are_refused(tiny, batch_of):
    model = copy.deepcopy(tiny("llama"))
    model.model.layers[0].register_forward_pre_hook(
        lambda m, args, kwargs: ((args[0][:1], *args[1:]), kwargs | {"attention_mask": None}), with_kwargs=True
    )
    with pytest.raises(
        RotcheckError, match=r"batch 0: the (keys|values) of layer 0 have shape \(1, 2, 13, 20\), expected"
    ):
        calibrate_cache(model, [batch_of(model, seed=0)])


@pytest.mark.parametrize("count", [None, 0, "3"])
def test_a_configuration_without_layers(count):
    config = SimpleNamespace(num_hidden_layers=count)
    with pytest.raises(
        RotcheckError, match=r"^SimpleNamespace has no num_hidden_layers: pass a decoder's configuration$"
    ):
        layer_count(config)


@pytest.mark.parametrize(
    ("family", "expected"),
    [("llama", (None, None, None)), ("mistral", (7, 7, 7)), ("gemma3_text", (6, None, 6)), ("opt", (None,) * 3)],
)
def test_windows_are_those_of_the_stock_cache(family, expected, tiny, codec_of):
    model = tiny(family)
    assert windows(model.config) == expected
    stock = [getattr(layer, "sliding_window", None) for layer in DynamicCache(config=model.config).layers]
    assert tuple(stock or [None] * 3) == expected
    cache = SpectralCache(codec_of(family), model.config)
    assert tuple(getattr(layer, "sliding_window", None) for layer in cache.layers) == expected


def test_the_recording_cache_keeps_nothing(tiny):
    seen = []
    cache = recording_cache(tiny("llama").config, lambda *given: seen.append(given))
    keys, values = torch.ones(2, 3, 4, 5), torch.zeros(2, 3, 4, 6)
    assert all(isinstance(layer, RecordingLayer) for layer in cache.layers)
    assert cache.update(keys, values, 1) == (keys, values)
    assert seen == [(1, keys, values)]
    assert cache.get_seq_length() == 0
    assert cache.layers[1].keys is None
