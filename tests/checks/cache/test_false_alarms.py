"""No right cache is failed, in any dtype, on any of these models; and a plain one is failed for being plain alone."""

from __future__ import annotations

import pytest
import torch
from transformers.cache_utils import DynamicCache, StaticCache

from rotcheck import CacheRotation
from rotcheck.defects import _spectral as planted
from rotcheck.spectral import Settings, calibrate_cache
from rotcheck.subjects.spectral import spectral_cache

DTYPES = ("float64", "float32", "float16", "bfloat16")
MODELS = [("llama", dtype) for dtype in DTYPES] + [
    (kind, dtype) for kind in ("phi", "mistral") for dtype in DTYPES[1::2]
]
SETTINGS = (
    Settings(bits=8.0, codebook="gaussian"),
    Settings(bits=1.0),
    Settings(bits=4.0, centred=False, normalize=True, codebook="uniform"),
    Settings(bits=3.0, rotation="haar", codebook="gaussian"),
    Settings(bits=2.0, rotation="haar", ordered=False, codebook="gaussian"),
    Settings(bits=3.0, sketch=16, codebook="gaussian"),
    Settings(allocation="4/2", codebook="minmax"),
    Settings(bits=2.5, value_bits=4.0, allocation="two-regimes", codebook="regime"),
)


@pytest.mark.parametrize(("kind", "dtype"), MODELS)
def test_our_own_cache(outcomes, make_model, kind, dtype):
    model = make_model(kind, 3, getattr(torch, dtype))
    calibration = calibrate_cache(model, [planted.tokens(9, rows=8, length=36, padded=False)])
    said = outcomes(spectral_cache(model, calibration, planted.SETTINGS, inputs=planted.tokens(3)))
    assert set(said.values()) == {"passed"}, said
    assert ("rotary_blocks" in said) == (kind == "phi")
    assert len(said) >= 13


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_our_own_cache_in_every_setting(outcomes, found, settings):
    said = outcomes(spectral_cache(found.model, found.calibration, settings, inputs=found.batch))
    assert set(said.values()) == {"passed"}, said


@pytest.mark.parametrize(("kind", "dtype"), MODELS)
def test_a_strangers_cache_that_rotates_in_float32(outcomes, strangers, make_model, kind, dtype):
    model = make_model(kind, 3, getattr(torch, dtype))
    said = outcomes(strangers.subject(model, planted.tokens(3), bits=4 if kind == "phi" else 8))
    assert set(said.values()) == {"passed"}, said
    assert len(said) >= 10


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", ["llama", "mistral"])
def test_a_plain_cache_is_failed_for_not_compressing_alone(outcomes, make_model, kind, dtype):
    model = make_model(kind, 3, getattr(torch, dtype))
    make = lambda: DynamicCache(config=model.config)  # noqa: E731
    size = 3 * 2 * 2 * 20 * model.dtype.itemsize
    subject = CacheRotation.from_hf(model, make, inputs=planted.tokens(3), lossless=make, bytes_per_token=size)
    assert outcomes(subject) == {
        "lossless_cache": "passed",
        "streaming": "passed",
        "cache_used": "failed",
        "cache_bytes": "passed",
    }


def test_a_cache_that_makes_its_layers_as_they_come(outcomes, found):
    subject = CacheRotation.from_hf(found.model, DynamicCache, inputs=found.batch, lossless=DynamicCache)
    assert outcomes(subject) == {"lossless_cache": "passed", "streaming": "passed", "cache_used": "failed"}


@pytest.mark.parametrize("kind", ["llama", "mistral"])
def test_a_static_cache(outcomes, make_model, kind):
    model = make_model(kind, 3, torch.float32)
    make = lambda: StaticCache(config=model.config, max_cache_len=40)  # noqa: E731
    subject = CacheRotation.from_hf(model, make, inputs=planted.tokens(3), lossless=make, bytes_per_token=96)
    assert outcomes(subject) == {
        "lossless_cache": "passed",
        "streaming": "passed",
        "cache_used": "failed",
        "cache_bytes": "undecided",
    }


@pytest.mark.parametrize("form", ["unpadded", "one row", "right-padded", "long", "two tokens", "several"])
def test_inputs_of_every_form(outcomes, strangers, found, form):
    ids = planted.tokens(4, rows=3, length=14, padded=False)["input_ids"]
    right = torch.arange(14).expand(3, -1) < torch.tensor([14, 9, 4])[:, None]
    inputs = {
        "unpadded": ids,
        "one row": ids[:1],
        "right-padded": {"input_ids": ids * right, "attention_mask": right.long()},
        "long": planted.tokens(4, rows=2, length=60),
        "two tokens": ids[:, :2],
        "several": [ids, planted.tokens(4)],
    }[form]
    said = outcomes(strangers.subject(found.model, inputs))
    assert set(said.values()) == {"passed"}, said


def test_attention_of_another_kind(outcomes, strangers, found, make_model):
    model = make_model("llama", 3, torch.float32)
    model.set_attn_implementation("eager")
    said = outcomes(strangers.subject(model, planted.tokens(3)))
    assert set(said.values()) == {"passed"}, said
