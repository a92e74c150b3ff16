"""A model on a GPU: calibrated there, with tables on the CPU that follow its keys."""

from __future__ import annotations

import copy

import pytest
import torch

from rotcheck.models.caching import with_cache
from rotcheck.spectral import SpectralCache, attention_errors, build_codec, calibrate_cache

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module")
def model(tiny):
    return copy.deepcopy(tiny("llama", torch.float32)).to("cuda")


def test_calibration_ends_on_the_cpu(model, tiny, batch_of):
    batches = [batch_of(model, seed=seed) for seed in range(2)]
    found, expected = calibrate_cache(model, batches), calibrate_cache(tiny("llama", torch.float32), batches)
    for one, two in zip((*found.keys, *found.values), (*expected.keys, *expected.values), strict=True):
        assert one.rows.device.type == one.moments.outer.device.type == "cpu"
        torch.testing.assert_close(one.moments.outer, two.moments.outer, rtol=1e-3, atol=1e-3)


def test_a_codec_from_the_cpu_works_there(model, batch_of):
    batch = batch_of(model, seed=0)
    codec = build_codec(calibrate_cache(model, [batch]))
    inputs = {name: tensor.to("cuda") for name, tensor in batch.items()}
    logits = []
    for some in (codec, codec.to("cuda")):
        cache = SpectralCache(some, model.config)
        with torch.no_grad():
            logits.append(model(**inputs, use_cache=True, **with_cache(model, cache)).logits)
        assert all(layer.keys.device.type == "cuda" for layer in cache.layers)
        for layer in cache.layers:
            layer.offload()
            assert layer.keys.device.type == "cpu"
            layer.prefetch()
            assert layer.keys.device.type == "cuda"
    assert torch.equal(*logits)
    assert (attention_errors(model, {"codec": codec}, [batch])["codec"] > 0).all()
