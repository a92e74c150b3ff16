"""The error of each layer's attention, with everything else exact."""

from __future__ import annotations

import copy

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from rotcheck import RotcheckError
from rotcheck.spectral import Settings, attention_errors
from rotcheck.tolerance import Tolerance

FAMILIES = ("opt", "llama", "mistral", "qwen3", "phi", "gemma3_text")


@pytest.mark.parametrize("family", FAMILIES)
def test_without_codes_there_is_rounding_only(family, tiny, batch_of, codec_of):
    model = tiny(family)
    found = attention_errors(model, {"plain": codec_of(family).lossless()}, [batch_of(model, seed=1)])["plain"]
    assert found.shape == (3,)
    assert found.dtype == torch.float64
    assert (found <= Tolerance(storage="float64", length=2 * 20 + 13).value).all()


@pytest.mark.parametrize("family", FAMILIES)
def test_fewer_bits_are_worse_in_every_layer(family, tiny, batch_of, codec_of):
    model = tiny(family)
    codecs = {
        str(bits): codec_of(family, torch.float64, Settings(bits=bits, codebook="gaussian")) for bits in (1, 3, 6)
    }
    found = attention_errors(model, codecs, [batch_of(model, seed=1)])
    assert list(found) == ["1", "3", "6"]
    assert (found["1"] > found["3"]).all()
    assert (found["3"] > found["6"]).all()
    assert (found["6"] > 1e-4).all()


