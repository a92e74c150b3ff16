"""``norm_fusion`` compares what each norm puts out with the normalised stream without its gain."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rotcheck.checks.norm_fusion import _beside_means, _normalised
from rotcheck.defects.fusion import MEANS, MISTAKES
from rotcheck.outcome import Outcome
from rotcheck.slicing import fuse, inner_plan, random_plan, rotate_and_slice

NORMS = ("self_attn_layer_norm", "final_layer_norm")


def test_silent_on_right_models(right_pair, passes):
    passes("norm_fusion", right_pair)


def test_bfloat16_is_never_failed(coarse_pair, judge):
    verdict = judge("norm_fusion", coarse_pair)
    assert verdict.outcome in (Outcome.PASSED, Outcome.UNDECIDED), str(verdict)
    assert verdict.outcome is Outcome.PASSED or verdict.needs


def test_a_gain_left_in_the_norm_is_named(build, fails):
    subject = build.pair()
    after = fuse(subject.before)
    norm = subject.before.model.decoder.layers[0].self_attn_layer_norm
    after.model.decoder.layers[0].self_attn_layer_norm = copy.deepcopy(norm)
    verdict = fails("norm_fusion", replace(subject, after=after))
    assert verdict.matched == "a norm with its gain left in"
    assert verdict.place.startswith("layer 0 attention input")


def test_norms_of_a_stream_that_is_not_rotated_keep_their_gains(build, lacks):
    subject = build.pair()
    lacks("norm_fusion", replace(subject, after=copy.deepcopy(subject.before)), "a rotated stream")
    inner = inner_plan(subject.before, rotations=["R4"], seed=1)
    lacks(
        "norm_fusion", replace(subject, after=rotate_and_slice(subject.before, None, inner=inner)), "a rotated stream"
    )


def test_a_gain_folded_twice_is_named(build, fails):
    subject = build.pair()
    after = copy.deepcopy(subject.before)
    norm = after.model.decoder.layers[0].self_attn_layer_norm
    norm.weight.data = norm.weight.data**2
    assert fails("norm_fusion", replace(subject, after=after)).matched == "a norm with its gain folded twice"


def test_a_mean_that_is_kept_is_named(build, fails):
    assert (
        fails("norm_fusion", build.pair(grouping="global", steps=build.all_means)).matched
        == "a norm that keeps the mean"
    )


@pytest.mark.parametrize("steps", [m[-1] for m in MEANS], ids=[m[0] for m in MEANS])
def test_a_mean_in_one_writer_is_placed_behind_it(steps, build, fails):
    verdict = fails("norm_fusion", build.pair(grouping="global", steps=steps))
    embedded = steps.center_weight is build.right.center_weight and steps.center_bias is build.right.center_bias
    assert verdict.place.startswith("layer 0 attention input" if embedded else "layer 0 feed-forward input")


@settings(deadline=None, max_examples=8)
@given(site=st.integers(0, 6), eps=st.floats(0.05, 2), divisor=st.sampled_from([39, 41, 30]), which=st.booleans())
def test_another_eps_or_divisor_is_placed(site, eps, divisor, which, build, fails):
    subject = build.pair()
    decoder = subject.after.model.decoder
    norm = decoder.final_layer_norm if site == 6 else getattr(decoder.layers[site // 2], NORMS[site % 2])
    setattr(norm, *(("eps", eps) if which else ("divisor", divisor)))
    branch = "head" if site == 6 else f"layer {site // 2} {('attention', 'feed-forward')[site % 2]}"
    assert fails("norm_fusion", subject).place.startswith(f"{branch} input")


def test_the_eps_of_the_model_is_used(build, passes):
    subject = build.pair()
    for layer in subject.before.model.decoder.layers:
        layer.final_layer_norm.eps = 0.3
    passes("norm_fusion", replace(subject, after=fuse(subject.before)))


@pytest.mark.parametrize(
    "mistake", ["gain_not_folded", "norm_bias_dropped", "output_bias_not_rotated", "readers_transposed"]
)
def test_what_is_wrong_before_a_norm_is_not_its_fault(mistake, build, judge):
    """What readers hold shows in the next stream, which is then no rotation of the original's."""
    verdict = judge("norm_fusion", build.pair(steps={m[0]: m[-1] for m in MISTAKES}[mistake]))
    assert verdict.outcome is Outcome.UNDECIDED, str(verdict)
    assert "feed-forward input is another already" in verdict.headline
    assert verdict.needs.startswith("a stream that is a rotation of the original's: check streams names what wrote")


