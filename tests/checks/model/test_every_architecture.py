"""No check fails a right model of any declared architecture, and those that decide about it pass."""

from __future__ import annotations

from functools import cache

import pytest
import torch

from rotcheck.models import architecture_of
from rotcheck.models.adversarial import adversarial_batch
from rotcheck.models.tiny import SMALL, adversarial_model
from rotcheck.outcome import Outcome
from rotcheck.registry import builtin_checks
from rotcheck.slicing import Schedule, calibrate, inner_plan, make_plan, random_plan, rotate_and_slice
from rotcheck.subjects.pair import ModelPair
from rotcheck.subjects.sliced import SlicedModel
from rotcheck.witness import Witness

REFUSED = ("gemma2", "gemma3_text")
ROTATED = tuple(kind for kind in SMALL if kind not in REFUSED)
INNER = ("equivalence", "precision_scaling", "online_rotations", "decoding", "reload", "tied_weights")
PAIR = ("equivalence", "streams", "norm_fusion", "one_sided_control", "decoding", "reload", "tied_weights")
FULL = ("tensor_bases", "projected_stream", "decoding", "reload", "tied_weights")
SLICED = (*FULL, "kept_energy")
INSIDE = ("head_bases", "online_rotations")


@cache
def original(model_type, dtype=torch.float64):
    model = adversarial_model(model_type, seed=1, layers=2, dtype=dtype)
    assert (architecture_of(model).refuse(model.config) is not None) == (model_type in REFUSED)
    return model, adversarial_batch(model, seed=2, length=10)


@cache
def calibration(model_type):
    model, _ = original(model_type)
    return calibrate(model, [adversarial_batch(model, seed=seed, batch=8, length=24) for seed in range(3, 7)])


def plan_of(model, grouping):
    config, branches = model.config, len(architecture_of(model).branches)
    return random_plan(config.hidden_size, config.num_hidden_layers, grouping, seed=5, branches=branches)


def full_width(kind, model_type, grouping, inside):
    """Rotated by independent Haar matrices; no grouping leaves the stream alone."""
    model, batch = original(model_type)
    plan = None if grouping is None else plan_of(model, grouping)
    inner = inner_plan(model, seed=3) if inside else None
    after = rotate_and_slice(model, plan, inner=inner)
    if kind == "pair":
        return ModelPair(model, after, inputs=batch, name=f"{model_type} {grouping}")
    return SlicedModel(after, inputs=batch, original=model, plan=plan, inner=inner, name=f"{model_type} {grouping}")


def sliced(model_type, grouping, inside):
    """Sliced to three quarters in principal axes."""
    model, batch = original(model_type)
    plan = make_plan(calibration(model_type), grouping, Schedule.constant(0.25, round_to=2))
    inner = inner_plan(model, seed=3) if inside else None
    return SlicedModel(
        rotate_and_slice(model, plan, inner=inner), inputs=batch, original=model, plan=plan, inner=inner,
        calibration=calibration(model_type), name=f"{model_type} {grouping} sliced",
    )  # fmt: skip


def judged(subject, *names):
    """Every check that applies to the subject's kind, or those of the names."""
    return {
        check.name: check.run(subject, Witness(seed=0))
        for check in builtin_checks()
        if subject.kind in check.kinds and (not names or check.name in names)
    }


def right(subject, *passing):
    verdicts = judged(subject)
    for verdict in verdicts.values():
        assert verdict.outcome in (Outcome.PASSED, Outcome.NOT_APPLICABLE), str(verdict)
    for name in passing:
        assert verdicts[name].outcome is Outcome.PASSED, str(verdicts[name])
    return verdicts


@pytest.mark.parametrize("model_type", [*REFUSED, "opt", "phi", "qwen2_moe"])
def test_rotations_inside_the_branches_alone(model_type):
    verdicts = right(full_width("pair", model_type, None, True), *INNER)
    fused = verdicts["norm_fusion"]
    assert fused.outcome is Outcome.NOT_APPLICABLE
    if model_type not in REFUSED:
        assert "the stream was left alone, so its norms rightly keep their gains" in fused.headline
        assert verdicts["streams"].outcome is verdicts["one_sided_control"].outcome is Outcome.PASSED


