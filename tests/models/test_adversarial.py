"""The adversarial model hides nothing: no gain is one, no bias zero, no mean removed, no two sizes equal."""

from __future__ import annotations

import pytest
import torch

from rotcheck.models.adversarial import adversarial_batch, adversarial_opt


def test_gains_biases_and_embedding_means_are_all_visible():
    model = adversarial_opt(seed=0)
    for name, parameter in model.named_parameters():
        if name.endswith("norm.weight"):
            assert 0.1 < (parameter - 1).std() < 0.6, name
        elif name.endswith("bias"):
            assert 0.1 < parameter.std() < 0.6, name
        elif "embed_" in name:
            assert parameter.mean(dim=1).abs().median() > 0.05, name


def test_logits_are_of_order_one_to_ten():
    model = adversarial_opt(seed=1)
    batch = adversarial_batch(model, seed=2)
    with torch.no_grad():
        logits = model(**batch).logits[batch["attention_mask"].bool()]
    assert 0.5 < logits.std() < 10
    assert torch.isfinite(logits).all()


@pytest.mark.parametrize("tied", [True, False])
def test_tying_is_as_asked(tied):
    model = adversarial_opt(seed=0, tied=tied)
    assert (model.lm_head.weight is model.model.decoder.embed_tokens.weight) is tied


def test_sizes_differ_pairwise():
    c = adversarial_opt(seed=0).config
    sizes = [c.hidden_size, c.ffn_dim, c.vocab_size, c.max_position_embeddings, c.hidden_size // c.num_attention_heads]
    assert len(set(sizes)) == len(sizes)
    assert c.hidden_size & (c.hidden_size - 1)


def test_the_seed_decides_and_the_global_state_is_left_alone():
    before = torch.get_rng_state()
    first, again, other = (adversarial_opt(seed=seed).state_dict() for seed in (3, 3, 4))
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not any(torch.equal(first[name], other[name]) for name in first)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_dtype_mode_and_attention(dtype):
    model = adversarial_opt(seed=0, dtype=dtype)
    assert {parameter.dtype for parameter in model.parameters()} == {dtype}
    assert not any(module.training for module in model.modules())
    assert model.config._attn_implementation == "sdpa"


def test_rows_are_left_padded_by_different_lengths():
    model = adversarial_opt(seed=0)
    batch = adversarial_batch(model, seed=5, batch=6, length=9)
    lengths = batch["attention_mask"].sum(dim=1)
    assert len(set(lengths.tolist())) == 6
    assert lengths.min() >= 1
    assert (batch["attention_mask"].diff(dim=1) >= 0).all()
    assert (batch["input_ids"][batch["attention_mask"] == 0] == model.config.pad_token_id).all()


def test_every_token_can_be_drawn():
    model = adversarial_opt(seed=0)
    drawn = adversarial_batch(model, seed=0, batch=100, length=60, padded=False)["input_ids"]
    assert set(drawn.flatten().tolist()) == set(range(model.config.vocab_size))
