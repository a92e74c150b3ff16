"""Without codes the cache is a plain one: the same logits and tokens, whatever way they are generated."""

from __future__ import annotations

import copy

import pytest
import torch
import transformers
from transformers.cache_utils import DynamicCache

from rotcheck import RotcheckError
from rotcheck.models.caching import with_cache
from rotcheck.spectral import Settings, SpectralCache
from rotcheck.tolerance import Tolerance

FAMILIES = ("opt", "llama", "mistral", "qwen3", "phi", "gpt_neox", "gemma3_text", "deepseek_v3")
SOME = ("opt", "mistral", "gemma3_text")
STEPS = 10
ASKED = {
    "max_new_tokens": STEPS, "do_sample": False, "eos_token_id": None, "output_logits": True,
    "return_dict_in_generate": True,
}  # fmt: skip


@pytest.fixture(scope="module")
def both(codec_of):
    """The same call of ``generate`` with a plain cache and with ours: two answers, and the cache."""

    def run(model, family, *, settings=None, dtype=torch.float64, **fields):
        codec = codec_of(family, dtype, settings)
        ours = SpectralCache(codec if settings else codec.lossless(), model.config)
        answers = [
            model.generate(**(ASKED | fields | with_cache(model, cache)))
            for cache in (DynamicCache(config=model.config), ours)
        ]
        return *answers, ours

    return run


def agree(plain, found, model):
    assert torch.equal(found.sequences, plain.sequences)
    one, two = (torch.stack(answer.logits).double() for answer in (found, plain))
    # RMSNorm computes in float32 in a float64 model; a difference of 1e-16 can move its result by one place
    coarse = "float32" if any("RMSNorm" in type(module).__name__ for module in model.modules()) else "float64"
    layers, width = model.config.num_hidden_layers, model.config.hidden_size
    allowed = Tolerance(storage=coarse, length=width * layers, kappa=width**0.5).value
    assert (one - two).abs().max() <= allowed * two.abs().max()


def beams(plain, found):
    assert torch.equal(found.sequences, plain.sequences)
    torch.testing.assert_close(found.sequences_scores, plain.sequences_scores)


@pytest.mark.parametrize("family", FAMILIES)
def test_greedy_in_a_padded_batch(family, tiny, batch_of, both):
    model = tiny(family)
    plain, found, cache = both(model, family, **batch_of(model, seed=1))
    agree(plain, found, model)
    assert cache.calls == (STEPS,) * 3
    assert cache.get_seq_length() == 13 + STEPS - 1


@pytest.mark.parametrize("family", FAMILIES)
def test_beams_reorder_it(family, tiny, batch_of, both):
    model = tiny(family)
    beams(*both(model, family, num_beams=3, **batch_of(model, seed=1))[:2])


@pytest.mark.parametrize("family", SOME)
def test_several_answers_repeat_it(family, tiny, batch_of, both):
    model = tiny(family)
    plain, found, _ = both(model, family, num_beams=4, num_return_sequences=2, **batch_of(model, seed=1))
    assert plain.sequences.shape[0] == 6
    beams(plain, found)


@pytest.fixture
def crops(monkeypatch):
    """How many tokens the cache was asked to remove, each time."""
    seen, stock = [], SpectralCache.crop
    monkeypatch.setattr(SpectralCache, "crop", lambda cache, count: seen.append(count) or stock(cache, count))
    return seen


@pytest.mark.parametrize("family", SOME)
def test_prompt_lookup_crops_it(family, tiny, both, crops):
    model = tiny(family)
    ids = torch.tensor([[5, 9, 31, 7, 12, 5, 9, 31, 7, 12, 5, 9, 31]])
    plain, found, cache = both(model, family, prompt_lookup_num_tokens=3, input_ids=ids)
    assert torch.equal(found.sequences, plain.sequences)
    assert any(crops)
    assert cache.get_seq_length() < ids.shape[1] + STEPS


@pytest.mark.parametrize("family", SOME)
def test_assisted_decoding_crops_it(family, tiny, both, crops):
    if family == "gemma3_text" and transformers.__version__ < "5.23":
        pytest.skip("that release's own cache fails there")
    model, assistant = tiny(family), copy.deepcopy(tiny(family, torch.float64, 1))
    assistant.generation_config.num_assistant_tokens = 3
    ids = torch.tensor([[5, 9, 31, 7, 12, 44, 17, 23, 50]])
    plain, found, _ = both(model, family, assistant_model=assistant, input_ids=ids)
    assert torch.equal(found.sequences, plain.sequences)
    assert any(crops)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("family", ["opt", "llama", "phi"])
