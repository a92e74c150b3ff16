"""``tensor_bases`` derives every tensor again, and names the one that is wrong and the basis that it is in."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rotcheck.checks._sliced import parts
from rotcheck.defects.boundary import EARLY, HEAD_BEFORE, OMITTED, TRANSPOSED
from rotcheck.defects.fusion import MEANS, MISTAKES
from rotcheck.models.adversarial import adversarial_opt
from rotcheck.models.opt import OPT
from rotcheck.slicing import Schedule, random_plan, rotate_and_slice
from rotcheck.subjects.sliced import SlicedModel

STEPS = {name: steps for name, *_, steps in (*MISTAKES, *MEANS)}
EMBED, POSITIONS = "model.decoder.embed_tokens", "model.decoder.embed_positions"
FIRST = "model.decoder.layers.0"


def of_random_plan(original, grouping="per-layer", **options):
    plan = random_plan(original.config.hidden_size, original.config.num_hidden_layers, grouping, seed=2, **options)
    ids = torch.arange(6).view(2, 3)
    return SlicedModel(rotate_and_slice(original, plan), inputs=ids, original=original, plan=plan)


def test_silent_on_right_models(right_sliced, passes):
    passes("tensor_bases", right_sliced)


def test_silent_in_bfloat16(coarse_sliced, passes):
    passes("tensor_bases", coarse_sliced)


@settings(deadline=None, max_examples=8)
@given(
    widths=st.lists(st.integers(1, 40), min_size=7, max_size=7), grouping=st.sampled_from(["per-layer", "k-block:2"])
)
def test_silent_for_any_widths(widths, grouping, build, passes):
    passes("tensor_bases", of_random_plan(build.pair(seed=1).before, grouping, schedule=Schedule.explicit(widths)))


def test_silent_where_neither_norm_nor_reader_has_a_bias(passes):
    source = adversarial_opt(seed=3, enable_bias=False)
    config = type(source.config).from_dict({**source.config.to_dict(), "layer_norm_elementwise_affine": False})
    config._attn_implementation = "sdpa"
    plain = type(source)(config).double().eval()
    plain.load_state_dict(source.state_dict(), strict=False)
    assert all(part.bias is None for part in parts(plain, OPT))
    passes("tensor_bases", of_random_plan(plain))


@pytest.mark.parametrize("k", [1, 2, 3])
def test_boundary_mistake(k, build, fails):
    verdict = fails("tensor_bases", build.sliced(grouping=f"k-block:{k}", layers=4, steps=EARLY))
    assert verdict.matched == "the basis of the next site"
    assert verdict.place == f"model.decoder.layers.{k}.self_attn.q_proj.weight (layer {k} attention input)"
    assert verdict.headline.startswith("subject holds a tensor in the basis of the next site at model.decoder.layers.")
    assert f"{k}.self_attn.q_proj.weight" in verdict.headline


@pytest.mark.parametrize(
    ("mistake", "place", "name"),
    [
        ("gain_not_folded", f"{FIRST}.self_attn.q_proj.weight", "the right basis, but without the norm's gain"),
        ("norm_bias_dropped", f"{FIRST}.self_attn.q_proj.bias", "only its own bias"),
        ("head_without_gain", "lm_head.weight", "the right basis, but without the norm's gain"),
        ("output_bias_not_rotated", f"{FIRST}.self_attn.out_proj.bias", "no basis: it was not rotated"),
        ("positions_not_rotated", f"{POSITIONS}.weight", "no basis: it was not rotated"),
        ("embeddings_not_rotated", f"{EMBED}.weight", "no basis: it was not rotated"),
        ("mean_left_in_writers", f"{FIRST}.self_attn.out_proj.weight", "the right basis, mean left in"),
        ("mean_left_in_biases", f"{FIRST}.self_attn.out_proj.bias", "the right basis, mean left in"),
        ("mean_left_in_embeddings", f"{EMBED}.weight", "the right basis, mean left in"),
        ("mean_left_in_positions", f"{POSITIONS}.weight", "the right basis, mean left in"),
        ("gain_folded_twice", f"{FIRST}.self_attn.q_proj.weight", ""),
    ],
)
def test_fusion_mistakes(mistake, place, name, build, fails):
    # At full width: a mean that is left in lies outside 30 kept axes of a centred stream.
    pair = build.pair(steps=STEPS[mistake])
    plan = random_plan(40, 3, "k-block:2", seed=0, change="attention")
    verdict = fails("tensor_bases", SlicedModel(pair.after, inputs=pair.inputs, original=pair.before, plan=plan))
    assert verdict.place.split(" (")[0] == place
    assert verdict.matched == name


@pytest.mark.parametrize("mistake", [name for name, *_ in MISTAKES if not name.endswith("_transposed")])
def test_fusion_mistakes_of_sliced_models(mistake, build, fails):
    fails("tensor_bases", build.sliced(steps=STEPS[mistake]))


@pytest.mark.parametrize(
    ("mistake", "place"),
    [
        ("readers_transposed", f"{FIRST}.self_attn.q_proj.weight"),
        ("writers_transposed", f"{FIRST}.self_attn.out_proj.weight"),
    ],
)
def test_transposed_bases(mistake, place, build, fails):
    plan = random_plan(40, 3, "k-block:2", seed=0, change="attention")
    pair = build.pair(steps=STEPS[mistake])
    verdict = fails("tensor_bases", SlicedModel(pair.after, inputs=pair.inputs, original=pair.before, plan=plan))
    assert verdict.matched == "the transposed basis"
    assert verdict.place.split(" (")[0] == place


def test_a_model_that_uses_its_bases_transposed(build, fails):
    verdict = fails("tensor_bases", build.sliced(used=build.bases(lambda basis: basis.T)))
    assert verdict.matched == "the transposed basis"
    assert verdict.place.startswith("model.decoder.embed_tokens.weight")


@pytest.mark.parametrize(
    ("steps", "name"),
    [(TRANSPOSED, "the transposed shortcut, U_next.T @ U"), (OMITTED, "no basis: an identity")],
    ids=["transposed", "omitted"],
)
def test_shortcuts(steps, name, build, fails):
    verdict = fails("tensor_bases", build.sliced(steps=steps))
    assert verdict.matched == name
    assert verdict.place == "model.decoder.layers.2.attention_shortcut"


def test_a_missing_shortcut(build, fails):
    subject = build.sliced()
    subject.model.model.decoder.layers[2].attention_shortcut = None
    assert fails("tensor_bases", subject).headline == (
        "subject has no shortcut from site 4 to site 5, whose bases differ"
    )


def test_a_head_in_another_block(build, fails):
    assert fails("tensor_bases", build.sliced(steps=HEAD_BEFORE)).place == "lm_head.weight (head input)"


def test_a_head_in_the_basis_of_its_neighbour(build, fails):
    verdict = fails("tensor_bases", build.sliced(grouping="per-layer", steps=HEAD_BEFORE))
    assert verdict.matched == "the basis of the site before"


@settings(deadline=None, max_examples=10)
@given(data=st.data())
def test_any_tensor_that_is_touched_is_named(data, build, fails):
    subject = of_random_plan(build.pair(seed=1).before, "k-block:2")
    name = data.draw(st.sampled_from([name for name, _ in subject.model.named_parameters()]))
    tensor = subject.model.get_parameter(name)
    tensor.data = tensor.data + 1e-6 * tensor.data.norm() / tensor.numel() ** 0.5
    verdict = fails("tensor_bases", subject)
    assert verdict.place.split(" (")[0] == name
    assert verdict.matched == ""


def test_a_missing_bias(build, fails):
    subject = build.sliced(enable_bias=False)
    subject.model.model.decoder.layers[1].fc1.bias = None
    verdict = fails("tensor_bases", subject)
    assert verdict.headline == "subject has no tensor model.decoder.layers.1.fc1.bias"
    assert verdict.hint == "the norm's bias needs a place to go"


def test_widths_of_another_plan(build, fails):
    subject = build.sliced()
    other = replace(subject.plan, widths=(28, *subject.plan.widths[1:]))
    assert "has widths [30, 30, " in fails("tensor_bases", replace(subject, plan=other)).headline


def test_a_tensor_of_another_shape(build, fails):
    subject = build.sliced()
    subject.model.model.decoder.layers[1].fc2.weight.data = torch.zeros(29, 72, dtype=torch.float64)
    assert "has model.decoder.layers.1.fc2.weight of shape (29, 72), the plan gives (30, 72)" in str(
        fails("tensor_bases", subject)
    )


def test_a_rival_that_is_the_same_tensor_is_left_out(build, passes):
    """With gains of one, a gain that was not folded is no mistake."""
    original = build.pair().before
    for name, parameter in original.named_parameters():
        if name.endswith("norm.weight"):
            parameter.data = torch.ones_like(parameter)
    passes("tensor_bases", of_random_plan(original))


def test_parts_are_those_of_the_definitions():
    model = adversarial_opt(seed=4, layers=1)
    found = {part.name: part for part in parts(model, OPT)}
    layer = model.model.decoder.layers[0]
    fc1, fc2, norm = layer.fc1, layer.fc2, layer.final_layer_norm
    x = torch.randn(5, 40, dtype=torch.float64)
    plain = torch.nn.functional.layer_norm(x, (40,), eps=norm.eps)
    assert torch.allclose(fc1(norm(x)), plain @ found[f"{FIRST}.fc1"].weight.T + found[f"{FIRST}.fc1"].bias)
    h = torch.randn(5, 72, dtype=torch.float64)
    written = h @ found[f"{FIRST}.fc2"].weight.T + found[f"{FIRST}.fc2"].bias
    assert torch.allclose(fc2(h) - fc2(h).mean(-1, keepdim=True), written)
    roles = ["embedding"] * 2 + ["reader"] * 3 + ["writer", "reader"] * 2
    assert [part.role for part in found.values()] == roles


@pytest.mark.parametrize("argument", ["original", "plan"])
def test_what_is_needed_is_named(argument, build, lacks):
    lacks("tensor_bases", replace(build.sliced(), **{argument: None}), argument)


def test_no_inputs_are_needed_beyond_ids(build, passes):
    passes("tensor_bases", replace(build.sliced(), calibration=None))
