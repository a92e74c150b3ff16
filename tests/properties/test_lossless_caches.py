"""A cache that only rotates is no cache at all."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.cache_utils import DynamicCache

from rotcheck.models.adversarial import adversarial_batch
from rotcheck.models.caching import with_cache
from rotcheck.spectral import Settings, SpectralCache, build_codec, calibrate_cache
from rotcheck.strategies import adversarial_models, seeds
from rotcheck.tolerance import Tolerance


@settings(deadline=None, max_examples=8)
@given(
    model=adversarial_models(),
    seed=seeds(),
    rotation=st.sampled_from(["spectral", "none", "haar"]),
    centred=st.booleans(),
    prompt=st.integers(1, 8),
)
def test_rotations_alone_change_no_logit(model, seed, rotation, centred, prompt):
    """``f(x; U^T U cache) = f(x; cache)``, in a prompt and token by token behind it, whatever it was calibrated on."""
    batch = adversarial_batch(model, seed=seed, length=10)
    calibration = calibrate_cache(model, [adversarial_batch(model, seed=seed // 2, length=5)], sample=2)
    # one bit, because the tables are thrown away
    fields = Settings(bits=1.0, rotation=rotation, centred=centred, seed=seed, codebook="minmax")
    codec = build_codec(calibration, fields).lossless()
    logits = []
    for cache in (DynamicCache(config=model.config), SpectralCache(codec, model.config)):
        steps, start = [], 0
        for end in (prompt, prompt + 1, 10):
            part = {"input_ids": batch["input_ids"][:, start:end], "attention_mask": batch["attention_mask"][:, :end]}
            with torch.no_grad():
                steps.append(model(**part, use_cache=True, **with_cache(model, cache)).logits)
            start = end
        logits.append(torch.cat(steps, dim=1)[batch["attention_mask"].bool()])
    config = model.config
    terms = config.hidden_size * (2 * config.num_hidden_layers + 1)
    allowed = Tolerance(storage="float64", length=terms, kappa=config.hidden_size**0.5).value
    assert (logits[1] - logits[0]).abs().max() <= allowed * logits[0].abs().max()