def test_coarser_models_get_their_own_numbers_back(family, dtype, tiny, batch_of, codec_of):
    """Float64 in between: what is decoded rounds to the very number that was stored, so all logits are equal."""
    model, batch = tiny(family, dtype), batch_of(tiny(family), seed=1)
    logits = []
    for cache in (DynamicCache(config=model.config), SpectralCache(codec_of(family).lossless(), model.config)):
        with torch.no_grad():
            logits.append(model(**batch, use_cache=True, **with_cache(model, cache)).logits)
        assert {layer.update(*some_of(layer, dtype))[0].dtype for layer in cache.layers} == {dtype}
    assert logits[0].dtype == dtype
    if dtype == torch.float32:  # one number in ten million lies so near a midpoint that it may round the other way
        torch.testing.assert_close(*logits, rtol=1e-5, atol=1e-5)
    else:
        assert torch.equal(*logits)


def some_of(layer, dtype):
    """Another token, in the shape that the layer takes."""
    width = layer.key_path.width if hasattr(layer, "key_path") else layer.keys.shape[-1]
    x = torch.ones(3, layer.keys.shape[1], 1, width, dtype=dtype)
    return x, x


@pytest.mark.parametrize("settings", [Settings(bits=3.0), Settings(bits=2.0, codebook="gaussian", sketch=16)], ids=str)
def test_a_coded_cache_is_used_and_not_exact(settings, tiny, batch_of, both):
    """Other logits than without codes: a compressor that is never called would give the same ones."""
    model = tiny("llama")
    plain, found, cache = both(model, "llama", settings=settings, **batch_of(model, seed=1))
    difference = torch.stack(found.logits) - torch.stack(plain.logits)
    assert difference.abs().max() > 0.01
    assert cache.calls == (STEPS,) * 3


def test_a_conversation_goes_on_in_the_same_cache(tiny, batch_of, codec_of):
    """Two turns in one cache, and both in one go, give the same last logits."""
    model, codec = tiny("llama"), codec_of("llama")
    ids = batch_of(model, seed=3, padded=False)["input_ids"]
    once, twice = (SpectralCache(codec, model.config) for _ in range(2))
    with torch.no_grad():
        whole = model(ids, use_cache=True, **with_cache(model, once)).logits
        model(ids[:, :8], use_cache=True, **with_cache(model, twice))
        rest = model(ids[:, 8:], use_cache=True, **with_cache(model, twice)).logits
    torch.testing.assert_close(rest, whole[:, 8:], rtol=1e-5, atol=1e-5)
    assert all(torch.equal(a.keys, b.keys) for a, b in zip(once.layers[:1], twice.layers[:1], strict=True))


@pytest.mark.parametrize(
    ("other", "says"),
    [
        ("qwen3", r"^this cache was calibrated on another model: model type llama, this model has qwen3; calibrate"),
        ("opt", "model type llama, this model has opt"),
    ],
)
def test_the_cache_of_another_model_is_refused(other, says, tiny, codec_of):
    with pytest.raises(RotcheckError, match=says):
        SpectralCache(codec_of("llama"), tiny(other).config)


@pytest.mark.parametrize(
    ("field", "value", "what"),
    [("num_hidden_layers", 2, "layers 3"), ("hidden_size", 40, "hidden size 48"), ("vocab_size", 60, "vocabulary 61")],
)
def test_other_sizes_are_refused(field, value, what, tiny, codec_of):
    config = copy.deepcopy(tiny("llama").config)
    setattr(config, field, value)
    with pytest.raises(RotcheckError, match=rf"{what}, this model has {value}; calibrate again$"):
        SpectralCache(codec_of("llama"), config)


def test_heads_of_another_width_are_refused_when_they_come(tiny, codec_of):
    cache = SpectralCache(codec_of("llama"), tiny("llama").config)
    with pytest.raises(
        RotcheckError, match=r"\(1, 2, 3, 12\) for a cache of 2 KV heads of width 20: it was calibrated"
    ):
        cache.update(torch.zeros(1, 2, 3, 12), torch.zeros(1, 2, 3, 12), 0)


def test_keys_that_are_not_finite_are_refused_in_one_line(tiny, batch_of, codec_of):
    model = copy.deepcopy(tiny("opt"))
    with torch.no_grad():
        model.model.decoder.layers[1].self_attn.v_proj.bias[0] = float("nan")
    asked = batch_of(model, seed=0) | with_cache(model, SpectralCache(codec_of("opt"), model.config))
    says = r"^keys or values are NaN or infinite: look at the model before the cache$"
    with pytest.raises(RotcheckError, match=says):
        model.generate(**asked, max_new_tokens=2)
