"""What a defect must say, and how they are collected."""

from __future__ import annotations

import dataclasses
import re

import pytest
import torch

from rotcheck.checking import Check
from rotcheck.defects import Defect, defects
from rotcheck.errors import RotcheckError
from rotcheck.registry import all_checks

FIELDS = {"name": "n", "kind": "Rotation", "issue": "a/b#1", "summary": "s", "plant": print, "killed_by": ("side",)}


def test_they_are_an_immutable_tuple_with_unique_names():
    found = defects()
    assert isinstance(found, tuple)
    assert len({d.name for d in found}) == len(found)
    assert defects() is not None
    with pytest.raises(dataclasses.FrozenInstanceError):
        found[0].name = "other"


def test_a_kind_narrows_them():
    assert defects("Rotation") == tuple(d for d in defects() if d.kind == "Rotation")
    assert len(defects("Rotation")) >= 25
    assert defects("NoSuchKind") == ()


@pytest.mark.parametrize("defect", defects("Rotation"), ids=lambda defect: defect.name)
def test_each_says_where_it_was_seen_and_who_finds_it(defect):
    assert re.fullmatch(r"[\w.-]+/[\w.-]+#\d+|class B\d+ \(.+\)", defect.issue)
    checks = {c.name: c for c in all_checks()}
    assert set(defect.killed_by) <= set(checks)
    assert all(isinstance(checks[name], Check) and defect.kind in checks[name].kinds for name in defect.killed_by)
    assert defect.twin is not None


@pytest.mark.parametrize("defect", defects("Rotation"), ids=lambda defect: defect.name)
def test_the_same_seed_plants_the_same_subject(defect):
    one, two, other = defect.plant(3), defect.plant(3), defect.plant(4)
    assert one.kind == defect.kind
    assert str(one) == str(two)
    assert torch.equal(one.basis, two.basis)
    x = one.probe(torch.randn(64, one.width, dtype=torch.float64, generator=torch.Generator().manual_seed(0)))
    torch.testing.assert_close(one.apply(x), two.apply(x), rtol=0, atol=0)
    assert other.width == one.width


def test_most_subjects_have_sizes_that_are_no_power_of_two():
    widths = [d.plant(0).width for d in defects("Rotation")]
    odd = [w for w in widths if w & (w - 1)]
    assert len(odd) > 0.75 * len(widths)


@pytest.mark.parametrize(
    "changes", [{"name": ""}, {"issue": " "}, {"summary": ""}, {"kind": ""}, {"killed_by": ()}, {"killed_by": "side"}]
)
def test_an_incomplete_defect_is_refused(changes):
    with pytest.raises(RotcheckError, match="Defect"):
        Defect(**(FIELDS | changes))
