"""``precision_scaling`` of models with RMSNorms: a mean, an eps or a gain that is wrong is failed, and named."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rotcheck.checks.precision_scaling import precision_scaling
from rotcheck.defects._pairs import RIGHT, rotated_pair
from rotcheck.defects.rmsnorm import ALL_CENTRED, CENTRED, FIXED_EPS, MODELS, OFFSET_FORGOTTEN, OFFSET_INVENTED
from rotcheck.models.declared import architecture_of
from rotcheck.models.sites import sites
from rotcheck.models.tensors import linear
from rotcheck.models.tiny import adversarial_model
from rotcheck.outcome import Outcome
from rotcheck.slicing import fuse

NAMES = {
    "embeddings": (CENTRED, "the original with its embedding means subtracted"),
    "stream": (ALL_CENTRED, "the original with the means subtracted from all that is written to its stream"),
    "eps": (FIXED_EPS, "the original with eps 1e-05 in every norm"),
    "offset": (OFFSET_FORGOTTEN, "the original with gains of 1 + w taken as w"),
    "plain": (OFFSET_INVENTED, "the original with 1 added to every gain"),
}
BOUND = 8e-3
"""Absolute mean square error that a toolkit's own tests allow in bfloat16, float32 and float64 alike."""


def squares(verdict):
    start = "mean square error in "
    return {name.removeprefix(start): value for name, value in verdict.facts if name.startswith(start)}


@pytest.mark.parametrize("mistake", ["embeddings", "stream", "eps"])
@pytest.mark.parametrize("model", MODELS)
def test_means_and_eps_are_named(mistake, model, fails):
    steps, name = NAMES[mistake]
    verdict = fails("precision_scaling", rotated_pair(4, steps=steps, **MODELS[model]))
    assert verdict.matched == name
    assert name in verdict.headline


@settings(deadline=None, max_examples=4)
@given(seed=st.integers(0, 2**31), mistake=st.sampled_from(["embeddings", "stream", "eps"]))
def test_named_whatever_the_weights(seed, mistake, fails):
    steps, name = NAMES[mistake]
    assert fails("precision_scaling", rotated_pair(seed, steps=steps, **MODELS["llama"])).matched == name


@pytest.mark.parametrize(("mistake", "model"), [("offset", "gemma"), ("plain", "llama"), ("plain", "qwen3")])
def test_offsets_of_gains_are_named(mistake, model, fails):
    steps, name = NAMES[mistake]
    verdict = fails("precision_scaling", rotated_pair(5, steps=steps, **MODELS[model]))
    assert verdict.matched == name
    assert "the model stores gains as" in verdict.hint


def test_a_mean_has_a_hint_of_its_own(fails):
    assert (
        "RMSNorm does not subtract the mean"
        in fails("precision_scaling", rotated_pair(1, model_type="llama", steps=CENTRED)).hint
    )


@settings(deadline=None, max_examples=5)
@given(seed=st.integers(0, 2**31), model=st.sampled_from(sorted(MODELS)))
def test_right_models_are_passed_and_keep_their_power(seed, model, passes):
    verdict = passes("precision_scaling", rotated_pair(seed, **MODELS[model]))
    assert all(rival.separation > 2 * verdict.allowed.value for rival in verdict.rivals)


@pytest.mark.parametrize("model_type", ["mistral", "phi3", "qwen2", "mixtral", "qwen2_moe"])
def test_right_models_of_other_kinds(model_type, passes):
    """In bfloat16 a router may send tokens to other experts; those are left out."""
    passes("precision_scaling", rotated_pair(6, model_type=model_type))


def test_models_with_layernorm_have_no_such_rivals(build, passes):
    assert [rival.name for rival in passes("precision_scaling", build.pair()).rivals] == [
        "the same logits for every token"
    ]


def test_an_eps_that_is_the_fixed_one_is_no_rival(judge):
    verdict = judge("precision_scaling", rotated_pair(2, model_type="llama", rms_norm_eps=1e-5, steps=FIXED_EPS))
    assert verdict.outcome is Outcome.PASSED
    assert not any("eps 1e-05" in rival.name for rival in verdict.rivals)


def test_an_absolute_bound_lets_a_mean_pass_in_every_dtype(fails):
    """The same error in all dtypes, below the bound in all, and 10^12 times what rounding explains in float64."""
    verdict = fails("precision_scaling", rotated_pair(0, steps=CENTRED, **MODELS["weak_llama"]))
    found = squares(verdict)
    assert set(found) == {"bfloat16", "float32", "float64"}
    assert all(1e-4 < value < BOUND for value in found.values()), found
    assert verdict.claim.error > 0.02
    assert found["float64"] == pytest.approx(found["float32"], rel=1e-2)
    right = squares(precision_scaling.run(rotated_pair(0, **MODELS["weak_llama"])))
    assert right["float64"] < 1e-20 < right["float32"] < 1e-10


def test_an_absolute_bound_lets_an_eps_pass(fails):
    verdict = fails("precision_scaling", rotated_pair(0, steps=FIXED_EPS, **MODELS["weak_llama"]))
    assert verdict.claim.error > 0.01
    assert squares(verdict)["float64"] < BOUND


def test_an_eps_below_the_noise_of_float32_is_named_in_float64(fails):
    """Of the dtypes in which it fails, the one that can name it is reported."""
    verdict = fails("precision_scaling", rotated_pair(3, model_type="llama", steps=FIXED_EPS))
    assert verdict.claim.name.endswith("rounding of float64")
    assert verdict.claim.error < 1e-4


@pytest.mark.parametrize("model_type", ["llama", "qwen3", "gemma", "mixtral"])
def test_our_own_path_subtracts_no_mean(model_type):
    """Fusing without rotating leaves every writer of an RMSNorm model as it is, mean and all."""
    model = adversarial_model(model_type, seed=7, layers=1)
    fused = fuse(model)
    for site in sites(architecture_of(model), model.config):
        for path in site.writers:
            before, after = linear(model, path), linear(fused, path)
            torch.testing.assert_close(after.weight, before.weight, rtol=0, atol=1e-15)
            mean = before.weight.mean(dim=-1 if before.embedding else -2)
            assert mean.abs().max() > 1e-3


def test_the_models_are_left_alone(judge):
    subject = rotated_pair(8, model_type="gemma", steps=replace(RIGHT, norm_eps=lambda eps: 2e-5))
    states = [
        {name: tensor.clone() for name, tensor in m.state_dict().items()} for m in (subject.before, subject.after)
    ]
    judge("precision_scaling", subject)
    for model, state in zip((subject.before, subject.after), states, strict=True):
        assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
