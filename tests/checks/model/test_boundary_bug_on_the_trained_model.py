"""The published K-block mistake on trained weights: placed at the first block boundary, at full width."""

from __future__ import annotations

import pytest
import torch

from rotcheck.defects.boundary import EARLY
from rotcheck.measures.perplexity import perplexity
from rotcheck.slicing import rotate_and_slice
from rotcheck.subjects.pair import ModelPair
from rotcheck.subjects.sliced import SlicedModel

BLOCKS = (2, 3, 4, 6)


@pytest.fixture(scope="module", params=BLOCKS, ids=lambda k: f"K{k}")
def both(request, trained, full_width_plan):
    plan = full_width_plan(f"k-block:{request.param}", "attention")
    right, wrong = rotate_and_slice(trained.model, plan), rotate_and_slice(trained.model, plan, steps=EARLY)
    return request.param, plan, right, wrong


def test_equivalence_fails_at_the_first_boundary(both, trained, fails):
    k, _, _, wrong = both
    verdict = fails("equivalence", ModelPair(trained.model, wrong, inputs=trained.ids, name="fork"))
    assert verdict.place.startswith(f"layer {k} feed-forward input")
    assert f"model.decoder.layers.{k}.self_attn.out_proj" in verdict.place
    assert verdict.headline.startswith("fork ")
    assert f"at layer {k} feed-forward input" in verdict.headline
    assert 0.01 < verdict.claim.error < 2
    assert verdict.allowed.value < 1e-10


def test_the_right_plan_passes(both, trained, passes):
    _, _, right, _ = both
    assert passes("equivalence", ModelPair(trained.model, right, inputs=trained.ids)).claim.error < 1e-12


def test_the_tensors_that_are_wrong_are_named(both, trained, fails):
    k, plan, _, wrong = both
    verdict = fails("tensor_bases", SlicedModel(wrong, inputs=trained.ids, original=trained.model, plan=plan))
    assert verdict.matched == "the basis of the next site"
    assert verdict.place == f"model.decoder.layers.{k}.self_attn.q_proj.weight (layer {k} attention input)"


def test_only_attention_inputs_at_boundaries_differ(both):
    k, _, right, wrong = both
    state = right.state_dict()
    changed = {name for name, tensor in wrong.state_dict().items() if not torch.equal(tensor, state[name])}
    assert changed == {
        f"model.decoder.layers.{layer}.self_attn.{part}_proj.weight" for layer in range(k, 12, k) for part in "qkv"
    }


def test_perplexity_tells_too_at_zero_sparsity(both, trained):
    """The mistake costs perplexity where nothing was sliced; right code costs none."""
    _, _, right, wrong = both
    windows = trained.windows[:1]
    dense, same, worse = (perplexity(model, windows).perplexity for model in (trained.model, right, wrong))
    assert same == pytest.approx(dense, rel=1e-10)
    assert worse > 1.003 * dense


def test_no_check_blames_the_right_plan(both, trained, judge):
    _, plan, right, _ = both
    subject = SlicedModel(right, inputs=trained.ids, original=trained.model, plan=plan, calibration=trained.calibration)
    for name in ("tensor_bases", "projected_stream", "shortcuts", "kept_energy"):
        assert judge(name, subject).outcome.value in ("passed", "not applicable")
