"""A transform_config of the wrong form is refused in one line, and a hostile one costs no time."""

from __future__ import annotations

import json
import time

import pytest

from rotcheck.adapters import read_transform_config
from rotcheck.adapters.compressed_tensors import MOST_GROUPS, MOST_PLACES

R4 = {
    "type": "hadamard",
    "apply": [
        {"targets": ["re:.*down_proj$"], "location": "input"},
        {"targets": ["re:.*down_proj$"], "location": "weight_input", "inverse": True},
    ],
}


def config(**groups):
    return {"transform_config": {"config_groups": groups}}


def having(**fields):
    """R4 with other fields of the scheme."""
    return config(a={**R4, **fields})


def applied(**fields):
    """R4 with other fields of its second place."""
    return having(apply=[R4["apply"][0], {**R4["apply"][1], **fields}])


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({}, "holds no transform_config"),
        ({"config_groups": {"group_0": {"targets": ["Linear"]}}}, "holds no transform_config"),
        ({"transform_config": [1]}, "transform_config is [1], not an object"),
        ({"transform_config": {"config_groups": []}}, "config_groups is [], not an object of groups"),
        (config(a=3), "config_groups['a'] is 3, not an object"),
        (config(a={}), "config_groups['a'].type is None, not the name"),
        (having(head_dim=0), "config_groups['a'].head_dim is 0, not a positive integer or null"),
        (having(head_dim=True), "head_dim is True"),
        (having(randomize=1), "randomize is 1, not true or false"),
        (having(requires_grad="no"), "requires_grad is 'no'"),
        (having(precision=32), "precision is 32"),
        (having(apply={}), "apply is {}, not a list"),
        (having(apply=["x"]), "config_groups['a'].apply[0] is 'x'"),
        (applied(targets=None), "apply[1].targets is None"),
        (applied(targets=[3]), "apply[1].targets is [3]"),
        (applied(ignore=3), "apply[1].ignore is 3"),
        (applied(location=None), "location is None, not one of input, weight_input, weight_output, output, q_attn, k_"),
        (applied(inverse=0), "inverse is 0, not true or false"),
        (config(**{str(i): R4 for i in range(MOST_GROUPS + 1)}), "config_groups is {"),
        (having(apply=R4["apply"] * (MOST_PLACES // 2 + 1)), "apply is [{"),
    ],
)
def test_values_of_the_wrong_type_are_refused(refused, fields, says):
    refused(lambda: read_transform_config(fields), says, "quantization_config.transform_config")


def test_files_that_cannot_be_read(tmp_path, refused):
    refused(lambda: read_transform_config(tmp_path), "config.json is missing")
    refused(lambda: read_transform_config(tmp_path / "none.json"), "none.json: no such file")
    (tmp_path / "config.json").write_text("{")
    refused(lambda: read_transform_config(tmp_path), "config.json: not valid JSON")
    (tmp_path / "config.json").write_text(json.dumps(config(a=1)))
    refused(lambda: read_transform_config(tmp_path), "config.json: config_groups['a'] is 1")


def test_regular_expressions_of_the_file_are_not_run():
    """This one takes exponential time on a name that ends otherwise."""
    slow = "re:^(.+)+(.+)+(.+)+(.+)+down_proj!$"
    before = time.perf_counter()
    read = read_transform_config(having(apply=[{**place, "targets": slow} for place in R4["apply"]]))
    assert (read.groups[0].role, read.problems) == ("R4", ())
    assert time.perf_counter() - before < 1


@pytest.mark.parametrize("location", ["in\nput", "input", "output", "k_cache"])
def test_odd_names_stay_on_one_line(location):
    place = {"targets": ["x\ny", "z" * 999], "location": location, "odd\nfield": 1}
    problems = read_transform_config(config(**{"a\nb": {"type": "had\namard", "apply": [place]}})).problems
    assert len(problems) >= 3
    assert all("\n" not in problem and len(problem) < 300 for problem in problems)
