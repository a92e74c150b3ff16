"""At full width a rotated model is the same function, for every grouping and every independent random basis."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rotcheck.models.adversarial import adversarial_batch, adversarial_opt
from rotcheck.slicing import random_plan, rotate_and_slice

LAYERS = 4
GROUPINGS = ["per-layer", "global", *(f"k-block:{k}" for k in range(1, LAYERS + 1))]
VARIANTS = {
    "tied": {},
    "untied": {"tied": False},
    "projected": {"word_embed_proj_dim": 24},
    "projected untied": {"word_embed_proj_dim": 24, "tied": False},
    "without biases": {"enable_bias": False},
    "projected without biases": {"word_embed_proj_dim": 56, "enable_bias": False},
}


@pytest.fixture(scope="module", params=VARIANTS, ids=lambda name: name.replace(" ", "-"))
def subject(request, logits_of):
    model = adversarial_opt(seed=11, layers=LAYERS, **VARIANTS[request.param])
    batch = adversarial_batch(model, seed=12)
    return model, batch, logits_of(model, batch)


@pytest.mark.parametrize(
    ("grouping", "change"),
    [
        (grouping, change)
        for grouping in GROUPINGS
        for change in ("mlp", "attention")
        if ":" in grouping or change == "mlp"
    ],
)
def test_logits_are_unchanged(subject, grouping, change, logits_of, logit_error):
    model, batch, expected = subject
    plan = random_plan(40, LAYERS, grouping, seed=13, change=change)
    rotated = rotate_and_slice(model, plan)
    assert logit_error(logits_of(rotated, batch), expected, batch) <= 1e-12


@settings(deadline=None, max_examples=12)
@given(
    seed=st.integers(0, 2**31),
    layers=st.integers(1, 5),
    heads=st.integers(1, 4),
    head_dim=st.integers(2, 7),
    k=st.integers(1, 5),
    change=st.sampled_from(["mlp", "attention"]),
)
def test_at_any_size(seed, layers, heads, head_dim, k, change, logits_of, logit_error):
    hidden = heads * head_dim
    model = adversarial_opt(seed=seed, layers=layers, hidden_size=hidden, heads=heads, ffn_dim=19, vocab_size=23)
    batch = adversarial_batch(model, seed=seed, batch=2, length=5)
    plan = random_plan(hidden, layers, f"k-block:{min(k, layers)}", seed=seed, change=change)
    assert logit_error(logits_of(rotate_and_slice(model, plan), batch), logits_of(model, batch), batch) <= 1e-12


def test_without_a_mask(subject, logits_of, logit_error):
    model, batch, _ = subject
    ids = {"input_ids": batch["input_ids"]}
    rotated = rotate_and_slice(model, random_plan(40, LAYERS, "per-layer", seed=5))
    whole = {"attention_mask": batch["attention_mask"] * 0 + 1}
    assert logit_error(logits_of(rotated, ids), logits_of(model, ids), whole) <= 1e-12


def test_norms_without_gain_and_bias(logits_of, logit_error):
    from transformers import OPTForCausalLM

    source = adversarial_opt(seed=3)
    config = type(source.config).from_dict({**source.config.to_dict(), "layer_norm_elementwise_affine": False})
    config._attn_implementation = "sdpa"
    plain = OPTForCausalLM(config).double().eval()
    plain.load_state_dict(source.state_dict(), strict=False)
    batch = adversarial_batch(source, seed=4)
    rotated = rotate_and_slice(plain, random_plan(40, 3, "per-layer", seed=5))
    assert rotated.lm_head.bias is None
    assert logit_error(logits_of(rotated, batch), logits_of(plain, batch), batch) <= 1e-12


def test_another_eps_is_taken_over(logits_of, logit_error):
    model = adversarial_opt(seed=3)
    for layer in model.model.decoder.layers:
        layer.final_layer_norm.eps = 0.3
    batch = adversarial_batch(model, seed=4)
    rotated = rotate_and_slice(model, random_plan(40, 3, "global", seed=5))
    assert logit_error(logits_of(rotated, batch), logits_of(model, batch), batch) <= 1e-12
