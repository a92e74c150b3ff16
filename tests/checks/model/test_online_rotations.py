"""``online_rotations`` demands that what turns activations is there, is orthogonal, is on both sides, and matters."""

from __future__ import annotations

import copy
import sys
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from transformers import AttentionInterface
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from rotcheck.bases import haar, hadamard
from rotcheck.bases.factored import dense
from rotcheck.checks._online_matrices import blocks
from rotcheck.checks._online_runs import bypassed, exact_copy, queries_left, watched
from rotcheck.defects._inner import spoilt
from rotcheck.defects.online import MISTAKES
from rotcheck.models import architecture_of, head_sites
from rotcheck.models.adversarial import adversarial_batch
from rotcheck.models.tiny import adversarial_model
from rotcheck.outcome import Outcome
from rotcheck.slicing import InnerPlan, inner_plan, random_plan, rotate_and_slice
from rotcheck.slicing.online import HeadRotation
from rotcheck.subjects.pair import ModelPair
from rotcheck.subjects.running import logits
from rotcheck.subjects.sliced import SlicedModel

PLANTED = {name: (model_type, planted) for name, _, _, model_type, planted, *_ in MISTAKES}
KINDS = ("ModelPair", "SlicedModel")
ROTATION = "model.layers.0.self_attn.rotation"


def made(kind="ModelPair", model_type="llama", *, seed=1, inner=None, dtype=torch.float64, stream=False, **options):
    model = adversarial_model(model_type, seed=seed, layers=2, dtype=dtype)
    inner = inner or inner_plan(model, seed=seed, **options)
    plan = random_plan(48, 2, "global", seed=seed) if stream else None
    after = rotate_and_slice(model, plan, inner=inner)
    batch = adversarial_batch(model, seed=2, length=9)
    if kind == "ModelPair":
        return ModelPair(model, after, inputs=batch, name="subject")
    return SlicedModel(after, inputs=batch, original=model, plan=plan, inner=inner, name="subject")


def attention(subject, layer=0):
    return subject.module.model.layers[layer].self_attn


@settings(deadline=None, max_examples=6)
@given(
    seed=st.integers(0, 2**31),
    rotations=st.sampled_from([("R3",), ("R4",), ("R2", "R3"), ("R3", "R4")]),
    kind=st.sampled_from(KINDS),
    model_type=st.sampled_from(["llama", "qwen3", "phi3", "mistral", "gemma2", "qwen2_moe"]),
)
def test_silent_on_any_of_the_rotations(seed, rotations, kind, model_type, passes):
    passes("online_rotations", made(kind, model_type, seed=seed, rotations=rotations))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", KINDS)
def test_silent_in_coarser_dtypes(dtype, kind, passes):
    passes("online_rotations", made(kind, dtype=dtype, stream=True))


def test_silent_where_every_head_has_its_own_keys(passes):
    passes("online_rotations", made("SlicedModel", "opt"))


def test_silent_on_symmetric_bases(passes):
    """Of which the transposed basis is no other one; a deterministic Hadamard matrix of size 12 is not symmetric."""
    inner = inner_plan(
        adversarial_model("llama", seed=1, layers=2, head_dim=16), seed=1, heads=lambda n, g: hadamard(n)
    )
    model = adversarial_model("llama", seed=1, layers=2, head_dim=16)
    after = rotate_and_slice(model, None, inner=inner)
    passes("online_rotations", ModelPair(model, after, inputs=adversarial_batch(model, seed=2)))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("mistake", "headline"),
    [
        ("r3_of_queries_alone", "stores keys turned by no basis: not rotated at layer 0 heads key head 0"),
        ("r3_of_keys_alone", "turns queries by no basis: not rotated at layer 0 heads query head 0"),
        ("r3_keys_transposed", "stores keys turned by the transposed basis at layer 0 heads key head 0"),
        (
            "r3_queries_tiled",
            "turns queries by the basis of head 1, as if heads were tiled and not repeated at layer 0 heads query head",
        ),
        ("r3_of_the_full_width", "mixes heads at the layer 0 heads: "),
        ("r3_identity", f"turns nothing at {ROTATION} head 0: its matrix is the identity"),
        ("r3_before_rope", f"turns nothing at {ROTATION} head 0: its matrix is the identity"),
        (
            "r4_missing",
            "has no rotation at model.layers.0.mlp.down_proj.rotation, which is declared to turn the layer 0",
        ),
        (
            "r4_online_not_normalised",
            "turns by an orthogonal matrix times 10.58 at model.layers.0.mlp.down_proj.rotation",
        ),
    ],
)
def test_mistakes(kind, mistake, headline, fails):
    model_type, planted = PLANTED[mistake]
    verdict = fails("online_rotations", spoilt(3, kind, model_type, **planted))
    assert verdict.headline.startswith(f"planted {headline}"), verdict.headline


