"""``head_bases`` derives every head and down projection again, and names the one that is wrong and what it holds."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rotcheck.bases import haar, hadamard, hadamard_factors
from rotcheck.bases.factored import dense
from rotcheck.checks._inner import inner_bases
from rotcheck.defects._inner import spoilt
from rotcheck.defects.heads import MISTAKES as OF_VALUES
from rotcheck.defects.online import MISTAKES as ONLINE
from rotcheck.errors import RotcheckError
from rotcheck.models import architecture_of, head_sites
from rotcheck.models.adversarial import adversarial_batch
from rotcheck.models.tensors import linear
from rotcheck.models.tiny import adversarial_model
from rotcheck.slicing import InnerPlan, inner_plan, random_plan, rotate_and_slice
from rotcheck.subjects.sliced import SlicedModel

VALUES = {name: steps for name, *_, steps in OF_VALUES}
RUNNING = {name: (model_type, planted) for name, _, _, model_type, planted, *_ in ONLINE}
ATTENTION, FEED_FORWARD = "model.layers.0.self_attn", "model.layers.0.mlp"


def made(model_type="llama", *, seed=1, inner=None, stream=True, **options):
    model = adversarial_model(model_type, seed=seed, layers=2)
    branches = len(architecture_of(model).branches)
    plan = random_plan(48, 2, "per-layer", seed=seed, branches=branches) if stream else None
    inner = inner_plan(model, seed=seed, **options) if inner is None else inner
    return SlicedModel(
        rotate_and_slice(model, plan, inner=inner), inputs=adversarial_batch(model, seed=2, length=8), original=model,
        plan=plan, inner=inner, name="subject",
    )  # fmt: skip


@settings(deadline=None, max_examples=8)
@given(
    seed=st.integers(0, 2**31),
    rotations=st.lists(st.sampled_from(["R2", "R3", "R4"]), min_size=1, unique=True),
    stream=st.booleans(),
    model_type=st.sampled_from(["llama", "phi", "phi3", "qwen2_moe"]),
)
def test_silent_on_any_of_the_rotations(seed, rotations, stream, model_type, passes):
    passes("head_bases", made(model_type, seed=seed, rotations=rotations, stream=stream))


@pytest.mark.parametrize("signs", [True, False])
def test_silent_on_hadamard_matrices(signs, passes):
    def of(make):
        return lambda n, generator: make(n, signs=generator if signs else None)

    passes("head_bases", made(heads=of(hadamard), hidden=of(hadamard_factors)))


@pytest.mark.parametrize(
    ("mistake", "place", "name"),
    [
        ("value_bias_not_rotated", f"{ATTENTION}.v_proj.bias value head 0", "no basis: not rotated"),
        ("values_transposed", f"{ATTENTION}.v_proj.weight value head 0", "the transposed basis"),
        ("output_transposed", f"{ATTENTION}.o_proj.weight query head 0", "the transposed basis"),
        (
            "values_of_the_full_width",
            f"{ATTENTION}.v_proj.weight value head 0",
            "one basis over the full width, which mixes heads",
        ),
        ("output_of_the_full_width", f"{ATTENTION}.o_proj.weight query head 0", ""),
        (
            "heads_tiled",
            f"{ATTENTION}.o_proj.weight query head 1",
            "the basis of head 1, as if heads were tiled and not repeated",
        ),
        ("basis_of_the_next_head", f"{ATTENTION}.o_proj.weight query head 0", "the basis of head 1"),
        ("values_without_their_partner", f"{ATTENTION}.o_proj.weight query head 0", "no basis: not rotated"),
        ("output_without_its_partner", f"{ATTENTION}.v_proj.weight value head 0", "no basis: not rotated"),
        ("values_rotated_twice", f"{ATTENTION}.v_proj.weight value head 0", "its basis twice"),
    ],
)
def test_mistakes_of_values(mistake, place, name, fails):
    verdict = fails("head_bases", spoilt(3, "SlicedModel", "llama", inner_steps=VALUES[mistake]))
    assert verdict.place.split(" (")[0] == place
    assert verdict.matched == name
    if name:
        assert verdict.headline == f"planted holds {name} at {place}, declared its basis"
    else:
        assert verdict.headline.startswith(f"planted does not match its basis at {place} (relative error ")


@pytest.mark.parametrize(
    ("mistake", "place", "name"),
    [
        (
            "r3_before_rope",
            f"{ATTENTION}.q_proj.weight query head 0",
            "its basis of R3, which then acts before RoPE",
        ),
        ("r3_of_queries_alone", f"{ATTENTION}.rotation key head 0", "no basis: not rotated"),
        ("r3_of_keys_alone", f"{ATTENTION}.rotation query head 0", "no basis: not rotated"),
        ("r3_keys_transposed", f"{ATTENTION}.rotation key head 0", "the transposed basis"),
        (
            "r3_queries_tiled",
            f"{ATTENTION}.rotation query head 1",
            "the basis of head 1, as if heads were tiled and not repeated",
        ),
        ("r3_identity", f"{ATTENTION}.rotation key head 0", "no basis: not rotated"),
        ("r4_applied_twice", f"{FEED_FORWARD}.down_proj.rotation", "its basis twice"),
        ("r4_merged_twice", f"{FEED_FORWARD}.down_proj.weight", "its basis twice"),
        ("r4_transposed", f"{FEED_FORWARD}.down_proj.weight", "the transposed basis"),
        ("r4_not_normalised", f"{FEED_FORWARD}.down_proj.weight", "its basis times 0.09449"),
        ("r4_online_not_normalised", f"{FEED_FORWARD}.down_proj.rotation", "its basis times 10.58"),
        ("r4_signs_dropped", f"{FEED_FORWARD}.down_proj.rotation", "its basis without the signs"),
        ("r4_of_another_layer", f"{FEED_FORWARD}.down_proj.rotation", "the basis of hidden site 1"),
        ("r4_of_one_expert_left_out", f"{FEED_FORWARD}.experts.down_proj expert 0", "no basis: not rotated"),
        (
            "r4_of_the_shared_expert_left_out",
            f"{FEED_FORWARD}.shared_expert.down_proj.weight",
            "no basis: not rotated",
        ),
    ],
)
def test_mistakes_of_running_rotations(mistake, place, name, fails):
    model_type, planted = RUNNING[mistake]
    verdict = fails("head_bases", spoilt(3, "SlicedModel", model_type, **planted))
    assert verdict.place.split(" (")[0] == place
    assert verdict.matched == name


@settings(deadline=None, max_examples=10)
@given(data=st.data(), seed=st.integers(0, 2**31))
def test_one_wrong_head_is_named(data, seed, fails):
    """Exactly one head of one projection is turned once more, by any orthogonal matrix."""
    subject = made(seed=seed)
    site = head_sites(architecture_of(subject.model), subject.model.config)[data.draw(st.integers(0, 1))]
    kind = data.draw(st.sampled_from(["value", "query", "key", "output"]))
    head = data.draw(st.integers(0, (site.heads if kind in ("value", "key") else site.query_heads) - 1))
    held = linear(subject.model, getattr(site, kind))
    turn, part = haar(site.width, seed=seed + 1), slice(head * site.width, (head + 1) * site.width)
    if kind == "output":
        held.weight.data[:, part] = held.weight.data[:, part] @ turn
    else:
        held.weight.data[part] = turn.T @ held.weight.data[part]
    verdict = fails("head_bases", subject)
    assert verdict.place == f"{held.weight_name} {'query' if kind == 'output' else kind} head {head} ({site.name})"
    assert verdict.matched == ("another orthogonal basis of its own head" if kind in ("value", "output") else "")


def test_a_matrix_that_is_not_orthogonal_is_told_from_one_that_is(fails):
    subject = made()
    rows = subject.model.model.layers[1].self_attn.v_proj.weight.data[12:24]
    rows[:] = torch.diag(torch.linspace(0.5, 2.0, 12, dtype=torch.float64)) @ rows
    verdict = fails("head_bases", subject)
    assert verdict.matched == "a matrix on its own head that is not orthogonal"
    assert verdict.place == "model.layers.1.self_attn.v_proj.weight value head 1 (layer 1 heads)"


def test_the_basis_of_another_layer(fails):
    """The model is made by one plan, and another is declared, in which the layers are exchanged."""
    subject = made(rotations=["R2"])
    declared = replace(subject.inner, values=subject.inner.values[::-1])
    assert fails("head_bases", replace(subject, inner=declared)).matched == "the basis of layer 1"


def test_a_rotation_that_is_gone(fails):
    subject = made()
    subject.model.model.layers[1].self_attn.rotation = torch.nn.Identity()
    verdict = fails("head_bases", subject)
    assert verdict.headline == (
        "subject has no rotation at model.layers.1.self_attn.rotation, which is declared to turn the layer 1 heads "
        "while the model runs"
    )


def test_tensors_of_another_shape(fails):
    subject = made(rotations=["R2"])
    subject.model.model.layers[0].self_attn.v_proj.bias = None
    assert "has model.layers.0.self_attn.v_proj.bias of shape none, the plan gives (24,)" in str(
        fails("head_bases", subject)
    )


def test_weights_that_are_not_finite_fail(fails):
    subject = made()
    subject.model.model.layers[0].self_attn.v_proj.weight.data[3, 4] = float("nan")
    assert fails("head_bases", subject).place.startswith("model.layers.0.self_attn.v_proj.weight value head 0")


def test_what_is_not_declared_is_missing(lacks):
    subject = made()
    lacks("head_bases", replace(subject, original=None), "original")
    lacks("head_bases", replace(subject, plan=None), "plan")
    for name in ("head_bases", "tensor_bases"):
        lacks(name, replace(subject, inner=None), "inner")
    assert (
        "rotates heads or feed-forward dimensions while it runs"
        in lacks("tensor_bases", replace(subject, inner=None), "inner").headline
    )


def test_values_of_which_no_plan_is_declared_are_not_those_of_the_original(fails):
    """R2 leaves no trace in the configuration, so a subject that declares no inner plan should have none."""
    subject = made(rotations=["R2"])
    verdict = fails("tensor_bases", replace(subject, inner=None))
    assert verdict.place == "model.layers.0.self_attn.v_proj.weight (layer 0 attention input)"


def test_heads_that_the_plan_turns_and_the_model_does_not(fails):
    plain = made(rotations=["R4"])
    declared = replace(plain.inner, values=inner_plan(plain.original, rotations=["R2"], seed=4).values)
    verdict = fails("tensor_bases", replace(plain, inner=declared))
    assert verdict.matched == "the right basis, but not those of its heads or feed-forward dimension"


def test_a_plan_for_another_model_is_refused():
    subject = made(rotations=["R2"])
    other = InnerPlan(values=subject.inner.values[:1])
    with pytest.raises(RotcheckError, match="1 entries in values, the model has 2 layers"):
        replace(subject, inner=other)


def test_a_subject_is_named_by_both_plans():
    subject = replace(made(), name="")
    assert str(subject) == "SlicedLlamaForCausalLM by random per-layer seed 1 and Haar R2 R3 R4"


@settings(deadline=None, max_examples=6)
@given(seed=st.integers(0, 2**31), model_type=st.sampled_from(["llama", "phi3", "qwen3"]))
def test_inner_bases_are_those_of_the_definition(seed, model_type):
    """Values through the turned projections are ``v_h @ U_h``, and the output is what it was."""
    model = adversarial_model(model_type, seed=seed, layers=1)
    plan = inner_plan(model, rotations=["R2"], seed=seed)
    (site,) = head_sites(architecture_of(model), model.config)
    bases = inner_bases(architecture_of(model), model.config, plan)
    value, output = linear(model, site.value), linear(model, site.output)
    x = torch.randn(5, 48, dtype=torch.float64)
    v = (x @ value.weight.T + (0 if value.bias is None else value.bias))[:, site.rows("value")]
    turned = x @ bases.weight(site.value, value.weight.detach()).T
    if value.bias is not None:
        turned = turned + bases.bias(site.value, value.bias.detach())
    heads = v.unflatten(1, (site.heads, site.width)).transpose(0, 1)
    expected = (heads @ plan.values[0]).transpose(0, 1).flatten(1)
    assert torch.allclose(turned[:, site.rows("value")], expected)
    before, after = (
        t.unflatten(1, (site.heads, site.width)).repeat_interleave(site.group, 1).flatten(1) for t in (v, expected)
    )
    weight = output.weight.detach()
    assert torch.allclose(before @ weight.T, after @ bases.weight(site.output, weight).T)
    assert bases.weight("lm_head", weight) is weight


def test_the_plan_of_nothing_touches_nothing():
    model = adversarial_model("llama", seed=1, layers=1)
    bases = inner_bases(architecture_of(model), model.config, None)
    weight = torch.eye(4)
    assert bases.weight("model.layers.0.self_attn.v_proj", weight) is weight
    assert bases.bias("model.layers.0.self_attn.v_proj", None) is None


def test_a_dense_plan_of_one_hidden_site_is_told_from_its_neighbour(fails):
    model = adversarial_model("llama", seed=1, layers=2)
    right = InnerPlan(hidden=(dense(haar(112, seed=1)), dense(haar(112, seed=2))))
    swapped = InnerPlan(hidden=right.hidden[::-1])
    subject = SlicedModel(
        rotate_and_slice(model, None, inner=swapped), inputs=torch.arange(8).view(1, 8), original=model, inner=right
    )
    assert fails("head_bases", subject).matched == "the basis of hidden site 1"
