"""A transform_config is read group by group: role, places, pairs, what is saved, and what does not cancel."""

from __future__ import annotations

import copy
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rotcheck.adapters import read_transform_config

WRITERS = ["re:.*embed_tokens$", "re:.*o_proj$", "re:.*down_proj$"]
READERS = ["re:.*q_proj$", "re:.*k_proj$", "re:.*v_proj$", "re:.*up_proj$", "re:.*gate_proj$", "lm_head"]


def place(targets, location, inverse=False, **more):
    return {"targets": targets, "location": location, "inverse": inverse, **more}


def scheme(*places, kind="random-hadamard", block=None, **more):
    return {"type": kind, "apply": list(places), "head_dim": block, "precision": "torch.float64", **more}


R1 = scheme(place(WRITERS, "weight_output"), place(READERS, "weight_input", True))
R2 = scheme(place(["re:.*v_proj$"], "weight_output"), place(["re:.*o_proj$"], "weight_input", True), block=16)
R3 = scheme(place(["re:.*self_attn$"], "q_attn"), place(["re:.*self_attn$"], "k_cache"), kind="hadamard", block=16)
R4 = scheme(place(["re:.*down_proj$"], "input"), place(["re:.*down_proj$"], "weight_input", True))
QUIP_V = scheme(
    place(["Linear"], "input", ignore=["lm_head"]), place(["Linear"], "weight_input", True, ignore=["lm_head"])
)
QUIP_U = scheme(place("Linear", "weight_output", ignore="lm_head"), place("Linear", "output", True, ignore="lm_head"))
RIGHT = {"R1": R1, "R2": R2, "R3": R3, "R4": R4, "v": QUIP_V, "u": QUIP_U}


def described(**groups):
    return read_transform_config({"transform_config": {"config_groups": groups}})


def changed(some, **more):
    """A scheme with one value replaced: ``places_0_inverse=True`` for apply[0].inverse."""
    some = copy.deepcopy(some)
    for name, value in more.items():
        if name.startswith("places_"):
            _, index, field = name.split("_", 2)
            some["apply"][int(index)][field] = value
        else:
            some[name] = value
    return some


def dropped(some, index):
    some = copy.deepcopy(some)
    del some["apply"][index]
    return some


def of_layer(layer):
    attention = f"model.layers.{layer}.self_attn"
    return changed(R2, places_0_targets=[f"{attention}.v_proj"], places_1_targets=[f"{attention}.o_proj"])


@given(names=st.permutations(("R1", "R2", "R3", "R4", "v", "u")), count=st.integers(0, 6))
def test_right_configs_have_their_roles_and_no_problems(names, count):
    read = described(**{name: RIGHT[name] for name in names[:count]})
    assert [group.name for group in read.groups] == list(names[:count])
    assert [group.role for group in read.groups] == [name if name[0] == "R" else "other" for name in names[:count]]
    assert all(group.pairs == ((0, 1),) for group in read.groups)
    assert read.problems == ()


@given(names=st.permutations(("a", "b", "c", "d")))
def test_the_role_does_not_depend_on_the_name(names):
    read = described(**dict(zip(names, (R1, R2, R3, R4), strict=True)))
    assert [group.role for group in read.groups] == ["R1", "R2", "R3", "R4"]
    assert read.roles == {role: (name,) for role, name in zip(("R1", "R2", "R3", "R4"), names, strict=True)}


def test_what_a_group_says():
    read = described(R4=scheme(*R4["apply"], block=32, randomize=True), v=QUIP_V)
    group, other = read.groups
    assert (group.kind, group.block, group.randomize, group.requires_grad) == ("random-hadamard", 32, True, False)
    assert group.precision == "float64"
    online, fused = group.places
    assert (online.targets, online.location, online.inverse, online.online) == (
        ("re:.*down_proj$",),
        "input",
        False,
        True,
    )
    assert (fused.location, fused.inverse, fused.online) == ("weight_input", True, False)
    assert other.places[0].ignore == ("lm_head",)


def test_only_online_matrices_are_saved():
    saved = [group.saved for group in described(**RIGHT).groups]
    assert saved == [
        (),
        (),
        (".R3_q_attn.weight", ".R3_k_cache.weight"),
        (".R4_input.weight",),
        (".v_input.weight",),
        (".u_output.weight",),
    ]


