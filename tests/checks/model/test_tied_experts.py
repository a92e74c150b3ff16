"""Tokens that pass a choice of experts within rounding are left out, with those behind them, and no others."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rotcheck.checks._routers import Router, margins, record_routers, router_sites, settled, settled_tokens
from rotcheck.defects._pairs import rotated_pair
from rotcheck.models.declared import architecture_of
from rotcheck.outcome import Outcome
from rotcheck.tolerance import SAFETY

LENGTHS = (5, 1, 7)


def batch(lengths=LENGTHS):
    mask = torch.zeros(len(lengths), max(lengths), dtype=torch.long)
    for row, length in enumerate(lengths):
        mask[row, -length:] = 1
    return {"input_ids": torch.zeros_like(mask), "attention_mask": mask}


def router(logits, chosen=2):
    tokens = len(logits)
    index = logits.topk(chosen).indices
    return Router(stream=torch.zeros(tokens, 3), normed=torch.zeros(tokens, 3), logits=logits, chosen=index)


def clear(tokens):
    """Logits whose second and third differ by one."""
    return torch.tensor([3.0, 2.0, 1.0, 0.0], dtype=torch.float64).repeat(tokens, 1)


@given(token=st.integers(0, 12), layer=st.integers(0, 2))
def test_a_tie_harms_what_stands_behind_it_in_its_row(token, layer):
    dense = [router(clear(13)) for _ in range(3)]
    tied = clear(13)
    tied[token, 2] = 2.0
    dense[layer] = router(tied)
    noisy = [router(one.logits + 1e-3) for one in dense]
    found = settled(dense, noisy, [batch()])
    row = [0] * 5 + [1] + [2] * 7
    for index, keep in enumerate(found):
        harmed = [index > layer and other >= token and row[other] == row[token] for other in range(13)]
        assert keep.tolist() == [not one for one in harmed]


@pytest.mark.parametrize(("noise", "kept"), [(0.9, True), (1.1, False)])
def test_ties_are_within_twice_the_safety_factor_times_the_noise(noise, kept):
    dense = router(clear(2))
    noisy = router(dense.logits + noise / (2 * SAFETY))
    assert settled([dense], [noisy], [batch((2,))])[-1].tolist() == [kept] * 2


def test_noise_of_harmed_tokens_does_not_count():
    """A token that went to other experts is off by much more than rounding in the layers behind."""
    first, second = clear(6), clear(6)
    first[3, 2] = 2.0
    noisy = second + 1e-3
    noisy[3:] += 5.0
    found = settled([router(first), router(second)], [router(first + 1e-3), router(noisy)], [batch((6,))])
    assert found[-1].tolist() == [True] * 3 + [False] * 3


def test_rows_of_different_batches_are_apart():
    tied = clear(4)
    tied[0, 2] = 2.0
    dense = router(tied)
    found = settled([dense], [router(tied + 1e-3)], [batch((2,)), batch((2,))])
    assert found[-1].tolist() == [False, False, True, True]


def test_margins():
    logits = torch.tensor([[0.0, 5.0, 3.5, 1.0]], dtype=torch.float64)
    assert margins(router(logits, 1)).tolist() == [1.5]
    assert margins(router(logits, 3)).tolist() == [1.0]
    assert margins(router(logits, 4)).tolist() == [torch.inf]


def test_all_tokens_of_a_dense_model_count():
    subject = rotated_pair(1, model_type="llama")
    architecture = architecture_of(subject.before)
    assert router_sites(architecture, subject.before) == []
    assert settled_tokens(None, None, architecture, subject.batches, torch.bfloat16) == slice(None)
    assert settled_tokens(None, None, None, subject.batches, torch.bfloat16) == slice(None)


@pytest.mark.parametrize("kind", ["mixtral", "qwen2_moe"])
def test_what_a_router_sees_and_gives(kind):
    subject = rotated_pair(2, model_type=kind)
    architecture, model = architecture_of(subject.before), subject.before
    found = record_routers(model, architecture, subject.batches)
    tokens = int(subject.batches[0]["attention_mask"].sum())
    assert len(found) == len(router_sites(architecture, model)) == model.config.num_hidden_layers
    for layer, one in enumerate(found):
        gate = model.model.layers[layer].mlp.gate
        assert one.stream.shape == one.normed.shape == (tokens, model.config.hidden_size)
        torch.testing.assert_close(one.logits, one.normed @ gate.weight.T)
        assert one.chosen.sort().values.equal(one.logits.topk(2).indices.sort().values)
        assert len(one.of(torch.arange(tokens) < 3).chosen) == 3


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("kind", ["mixtral", "qwen2_moe"])
@pytest.mark.parametrize("check", ["equivalence", "precision_scaling", "routing"])
def test_right_models_in_bfloat16_are_never_failed(check, kind, seed, judge):
    verdict = judge(check, rotated_pair(seed, model_type=kind, dtype=torch.bfloat16))
    assert verdict.outcome is not Outcome.FAILED, str(verdict)


def test_the_tokens_left_out_are_said(judge):
    subject = rotated_pair(0, model_type="mixtral", dtype=torch.bfloat16)
    verdict = judge("equivalence", subject)
    total = int(subject.batches[0]["attention_mask"].sum())
    kept = int(verdict.witness.split()[0])
    assert f", {total - kept} more behind a choice of experts within rounding" in verdict.witness


def test_nothing_left_is_undecided(judge):
    subject = rotated_pair(0, model_type="mixtral", dtype=torch.bfloat16)
    for model in (subject.before, subject.after):
        model.model.layers[0].mlp.gate.weight.data.zero_()
    verdict = judge("equivalence", subject)
    assert verdict.outcome is Outcome.UNDECIDED
    assert "all tokens but one at most pass experts that bfloat16 chooses within its rounding" in verdict.headline
    wide = replace(subject, before=subject.before.to(torch.float32), after=subject.after.to(torch.float32))
    assert "in every dtype" in judge("precision_scaling", wide).headline
