"""Fusing norms keeps the function, and makes the stream free of its mean."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from rotcheck.errors import RotcheckError
from rotcheck.models import architecture_of
from rotcheck.models.adversarial import adversarial_batch, adversarial_opt
from rotcheck.models.streams import record
from rotcheck.slicing import fuse
from rotcheck.slicing.norm import GainFreeRMSNorm


@pytest.mark.parametrize("variant", [{}, {"tied": False}, {"word_embed_proj_dim": 24}, {"enable_bias": False}])
def test_logits_are_unchanged(variant, logits_of, logit_error):
    model = adversarial_opt(seed=31, **variant)
    batch = adversarial_batch(model, seed=32)
    assert logit_error(logits_of(fuse(model), batch), logits_of(model, batch), batch) <= 1e-12


def test_the_stream_is_the_original_one_without_its_mean():
    model = adversarial_opt(seed=31)
    batch = adversarial_batch(model, seed=32, padded=False)
    streams = []
    for subject in (model, fuse(model)):
        seen = {}
        with torch.no_grad(), record(subject, architecture_of(subject), seen.__setitem__):
            subject(**batch)
        streams.append(seen)
    for site, stream in streams[0].items():
        assert stream.mean(dim=-1).abs().max() > 1e-2
        centred = stream - stream.mean(dim=-1, keepdim=True)
        torch.testing.assert_close(streams[1][site], centred, atol=1e-12, rtol=0)


def test_no_layer_norm_and_no_shortcut_is_left():
    fused = fuse(adversarial_opt(seed=31))
    assert not any(isinstance(module, nn.LayerNorm) for module in fused.modules())
    norms = [module for module in fused.modules() if isinstance(module, GainFreeRMSNorm)]
    assert len(norms) == 7
    assert not list(norms[0].parameters())
    assert not any("shortcut" in name for name in fused.state_dict())


def test_the_head_is_untied():
    fused = fuse(adversarial_opt(seed=31, tied=True))
    assert fused.lm_head.weight is not fused.model.decoder.embed_tokens.weight
    assert fused.config.tie_word_embeddings is False
    fused.tie_weights()
    assert fused.lm_head.weight is not fused.model.decoder.embed_tokens.weight


def test_a_fused_model_is_not_rotated_again():
    with pytest.raises(RotcheckError, match="already sliced"):
        fuse(fuse(adversarial_opt(seed=31)))


def test_opt_350m_is_refused_by_name():
    from transformers import OPTConfig, OPTForCausalLM

    config = OPTConfig(
        vocab_size=11,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        ffn_dim=9,
        word_embed_proj_dim=4,
        do_layer_norm_before=False,
    )
    with pytest.raises(RotcheckError, match="OPT-350m"):
        fuse(OPTForCausalLM(config))