def test_names_of_other_models_are_known():
    fused = scheme(
        place(["model.embed_tokens", "re:.*self_attn.dense$", "re:.*fc2$"], "weight_output"),
        place(["re:.*qkv_proj$", "re:.*gate_up_proj$", "lm_head"], "weight_input", True),
    )
    opt = scheme(
        place(["re:.*embed_.*", "re:.*out_proj$", "re:.*fc2$"], "weight_output"),
        place(["re:.*q_proj$", "re:.*k_proj$", "re:.*v_proj$", "re:.*fc1$", "lm_head"], "weight_input", True),
    )
    for some in (fused, opt):
        read = described(R1=some)
        assert read.groups[0].role == "R1"
        assert read.problems == ()


@pytest.mark.parametrize(
    "wrap",
    [
        lambda config: {"quantization_config": {"config_groups": {"g": {"targets": []}}, "transform_config": config}},
        lambda config: {"transform_config": config, "model_type": "llama"},
        lambda config: config,
    ],
    ids=["config.json", "quantization_config", "itself"],
)
@pytest.mark.parametrize("how", ["mapping", "file", "directory"])
def test_wherever_the_config_is(tmp_path, wrap, how):
    fields = wrap({"config_groups": {"R1": R1, "R3": R3}})
    (tmp_path / "config.json").write_text(json.dumps(fields))
    source = {"mapping": fields, "file": tmp_path / "config.json", "directory": tmp_path}[how]
    read = read_transform_config(source)
    assert list(read.roles) == ["R1", "R3"]
    assert read == read_transform_config({"transform_config": {"config_groups": {"R1": R1, "R3": R3}}})


def test_a_model_without_transforms():
    for fields in ({"transform_config": {}}, {"quantization_config": {"transform_config": {}}}):
        assert read_transform_config(fields).groups == ()
        assert read_transform_config(fields).problems == ()


@pytest.mark.parametrize(
    ("groups", "says"),
    [
        ({"R4": dropped(R4, 1)}, "group 'R4': input of re:.*down_proj$ has no partner: nothing applies the inverse"),
        ({"R4": dropped(R4, 0)}, "weight_input of re:.*down_proj$ has no partner: nothing applies the transform"),
        ({"R4": changed(R4, places_1_inverse=False)}, "input of re:.*down_proj$ has no partner"),
        ({"R4": changed(R4, places_1_ignore=["re:.*layers.0.*"])}, "input of re:.*down_proj$ has no partner"),
        ({"R4": changed(R4, places_1_targets=["re:.*layers.0.mlp.down_proj$"])}, "has no partner"),
        ({"R3": dropped(R3, 1)}, "q_attn of re:.*self_attn$ has no partner: nothing applies the same at k_cache"),
        ({"R3": dropped(R3, 0)}, "k_cache of re:.*self_attn$ has no partner: nothing applies the same at q_attn"),
        ({"R3": changed(R3, places_1_inverse=True, type="random-hadamard")}, "q_attn and k_cache differ in inverse"),
        ({"R3": changed(R3, head_dim=None)}, "R3 without head_dim is not applied head by head"),
        ({"R2": changed(R2, head_dim=None)}, "R2 without head_dim is not applied head by head"),
        ({"R2": dropped(R2, 0)}, "weight_input of re:.*o_proj$ has no partner"),
        ({"R2": dropped(R2, 1)}, "weight_output of re:.*v_proj$ has no partner"),
        ({"R1": dropped(R1, 1)}, "R1 leaves out the head at weight_input, which stays in the old basis"),
        ({"R1": changed(R1, places_0_targets=WRITERS[1:])}, "R1 leaves out the embedding at weight_output"),
        ({"R1": changed(R1, places_0_targets=WRITERS[:-1])}, "R1 leaves out the down at weight_output"),
        ({"R1": changed(R1, places_1_targets=READERS[:-1])}, "R1 leaves out the head at weight_input"),
        ({"R1": changed(R1, places_1_targets=READERS[1:])}, "R1 leaves out the query at weight_input"),
        ({"R1": changed(R1, places_1_inverse=False)}, "weight_output of re:.*embed_tokens$"),
        ({"R1": changed(R1, type="random-matrix")}, "their inverse): an RMSNorm"),
        ({"R3": changed(R3, type="random-matrix")}, "their inverse): queries"),
        ({"R4": changed(R4, type="random-matrix")}, "cancel only as well as its condition number"),
        ({"R1": changed(R1, type="fourier")}, "type 'fourier' is not one of hadamard, random-hadamard, random-matrix"),
        ({"R1": changed(R1, requires_grad=True)}, "requires_grad is true"),
        ({"R4": changed(R4, places_0_location="residual")}, "location 'residual' is not one of input, weight_input"),
        ({"R2": R4}, "group 'R2': is applied where R4 belongs"),
        ({"R4": R3}, "group 'R4': is applied where R3 belongs"),
        ({"x": scheme()}, "group 'x': is applied nowhere"),
        ({"a": R1, "b": R1}, "R1 is applied twice at weight_input of lm_head, by 'a' and 'b'"),
        ({"R1": {**R1, "seed": 3}}, "field \"config_groups['R1'].seed\" is not one of compressed-tensors"),
        ({"R1": changed(R1, places_0_order=3)}, "apply[0].order"),
    ],
)
def test_a_problem_is_named(groups, says):
    problems = described(**groups).problems
    assert any(says in problem for problem in problems), problems
    assert all("\n" not in problem for problem in problems)