@pytest.mark.parametrize("mistake", ["r4_transposed", "r4_merged_twice", "r4_of_another_layer", "r3_of_single_tokens"])
def test_what_it_cannot_see(mistake, passes):
    """A right rotation beside wrong weights, or behind another path: that of other checks."""
    model_type, planted = PLANTED[mistake]
    passes("online_rotations", spoilt(3, "ModelPair", model_type, **planted))


@settings(deadline=None, max_examples=8)
@given(seed=st.integers(0, 2**31), layer=st.integers(0, 1), head=st.integers(0, 1), kind=st.sampled_from(KINDS))
def test_a_stored_basis_that_drifts_is_no_rotation(seed, layer, head, kind, fails):
    subject = made(kind, seed=seed, rotations=["R3"])
    basis = attention(subject, layer).rotation.bases[head]
    basis += 1e-6 * torch.randn(basis.shape, generator=torch.Generator().manual_seed(seed), dtype=basis.dtype)
    verdict = fails("online_rotations", subject)
    assert verdict.place == f"model.layers.{layer}.self_attn.rotation head {head} (layer {layer} heads)"
    assert "does not match an orthogonal matrix" in verdict.headline


def test_another_basis_than_the_planned_one(fails):
    """A pair knows the stored bases alone; with a plan those of its layers are compared."""
    subject = made("SlicedModel", rotations=["R3"])
    declared = InnerPlan(queries=subject.inner.queries[::-1])
    verdict = fails("online_rotations", replace(subject, inner=declared))
    assert verdict.headline == (
        "subject stores keys turned by the basis of layer 1 at layer 0 heads key head 0, declared its basis"
    )


def test_a_rotation_that_is_not_stored(fails):
    subject = made(rotations=["R3"])
    held = attention(subject).rotation
    bare = HeadRotation(*held.bases.shape[:2])
    del bare.bases
    bare.register_buffer("bases", held.bases, persistent=False)
    attention(subject).rotation = bare
    verdict = fails("online_rotations", subject)
    assert verdict.headline == f"subject keeps the rotation at {ROTATION} out of its state dict"


def test_keys_that_pass_no_rotation(fails):
    """The stock attention on the layer's own function: queries are turned, keys never come by."""
    subject = made(rotations=["R3"])
    module = attention(subject)
    stock = type(module).__mro__[1]
    module.__class__ = type(stock.__name__, (stock,), {"__module__": type(module).__module__})
    verdict = fails("online_rotations", subject)
    assert verdict.headline.startswith("subject turns 1 tensors of [6] heads at the layer 0 heads")


def discarding_attention(module, query, *args, **kwargs):
    """Turns the queries, and attends with those that are not turned."""
    module.rotation(query)
    stock = sys.modules["transformers.models.llama.modeling_llama"].eager_attention_forward
    attend = ALL_ATTENTION_FUNCTIONS.get_interface(module.model_config._attn_implementation, stock)
    return attend(module, query, *args, **kwargs)


@pytest.mark.parametrize("kind", KINDS)
def test_turned_queries_that_are_not_used(kind, fails):
    """Each rotation alone is right here; that scores stay as they are without any of them is not."""
    AttentionInterface.register("rotcheck_discarding", discarding_attention)
    subject = made(kind, rotations=["R3"])
    for layer in range(2):
        attention(subject, layer).config._attn_implementation = "rotcheck_discarding"
    assert fails("online_rotations", subject).headline == (
        "subject gives the logits of turned keys and queries left as they are, declared the logits of queries and keys "
        "that are not turned"
    )


def test_a_rotation_that_cannot_be_called(fails):
    subject = made(rotations=["R4"])
    subject.after.model.layers[1].mlp.down_proj.rotation = nn.Linear(3, 3)
    assert "cannot be run: " in fails("online_rotations", subject).headline