@pytest.mark.parametrize("model_type", SMALL)
def test_a_stream_that_was_left_alone_is_no_error(model_type):
    subject = full_width("sliced", model_type, None, True)
    assert subject.sites == () == subject.widths
    verdicts = right(subject, "tensor_bases", *INSIDE, "decoding", "reload")
    assert "the stream was left alone" in verdicts["shortcuts"].headline
    for name in ("projected_stream", "kept_energy"):
        assert "does not supply plan" in verdicts[name].headline


@pytest.mark.parametrize("model_type", REFUSED)
def test_a_refused_stream_is_not_applicable_with_its_reason(model_type):
    verdicts = judged(full_width("pair", model_type, None, True), "streams", "norm_fusion", "one_sided_control")
    assert len(verdicts) == 3
    for verdict in verdicts.values():
        assert verdict.outcome is Outcome.NOT_APPLICABLE
        assert "has norms on the outputs of its branches" in verdict.headline


@pytest.mark.parametrize("model_type", ROTATED)
def test_the_stream_and_everything_inside(model_type):
    subject = full_width("pair", model_type, "global", True)
    right(subject, *PAIR, "online_rotations")


@pytest.mark.parametrize("model_type", ROTATED)
def test_tensors_of_independent_bases(model_type):
    right(full_width("sliced", model_type, "per-layer", True), *FULL, *INSIDE, "shortcuts")


@pytest.mark.parametrize("model_type", ROTATED)
def test_sliced_to_three_quarters(model_type):
    right(sliced(model_type, "per-layer", True), *SLICED, *INSIDE)


@pytest.mark.full
@pytest.mark.parametrize("inside", [False, True], ids=["R1", "all"])
@pytest.mark.parametrize("grouping", ["global", "per-layer", "k-block:1", "k-block:2"])
@pytest.mark.parametrize("model_type", ROTATED)
def test_every_plan(model_type, grouping, inside):
    inner = INSIDE if inside else ()
    right(full_width("pair", model_type, grouping, inside), *PAIR)
    right(full_width("sliced", model_type, grouping, inside), *FULL, *inner)
    right(sliced(model_type, grouping, inside), *SLICED, *inner)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("model_type", ["llama", "phi3", "gemma3_text", "qwen2_moe"])
def test_coarser_dtypes_are_never_failed(model_type, dtype):
    model, batch = original(model_type, dtype)
    plan = None if model_type in REFUSED else plan_of(model, "per-layer")
    inner = inner_plan(model, seed=3)
    after = rotate_and_slice(model, plan, inner=inner)
    subject = SlicedModel(after, inputs=batch, original=model, plan=plan, inner=inner)
    verdicts = judged(subject, "tensor_bases", *INSIDE)
    assert {verdict.outcome for verdict in verdicts.values()} == {Outcome.PASSED}, list(map(str, verdicts.values()))


@pytest.mark.parametrize("model_type", ["qwen3", "phi3", "qwen2_moe", "gemma", "gemma2"])
def test_any_tensor_that_is_touched_is_named(model_type):
    """Norms of heads, routers and experts too, of which no site of the stream knows."""
    stream = None if model_type in REFUSED else "global"
    for index in range(2):
        subject = full_width("sliced", model_type, stream, True)
        names = [name for name, _ in subject.model.named_parameters()]
        name = names[(17 * index + 5) % len(names)]
        tensor = subject.model.get_parameter(name)
        tensor.data = tensor.data + 1e-6 * tensor.data.norm() / tensor.numel() ** 0.5
        verdict = judged(subject, "tensor_bases")["tensor_bases"]
        assert verdict.outcome is Outcome.FAILED
        assert verdict.place.split(" (")[0] == name
