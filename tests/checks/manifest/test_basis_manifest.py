"""``basis_manifest`` holds a model against what is said of its bases, tensor by tensor."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rotcheck.checks.basis_manifest import basis_manifest
from rotcheck.models import architecture_of
from rotcheck.models.adversarial import adversarial_batch
from rotcheck.models.tiny import SMALL, adversarial_model
from rotcheck.outcome import Outcome
from rotcheck.slicing import InnerSteps, Plan, Schedule, Steps, describe, inner_plan, random_plan, rotate_and_slice
from rotcheck.slicing.manifest import digest
from rotcheck.subjects.sliced import SlicedModel

Q_PROJ, O_PROJ = "model.layers.1.self_attn.q_proj.weight", "model.layers.0.self_attn.o_proj.weight"
SHORTCUT, ROTATION = "model.layers.0.attention_shortcut", "model.layers.1.self_attn.rotation.bases"
SIGNS, FACTOR = (f"model.layers.0.mlp.down_proj.rotation.{part}" for part in ("signs", "factor_0"))


def make(model_type="llama", *, seed=3, grouping="per-layer", dtype=torch.float32, private=False, **steps):
    """A rotated model with its manifest, from its plans."""
    original = adversarial_model(model_type, seed=seed, layers=2, dtype=dtype)
    architecture, plan = architecture_of(original), None
    schedule = steps.pop("schedule", Schedule.constant(0.0))
    if grouping and architecture.refuse(original.config) is None:
        plan = random_plan(
            original.config.hidden_size, 2, grouping, schedule, seed, branches=len(architecture.branches)
        )  # fmt: skip
    inner = inner_plan(original, seed=seed)
    model = rotate_and_slice(original, plan, inner=inner, **steps)
    manifest = describe(model, plan, inner, private=private)
    return SlicedModel(model, inputs=adversarial_batch(original, seed=4), manifest=manifest, name="subject")


def judge(subject):
    return basis_manifest.run(subject)


def fails(subject, *says):
    verdict = judge(subject)
    assert verdict.outcome is Outcome.FAILED, str(verdict)
    for part in says:
        assert part in str(verdict), str(verdict)
    return verdict


def with_facts(subject, **changes):
    return replace(subject, manifest=replace(subject.manifest, facts=replace(subject.manifest.facts, **changes)))


def with_use(subject, name, side, **changes):
    """The same model, of which the manifest says something else for one tensor."""
    tensors = dict(subject.manifest.facts.tensors)
    uses = tuple(replace(use, **changes) if use.side == side else use for use in tensors[name].uses)
    return with_facts(subject, tensors={**tensors, name: replace(tensors[name], uses=uses)})


def with_tensor(subject, name, change):
    """The same model with one tensor changed, in a copy."""
    model = copy.deepcopy(subject.model)
    tensor = model.state_dict()[name]
    with torch.no_grad():
        tensor.copy_(change(tensor.clone()))
    return replace(subject, model=model)


@pytest.fixture(scope="module")
def subject():
    return make()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("model_type", SMALL)
def test_silent_on_right_models(model_type, dtype):
    verdict = judge(make(model_type, dtype=dtype, schedule=Schedule.constant(0.25)))
    assert verdict.outcome is Outcome.PASSED, str(verdict)


@settings(max_examples=6)
@given(seed=st.integers(0, 2**20), grouping=st.sampled_from(["", "global", "k-block:1", "per-layer"]))
def test_silent_on_any_bases(seed, grouping):
    for private in (False, True):
        assert judge(make("phi", seed=seed, grouping=grouping, private=private)).outcome is Outcome.PASSED


def test_without_manifest_it_does_not_apply(subject):
    verdict = judge(replace(subject, manifest=None))
    assert verdict.outcome is Outcome.NOT_APPLICABLE
    assert "does not supply manifest" in verdict.headline


@settings(max_examples=8)
@given(data=st.data(), size=st.floats(1e-7, 1.0))
def test_one_number_of_any_tensor(data, size, subject):
    """Whatever is changed, and by however little, the tensor is named."""
    name = data.draw(st.sampled_from(sorted(subject.manifest.facts.tensors)))

    def change(tensor):
        flat = tensor.view(-1)
        flat[-1] = torch.nextafter(flat[-1] * (1 + size), torch.tensor(9e9))
        return tensor

    assert fails(with_tensor(subject, name, change)).place == name


def test_tensors_that_are_not_named_or_not_there(subject):
    tensors = dict(subject.manifest.facts.tensors)
    stored = tensors.pop(Q_PROJ)
    fails(with_facts(subject, tensors=tensors), f"holds a tensor {Q_PROJ} that bases.json does not name")
    fails(with_facts(subject, tensors={**tensors, Q_PROJ: stored, "x": stored}), "has no tensor x, which bases.json")


def test_another_dtype_and_shape(subject):
    tensors = subject.manifest.facts.tensors
    for changes, says in (({"dtype": "float16"}, "float16 (72, 48)"), ({"shape": (48, 72)}, "float32 (48, 72)")):
        changed = {**tensors, Q_PROJ: replace(tensors[Q_PROJ], **changes)}
        fails(with_facts(subject, tensors=changed), f"holds {Q_PROJ} as float32 (72, 48), bases.json names {says}")


@pytest.mark.parametrize(
    ("name", "side", "bases", "says"),
    [
        (Q_PROJ, "reader", ("R1.3",), "R1.3 of site 3, the next one, for the reader, which has R1.2"),
        (Q_PROJ, "reader", ("R1.1",), "R1.1 of site 1, the one before, for the reader, which has R1.2"),
        (Q_PROJ, "reader", ("R1.0",), "R1.0 of site 0 for the reader, which has R1.2"),
        (Q_PROJ, "reader", ("R9",), "R9 for the reader, and no basis is called that"),
        (O_PROJ, "writer", ("R1.2",), "R1.2 of site 2, the next one, for the writer, which has R1.1"),
        (O_PROJ, "reader", ("R2.0.0",), "1 bases of the reader, which has 6"),
        (O_PROJ, "reader", ("R2.0.0", "R2.0.1") * 3, "R2.0.1 of layer 0 head 1, another one, for part 1 of the reader"),
        (SHORTCUT, "shortcut", ("R1.1", "R1.0"), "the transposed shortcut, from R1.1 to R1.0"),
        (SHORTCUT, "shortcut", ("R1.0", "R1.2"), "R1.2 of site 2, the next one, for part 1 of the shortcut"),
        (ROTATION, "online", ("R2.1.0", "R2.1.1"), "R2.1.0 of layer 1 head 0 for part 0 of the online, which has R3"),
    ],
)
def test_a_basis_that_is_not_its_own_is_named(subject, name, side, bases, says):
    assert fails(with_use(subject, name, side, bases=bases), says).place == name


def test_a_block_and_a_side_that_are_not_its_own(subject):
    fails(with_use(subject, O_PROJ, "reader", block=(0, 36)), "block (0, 36) of the reader, which is (0, 72)")
    tensors = dict(subject.manifest.facts.tensors)
    tensors[O_PROJ] = replace(tensors[O_PROJ], uses=tensors[O_PROJ].uses[:1])
    fails(with_facts(subject, tensors=tensors), f"for {O_PROJ}, no writer (R1.1)")
    tensors[O_PROJ] = replace(tensors[O_PROJ], uses=subject.manifest.facts.tensors[O_PROJ].uses * 2)
    fails(with_facts(subject, tensors=tensors), "two uses of one side")


@pytest.mark.parametrize(
    ("index", "changes", "says"),
    [
        (0, {"sites": (1,)}, "has site 1 of basis R1.0, which is there twice"),
        (0, {"sites": (9,)}, "has site 9 of basis R1.0, which is not in the model"),
        (5, {"head": 1}, "has layer 0 head 1 of basis R2.0.0, which is there twice"),
        (5, {"size": 13, "factors": (13,)}, "has 12 coordinates at layer 0 head 0, basis R2.0.0 is 13"),
        (-1, {"hidden": 0}, "has feed-forward 0 of basis R4.0, which is there twice"),
        (
            -1,
            {"factors": (8, 14), "keys": ("a", "b", "c")},
            "has 112 coordinates at feed-forward 1, basis R4.1 is 8 x 14",
        ),
    ],
)
def test_bases_in_places_that_are_not_theirs(subject, index, changes, says):
    bases = list(subject.manifest.facts.bases)
    bases[index] = replace(bases[index], **changes)
    fails(with_facts(subject, bases=tuple(bases)), says)


def test_bases_that_are_missing(subject):
    bases = subject.manifest.facts.bases
    fails(with_facts(subject, bases=bases[1:]), "has site 0, which no basis of bases.json names")
    without = tuple(basis for basis in bases if basis.id != "R2.1.1")
    fails(with_facts(subject, bases=without), "has layer 1 head 1, which no basis of bases.json names")
    online = tuple(basis for basis in bases if basis.role != "R3")
    fails(with_facts(subject, bases=online), "has layer 0 head 0, which no basis of bases.json names")


def test_sites_that_share_where_the_model_does_not(subject):
    first, second, *others = subject.manifest.facts.bases
    merged = (replace(first, sites=(0, 1)), *others)
    assert second.sites == (1,)
    fails(with_facts(subject, bases=merged), "has two bases at sites 0 and 1 (config.site_bases), bases.json names one")
    shared = make(grouping="global")
    basis, *more = shared.manifest.facts.bases
    split = (replace(basis, sites=(0, 1, 2, 3)), replace(basis, id="R1.1", keys=("R1.1",), sites=(4,)), *more)
    fails(with_facts(shared, bases=split), "has one basis at sites 0 and 4 (config.site_bases), bases.json names two")


@pytest.mark.parametrize(("kind", "field"), [("R3", "online_queries"), ("R4", "online_hidden")])
def test_an_online_rotation_that_was_lost(kind, field, subject):
    original = adversarial_model("llama", seed=3, layers=2, dtype=torch.float32)
    kept = inner_plan(original, rotations=[other for other in ("R2", "R3", "R4") if other != kind], seed=3)
    plan = random_plan(48, 2, "per-layer", seed=3)
    lost = replace(subject, model=rotate_and_slice(original, plan, inner=kept))
    verdict = fails(lost, f"applies no {kind} rotation while it runs (config.{field}), bases.json names {kind}.0")
    assert "was lost" in verdict.hint


def test_a_manifest_of_another_model(subject):
    fails(with_facts(subject, model_type="mistral"), "is 'llama' by its config.model_type, bases.json is of 'mistral'")
    fails(with_facts(subject, hidden_size=64), "is 48 by its config.hidden_size, bases.json is of 64")


@pytest.mark.parametrize(
    ("step", "matched"),
    [
        (lambda u, v: v.T @ u, "the transposed shortcut, U_to.T @ U_from"),
        (lambda u, v: torch.eye(u.shape[1], v.shape[1], dtype=u.dtype), "an identity: no change of basis"),
        (lambda u, v: 2 * u.T @ v, ""),
    ],
)
def test_shortcuts_of_other_numbers_with_right_hashes(step, matched):
    verdict = fails(make(steps=replace(Steps(), shortcut=step)))
    assert (verdict.place, verdict.matched) == (SHORTCUT, matched)


@pytest.mark.parametrize(
    ("step", "matched"),
    [
        (lambda bases: bases.mT, "the transposed bases"),
        (lambda bases: bases.roll(-1, 0), "the bases of the next head"),
        (lambda bases: torch.eye(12).double().repeat(2, 1, 1), "an identity: it was never written"),
    ],
)
def test_online_rotations_of_other_numbers_with_right_hashes(step, matched):
    verdict = fails(make(inner_steps=InnerSteps(online_heads=step)))
    assert verdict.place == "model.layers.0.self_attn.rotation.bases"
    assert verdict.matched == matched


def test_the_rotation_of_another_layer_is_named(subject):
    exchanged = with_tensor(subject, ROTATION, lambda t: subject.model.state_dict()[ROTATION.replace("1", "0", 1)])
    verdict = fails(exchanged)
    assert (verdict.place, verdict.matched) == (ROTATION, "the previous layer's")


@pytest.mark.parametrize(("name", "change"), [(FACTOR, lambda t: t.mT), (SIGNS, lambda t: -t)])
def test_feed_forward_rotations_of_other_numbers(subject, name, change):
    verdict = fails(with_tensor(subject, name, change))
    assert verdict.place == name
    assert verdict.matched == ("the transposed bases" if name == FACTOR else "")


def test_bases_of_another_run_are_told_by_their_hash(subject):
    other = make(seed=11)
    mixed = replace(subject, manifest=replace(subject.manifest, tensors=other.manifest.tensors))
    fails(mixed, "has other bytes of basis R1.0 in bases.safetensors than bases.json names")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda u: u.half().double(), "with orthonormal columns at basis R1.0"),
        (torch.zeros_like, "has a basis of zeros at basis R1.0"),
        (lambda u: 1.001 * u, "with orthonormal columns at basis R1.0"),
        (lambda u: u * float("nan"), "has entries that are not finite in basis R1.0"),
    ],
)
def test_bases_that_are_not_orthogonal(subject, change, says):
    first, *others = subject.manifest.facts.bases
    tensors = {**subject.manifest.tensors, "R1.0": change(subject.manifest.tensors["R1.0"])}
    bases = (replace(first, sha256=digest(tensors["R1.0"])), *others)
    manifest = replace(subject.manifest, facts=replace(subject.manifest.facts, bases=bases), tensors=tensors)
    fails(replace(subject, manifest=manifest), says)


def test_signs_are_signs(subject):
    tensors = {**subject.manifest.tensors, "R4.1.signs": 1.5 * subject.manifest.tensors["R4.1.signs"]}
    manifest = replace(subject.manifest, tensors=tensors)
    fails(replace(subject, manifest=manifest), "has signs other than +1 and -1 in basis R4.1")


def test_with_hashes_only_numbers_are_not_judged():
    """What the docstring says that it cannot see; the bytes are still held against their hashes."""
    wrong = make(steps=replace(Steps(), shortcut=lambda u, v: v.T @ u), private=True)
    verdict = judge(wrong)
    assert verdict.outcome is Outcome.PASSED
    assert "its bases are private" in verdict.headline
    fails(with_tensor(wrong, SHORTCUT, lambda t: t.mT), "holds other bytes than bases.json names in 1 of 40 tensors")


def test_bases_of_another_seed_without_shortcuts_are_not_seen():
    """R1 in one basis, and R2: nothing in the model repeats them, so only the original can tell."""
    original = adversarial_model("llama", seed=3, layers=2, dtype=torch.float32)
    used, stated = (random_plan(48, 2, "global", seed=seed) for seed in (1, 2))
    model = rotate_and_slice(original, used)
    subject = SlicedModel(model, inputs=adversarial_batch(original, seed=4), manifest=describe(model, stated, None))
    assert judge(subject).outcome is Outcome.PASSED


def test_sliced_bases_with_nothing_in_common():
    """A shortcut of zeros is then right; nothing is divided by its norm."""
    original = adversarial_model("llama", seed=3, layers=2, dtype=torch.float32)
    right = torch.eye(48, dtype=torch.float64)
    plan = Plan(bases=(right, right.flip(1)), site_basis=(0, 0, 1, 1, 1), widths=(24,) * 5)
    model = rotate_and_slice(original, plan)
    assert not model.get_parameter("model.layers.0.feed_forward_shortcut").any()
    subject = SlicedModel(model, inputs=adversarial_batch(original, seed=4), manifest=describe(model, plan, None))
    assert judge(subject).outcome is Outcome.PASSED
    changed = with_tensor(subject, "model.layers.0.feed_forward_shortcut", lambda t: t + 1e-3)
    assert fails(changed).place == "model.layers.0.feed_forward_shortcut"