@pytest.mark.parametrize(("rotation", "place"), [("R3", "queries of layer 1 heads"), ("R4", "layer 1 feed-forward")])
def test_a_rotation_without_influence(rotation, place, fails):
    subject = made(rotations=[rotation])
    layer = subject.after.model.layers[1]
    (layer.self_attn.o_proj if rotation == "R3" else layer.mlp.down_proj).weight.data.zero_()
    verdict = fails("online_rotations", subject)
    assert verdict.headline.startswith(f"subject does not depend on the rotation of {place}: the logits move by")


@pytest.mark.parametrize("kind", KINDS)
def test_identities_are_right_where_they_are_planned(kind, passes, fails):
    eye = torch.eye(12, dtype=torch.float64)
    bases = torch.stack([eye, eye])
    other = torch.stack([haar(12, seed=1), haar(12, seed=2)])
    inner = InnerPlan(
        queries=(bases, other), hidden=(dense(torch.eye(112, dtype=torch.float64)), dense(haar(112, seed=3)))
    )
    subject = made(kind, inner=inner)
    if kind == "SlicedModel":
        passes("online_rotations", subject)
    else:
        assert "turns nothing" in fails("online_rotations", subject).headline


def test_what_declares_no_rotations_is_not_judged(callables, build, lacks):
    lacks("online_rotations", callables, "module")
    lacks("online_rotations", made(rotations=["R2"]), "online rotations")
    lacks("online_rotations", build.sliced(), "online rotations")
    subject = build.pair()
    stranger = replace(subject, after=copy.deepcopy(subject.before))
    lacks("online_rotations", stranger, "a declaration of online rotations")


@pytest.mark.parametrize("rotation", ["R3", "R4"])
def test_a_plan_that_the_model_does_not_carry_out(rotation, fails):
    subject = made("SlicedModel", rotations=["R2"])
    more = inner_plan(subject.original, rotations=["R2", rotation], seed=1)
    verdict = fails("online_rotations", replace(subject, inner=more))
    assert verdict.headline == f"subject has no online rotations of {rotation}, which its inner plan has"


def test_logits_that_are_not_finite_fail(fails):
    subject = made(rotations=["R4"])
    subject.after.model.norm.weight.data[0] = float("nan")
    assert "not finite" in fails("online_rotations", subject).headline


def test_what_is_changed_is_changed_back():
    subject = made()
    before = {name: tensor.clone() for name, tensor in subject.after.state_dict().items()}
    model = exact_copy(subject.after)
    base = logits(model, subject.batches, what="the model")
    sites = head_sites(architecture_of(model), model.config)
    with bypassed(model, ROTATION):
        assert isinstance(model.get_submodule(ROTATION), nn.Identity)
    with queries_left(model, *sites):
        left = logits(model, subject.batches, what="the model")
    assert not torch.allclose(left, base)
    watched(model, subject.batches[0], sites, "the model")
    assert torch.equal(logits(model, subject.batches, what="the model"), base)
    after = subject.after.state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())


@settings(deadline=None, max_examples=6)
@given(seed=st.integers(0, 2**31), model_type=st.sampled_from(["llama", "phi", "qwen3"]))
def test_what_is_watched_is_what_the_definition_says(seed, model_type):
    subject = made(model_type=model_type, seed=seed, rotations=["R3"])
    model = exact_copy(subject.after)
    sites = head_sites(architecture_of(model), model.config)
    for site, seen in zip(sites, watched(model, subject.batches[0], sites, "the model"), strict=True):
        (keys, _), (queries, turned) = seen.turned
        bases = blocks(model.get_submodule(f"{site.module}.rotation"), site, site.heads)
        assert torch.allclose(seen.stored, keys @ bases)
        for head in range(site.query_heads):
            assert torch.allclose(turned[:, head], queries[:, head] @ bases[head // site.group])


def test_a_coarse_basis_is_made_orthogonal_before_it_is_tried():
    subject = made(dtype=torch.bfloat16)
    for basis in exact_copy(subject.after).get_submodule(ROTATION).bases:
        assert torch.allclose(basis.T @ basis, torch.eye(12, dtype=torch.float64), atol=1e-14)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rotations", [("R3",), ("R3", "R4")])
def test_equal_tokens_cannot_show_what_attention_attends_to(kind, rotations, judge):
    subject = replace(made(kind, rotations=rotations), inputs=torch.full((2, 12), 5))
    verdict = judge("online_rotations", subject)
    assert verdict.outcome is Outcome.UNDECIDED, str(verdict)
    assert verdict.needs == "inputs on which attention depends on its scores"