@pytest.mark.parametrize(
    "groups",
    [
        {"R3": changed(R3, places_1_inverse=True)},  # Sylvester's matrix is symmetric
        {"a": of_layer(0), "b": of_layer(1)},
        {"R1": changed(R1, head_dim=32)},
        {"mixed": scheme(place(["x"], "output"), place(["y"], "input", True))},
    ],
)
def test_what_only_looks_wrong_is_no_problem(groups):
    assert described(**groups).problems == ()


def test_a_missing_partner_is_not_covered_by_another_group():
    """The two groups have matrices of their own."""
    problems = described(one=dropped(R4, 1), two=dropped(R4, 0)).problems
    assert sum("has no partner" in problem for problem in problems) == 2


@given(name=st.sampled_from(sorted(RIGHT)), index=st.integers(0, 1))
def test_no_place_can_be_left_out(name, index):
    assert any("has no partner" in problem for problem in described(**{name: dropped(RIGHT[name], index)}).problems)


@given(name=st.sampled_from(sorted(RIGHT)), index=st.integers(0, 1))
def test_no_side_can_be_turned_round(name, index):
    """Only a symmetric matrix allows it, on queries and keys."""
    turned = copy.deepcopy(RIGHT[name])
    turned["apply"][index]["inverse"] = not turned["apply"][index]["inverse"]
    assert bool(described(**{name: turned}).problems) == (name != "R3")
    assert described(**{name: {**turned, "type": "random-hadamard"}}).problems


@given(name=st.sampled_from(sorted(RIGHT)))
def test_both_sides_turned_round_are_the_inverse_rotation(name):
    turned = copy.deepcopy(RIGHT[name])
    for some in turned["apply"]:
        some["inverse"] = not some["inverse"]
    read = described(**{name: turned})
    assert read.problems == ()
    assert read.groups[0].role == described(**{name: RIGHT[name]}).groups[0].role


@given(index=st.integers(0, 1), data=st.data())
def test_no_part_of_the_stream_can_be_left_out(index, data):
    """But a gate, which not every feed-forward has."""
    names = [name for name in (WRITERS, READERS)[index] if "gate" not in name]
    left = data.draw(st.sampled_from(names))
    targets = [name for name in R1["apply"][index]["targets"] if name != left]
    problems = described(R1=changed(R1, **{f"places_{index}_targets": targets})).problems
    assert len(problems) == 1
    assert "which stays in the old basis" in problems[0]


def test_the_order_of_places_does_not_matter():
    for name, right in RIGHT.items():
        read = described(**{name: {**right, "apply": right["apply"][::-1]}})
        assert read.problems == ()
        assert read.groups[0].role == described(**{name: right}).groups[0].role