def test_a_gain_left_before_a_stream_that_is_wrong_is_named(build, fails):
    """The first norm is unfused, so the streams after it are others, and it is named all the same."""
    subject = build.pair(steps={m[0]: m[-1] for m in MISTAKES}["output_bias_not_rotated"])
    decoder = subject.after.model.decoder
    decoder.layers[0].self_attn_layer_norm.eps = 0.7
    assert fails("norm_fusion", subject).place.startswith("layer 0 attention input")


def test_the_part_beside_means():
    generator = torch.Generator().manual_seed(0)
    h = torch.randn(9, 12, dtype=torch.float64, generator=generator)
    moved = h + torch.randn(9, 1, dtype=torch.float64, generator=generator)
    basis = torch.linalg.qr(torch.randn(12, 12, dtype=torch.float64, generator=generator)).Q
    assert _beside_means(moved @ basis, h) < 1e-14
    assert _beside_means(h @ basis, h) < 1e-14
    assert _beside_means(moved @ (basis + basis[[1, *range(1, 12)]]), h) > 0.1
    assert _beside_means(h * torch.nan, h) == float("inf")


def test_a_coarse_dtype_that_hides_gains_is_what_is_named(build, judge):
    subject = build.pair(dtype=torch.bfloat16)
    for name, parameter in subject.before.named_parameters():
        if "norm" in name:
            parameter.data = torch.full_like(parameter, 1.0 if name.endswith("weight") else 0.0)
            parameter.data[0] += 0.02
    verdict = judge("norm_fusion", replace(subject, after=fuse(subject.before)))
    assert verdict.outcome is Outcome.UNDECIDED
    assert verdict.needs.startswith("both models in a finer dtype: the rounding of bfloat16 hides gains and means")


def test_a_fresh_model_cannot_decide(build, judge):
    subject = build.pair()
    for name, parameter in subject.before.named_parameters():
        if "norm" in name:
            parameter.data = torch.full_like(parameter, 1.0 if name.endswith("weight") else 0.0)
    verdict = judge("norm_fusion", replace(subject, after=fuse(subject.before)))
    assert verdict.outcome is Outcome.UNDECIDED
    assert "a norm with its gain left in" in verdict.headline
    assert verdict.needs.startswith("a model whose norms have gains other than one")


def test_norms_without_gain_and_bias_are_measured(build, judge):
    subject = build.pair()
    config = type(subject.before.config).from_dict(
        {**subject.before.config.to_dict(), "layer_norm_elementwise_affine": False}
    )
    config._attn_implementation = "sdpa"
    plain = type(subject.before)(config).double().eval()
    plain.load_state_dict(subject.before.state_dict(), strict=False)
    verdict = judge(
        "norm_fusion", replace(subject, before=plain, after=rotate_and_slice(plain, random_plan(40, 3, "per-layer")))
    )
    assert verdict.outcome is Outcome.PASSED, "what is not there cannot have been left in"
    assert [rival.name for rival in verdict.rivals] == ["a norm that keeps the mean"]


def test_normalised_rows():
    h = torch.randn(7, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) + 2
    assert torch.allclose(_normalised(h, 1e-5, mean=True), torch.nn.functional.layer_norm(h, (12,), eps=1e-5))
    expected = torch.nn.functional.rms_norm(h, (12,), eps=1e-5)
    assert torch.allclose(_normalised(h, 1e-5, mean=False), expected)


def test_functions_have_no_norms(callables, lacks):
    lacks("norm_fusion", callables, "modules")