def attention(query, keys, values, tokens, window=None):
    """Softmax over the unmasked tokens up to each one, written out, for the query heads of each KV head in turn."""
    repeats = query.shape[1] // keys.shape[1]
    out = torch.zeros(*query.shape[:3], values.shape[-1], dtype=torch.float64)
    for row in range(query.shape[0]):
        for head in range(query.shape[1]):
            for t in range(query.shape[2]):
                first = 0 if window is None else max(0, t - window + 1)
                seen = [s for s in range(first, t + 1) if tokens[row, s]]
                if seen:
                    k, v = keys[row, head // repeats, seen], values[row, head // repeats, seen]
                    weights = (k @ query[row, head, t] / query.shape[-1] ** 0.5).softmax(0)
                    out[row, head, t] = weights @ v
    return out


@pytest.mark.parametrize("family", ["opt", "llama", "mistral"])
@pytest.mark.parametrize("padded", [False, True])
def test_against_a_direct_computation(family, padded, tiny, batch_of, codec_of):
    """Of the first layer, with queries, keys and values taken at the call of attention."""
    model, codec = tiny(family), codec_of(family, torch.float64, Settings(bits=2.0))
    batch = batch_of(model, seed=1, padded=padded)
    calls = []

    class Watch(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            if func is scaled_dot_product_attention:
                calls.append((args, kwargs))
            return func(*args, **(kwargs or {}))

    with torch.no_grad(), Watch():
        positions = (batch["attention_mask"].cumsum(-1) - 1).clamp(min=0)
        model(**batch, position_ids=positions, use_cache=False)
    (query, keys, values), kwargs = calls[0][0][:3], calls[0][1]
    if family == "opt":  # scales its queries beforehand
        query = query * query.shape[-1] ** 0.5 * (kwargs.get("scale") or query.shape[-1] ** -0.5)
    repeats = keys.shape[1] // codec.keys[0].heads
    held = keys[:, ::repeats], values[:, ::repeats]
    coded = [path.decode(path.encode(x)) for path, x in zip((codec.keys[0], codec.values[0]), held, strict=True)]
    tokens, window = batch["attention_mask"].bool(), getattr(model.config, "sliding_window", None)
    exact, found = (attention(query, *pair, tokens, window).transpose(1, 2)[tokens] for pair in (held, coded))
    expected = ((found - exact).norm() / exact.norm()).item()
    error = attention_errors(model, {"codec": codec}, [batch])["codec"][0].item()
    assert error == pytest.approx(expected, rel=1e-9)


def test_batches_are_pooled_and_padding_is_not_counted(tiny, batch_of, codec_of):
    """One padded batch, and its rows alone."""
    model, codecs = tiny("llama"), {"codec": codec_of("llama")}
    batch = batch_of(model, seed=1)
    alone = [
        ids[mask.bool()].unsqueeze(0) for ids, mask in zip(batch["input_ids"], batch["attention_mask"], strict=True)
    ]
    together, apart = (attention_errors(model, codecs, batches)["codec"] for batches in ([batch], alone))
    torch.testing.assert_close(together, apart, rtol=1e-9, atol=0)


def test_a_row_without_tokens_is_not_counted(tiny, batch_of, codec_of):
    model, codecs = tiny("llama"), {"codec": codec_of("llama")}
    batch = batch_of(model, seed=1)
    batch["attention_mask"][1] = 0
    fewer = {name: tensor[[0, 2]] for name, tensor in batch.items()}
    one, two = (attention_errors(model, codecs, [some])["codec"] for some in (batch, fewer))
    torch.testing.assert_close(one, two, rtol=1e-9, atol=0)


def test_layers_do_not_influence_one_another(tiny, batch_of, codec_of):
    """With codes in the middle layer alone, only its error is there, and it is as large as with codes everywhere."""
    model, codec = tiny("llama"), codec_of("llama", torch.float64, Settings(bits=2.0))
    plain = codec.lossless()
    keys, values = ((one[0], two[1], one[2]) for one, two in ((plain.keys, codec.keys), (plain.values, codec.values)))
    middle = type(codec)(keys=keys, values=values, model=codec.model, settings=codec.settings)
    found = attention_errors(model, {"all": codec, "middle": middle}, [batch_of(model, seed=1)])
    assert found["middle"][1] == found["all"][1]
    assert (found["middle"][[0, 2]] < 1e-13).all()
    assert (found["all"] > 0.01).all()


def test_codecs_do_not_influence_one_another_nor_the_model(tiny, batch_of, codec_of):
    model = tiny("llama")
    batch = batch_of(model, seed=1)
    one, two = codec_of("llama"), codec_of("llama", torch.float64, Settings(bits=2.0))
    with torch.no_grad():
        before = model(**batch).logits
    both = attention_errors(model, {"one": one, "two": two}, [batch])
    assert torch.equal(both["one"], attention_errors(model, {"x": one}, [batch])["x"])
    assert torch.equal(both["two"], attention_errors(model, {"x": two}, [batch])["x"])
    with torch.no_grad():
        assert torch.equal(model(**batch).logits, before)


@pytest.mark.parametrize("which", ["keys", "values"])
def test_keys_and_values_both_count(which, tiny, batch_of, codec_of):
    model, codec = tiny("llama"), codec_of("llama", torch.float64, Settings(bits=2.0))
    plain = codec.lossless()
    paths = {"keys": plain.keys, "values": plain.values} | {which: getattr(codec, which)}
    half = type(codec)(**paths, model=codec.model, settings=codec.settings)
    found = attention_errors(model, {"half": half, "all": codec}, [batch_of(model, seed=1)])
    assert (found["half"] > 0.005).all()
    assert (found["half"] < found["all"]).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_coarser_models(dtype, tiny, batch_of, codec_of):
    model, codec = tiny("llama", dtype), codec_of("llama")
    batch = batch_of(model, seed=1)
    found = attention_errors(model, {"codec": codec, "plain": codec.lossless()}, [batch])
    exact = attention_errors(tiny("llama"), {"codec": codec}, [batch])["codec"]
    torch.testing.assert_close(found["codec"], exact, rtol=0.05, atol=0)
    assert (found["plain"] <= Tolerance(storage=str(dtype).removeprefix("torch."), length=20).value).all()


def test_eager_attention_cannot_be_watched(tiny, batch_of, codec_of):
    model = copy.deepcopy(tiny("llama"))
    model.set_attn_implementation("eager")
    with pytest.raises(
        RotcheckError, match=r"^no attention was seen in layer 0: load the model with attn_implementation="
    ):
        attention_errors(model, {"codec": codec_of("llama")}, [batch_of(model, seed=1)])


def test_latent_attention_is_refused_by_name(tiny, batch_of, codec_of):
    model = tiny("deepseek_v3")
    says = r"^layer 0 stores keys \(3, 1, 13, 14\) and attends with \(3, 4, 13, 16\): the error of latent attention"
    with pytest.raises(RotcheckError, match=says):
        attention_errors(model, {"codec": codec_of("deepseek_v3")}, [batch_of(model, seed=1)])


def test_the_codec_of_another_model_is_refused(tiny, batch_of, codec_of):
    with pytest.raises(RotcheckError, match="model type opt, this model has llama"):
        attention_errors(tiny("llama"), {"codec": codec_of("opt")}, [batch_of(tiny("llama"), seed=1)])


def test_the_mode_comes_back(tiny, batch_of, codec_of):
    model = copy.deepcopy(tiny("opt")).train()
    attention_errors(model, {"codec": codec_of("opt")}, [batch_of(model, seed=1)])
    assert all(module.training for module in model.modules())
