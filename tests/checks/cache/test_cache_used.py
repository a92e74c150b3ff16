"""cache_used: what is measured with a cache is measured with that cache, and its bits count."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
import torch
from transformers.cache_utils import DynamicCache, DynamicLayer, StaticCache

from rotcheck import CacheRotation
from rotcheck.defects import _spectral as planted
from rotcheck.spectral import Settings, build_codec
from rotcheck.spectral.cache import SpectralLayer

DTYPES = ("float64", "float32", "float16", "bfloat16")


class Returning(SpectralLayer):
    """Writes codes, and gives back what it was given."""

    plain: DynamicLayer | None = None

    def update(self, key_states, value_states, *args, **kwargs):
        super().update(key_states, value_states)
        self.plain = self.plain or DynamicLayer()
        return self.plain.update(key_states, value_states)


def test_the_right_cache_moves_the_logits(judge, right):
    verdict = judge("cache_used", right)
    assert verdict.outcome.value == "passed"
    assert verdict.claim.error == 0.0
    facts = dict(verdict.facts)
    assert facts["logits moved"] > 100 * facts["explained by rounding"]


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_cache_that_gives_back_its_input_is_not_used(judge, found, strangers, make_model, dtype):
    model = make_model("llama", 0, getattr(torch, dtype))
    subject = CacheRotation.from_hf(
        model, lambda: replace_layers(found, model), inputs=planted.tokens(2), heads={}, name="s"
    )
    verdict = judge("cache_used", subject)
    assert verdict.headline.startswith("s is not used: the logits differ from those with a plain cache by 0.0e+00, ")
    assert "count the calls" in verdict.hint


def replace_layers(found, model):
    made = found.cache(found.codec, Returning)
    assert model.config.num_hidden_layers == len(made.layers)
    return made


@pytest.mark.parametrize(
    "make", [lambda config: DynamicCache(config=config), lambda config: StaticCache(config=config, max_cache_len=40)]
)
def test_plain_caches_are_not_used(judge, found, make):
    subject = CacheRotation.from_hf(found.model, lambda: make(found.model.config), inputs=found.batch)
    assert "is not used" in judge("cache_used", subject).headline


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("bits", [8, 3])
def test_a_fine_code_is_used_in_every_dtype(judge, strangers, make_model, dtype, bits):
    """In bfloat16 the error of eight bits is below the rounding of the model itself."""
    subject = strangers.subject(make_model("llama", 5, getattr(torch, dtype)), planted.tokens(5), bits=bits)
    verdict = judge("cache_used", subject)
    assert verdict.outcome.value == "passed", str(verdict)


def test_rotating_alone_is_no_compression(judge, strangers, found):
    subject = replace(strangers.subject(found.model, found.batch), cache=strangers.cache(None), coarse=None)
    assert "is not used" in judge("cache_used", subject).headline


class Bfloat16Only(SpectralLayer):
    """A kernel that takes one dtype."""

    gives_input = False

    def update(self, key_states, value_states, *args, **kwargs):
        if key_states.dtype is not torch.bfloat16:
            raise TypeError("expected bfloat16")
        layer = Returning if self.gives_input else SpectralLayer
        return layer.update(self, key_states, value_states)


@pytest.mark.parametrize(("gives_input", "outcome"), [(False, "passed"), (True, "failed")])
def test_a_kernel_for_sixteen_bits_alone_is_judged_in_them(judge, found, make_model, gives_input, outcome):
    class Layer(Bfloat16Only, Returning):
        pass

    Layer.gives_input = gives_input
    model = make_model("llama", 0, torch.bfloat16)
    subject = CacheRotation.from_hf(model, lambda: found.cache(found.codec, Layer), inputs=planted.tokens(2), heads={})
    verdict = judge("cache_used", subject)
    assert verdict.outcome.value == outcome, str(verdict)


def test_a_cache_that_raises_in_the_models_own_dtype_fails(judge, found):
    subject = planted.subject(found, layer=Bfloat16Only, name="s")
    assert judge("cache_used", subject).headline == "s cannot be run: s raised TypeError: expected bfloat16"


def test_equal_bits_are_without_effect(judge, found):
    verdict = judge("cache_used", planted.subject(found, coarse=lambda: found.cache(found.codec), name="s"))
    sizes = r"s has bits without effect: keys and values change by 0.11\d of their size, with the fewest bits by 0.11\d"
    assert re.fullmatch(sizes, verdict.headline)
    assert "number of bits reaches the codes" in verdict.hint


def test_rounding_is_no_effect_of_bits(judge, found):
    class Jittered(SpectralLayer):
        def update(self, keys, values, *args, **kwargs):
            back, decoded = super().update(keys, values)
            return keys + (back - keys) * (1 + 6e-7), values + (decoded - values) * (1 + 6e-7)

    verdict = judge("cache_used", planted.subject(found, coarse=lambda: found.cache(found.codec, Jittered), name="s"))
    assert verdict.headline.startswith("s has bits without effect")


def test_a_cache_worse_than_the_coarsest_gains_nothing(judge, found):
    fine = build_codec(found.calibration, Settings(bits=6.0, codebook="gaussian"))
    subject = planted.subject(found, coarse=lambda: found.cache(fine), name="s")
    assert judge("cache_used", subject).headline.startswith("s gains nothing from its bits: keys and values change by ")


@pytest.mark.parametrize("bits", [2.0, 6.0])
def test_more_bits_are_better_than_one(judge, found, bits):
    codec = build_codec(found.calibration, Settings(bits=bits, codebook="gaussian"))
    verdict = judge("cache_used", planted.subject(found, codec, claimed=codec))
    assert verdict.outcome.value == "passed", str(verdict)


def test_without_a_coarser_cache_use_alone_is_judged(judge, right):
    verdict = judge("cache_used", replace(right, coarse=None))
    assert verdict.outcome.value == "passed"
    assert [name for name, _ in verdict.facts] == ["logits moved", "explained by rounding"]


def test_logits_that_are_not_finite_are_no_use(judge, strangers, strangers_layer, found):
    class Spoilt(strangers_layer):
        def update(self, keys, values, *args, **kwargs):
            back, decoded = super().update(keys, values)
            return back, decoded * float("nan")

    subject = replace(strangers.subject(found.model, found.batch), cache=strangers.cache(8, Spoilt), name="s")
    verdict = judge("cache_used", subject)
    assert verdict.headline == "s gives logits that are not finite"
    assert "a norm or a range of zero" in verdict.hint


def test_sliding_windows(judge, strangers, sliding):
    verdict = judge("cache_used", strangers.subject(sliding, planted.tokens(3)))
    assert verdict.outcome.value == "passed", str(verdict)


def test_a_coarse_cache_of_other_heads_is_named(judge, found):
    class Doubled(SpectralLayer):
        def update(self, keys, values, *args, **kwargs):
            return tuple(x.repeat_interleave(2, 1) for x in super().update(keys, values))

    verdict = judge("cache_used", planted.subject(found, coarse=lambda: found.cache(found.coarse, Doubled), name="s"))
    assert verdict.headline == "s cannot be run: s, coarse gives back (3, 4, 14, 20) for (3, 2, 14, 20)"


def test_it_needs_a_cache(judge, right):
    assert judge("cache_used", CacheRotation(right.heads, name="s")).headline == "s does not supply cache"
