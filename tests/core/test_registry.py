"""Choosing checks by name, code and prefix."""

from __future__ import annotations

import dataclasses
import re
import sys
import types

import pytest

from rotcheck import registry
from rotcheck.checking import check
from rotcheck.checks.side import side
from rotcheck.errors import RotcheckError
from rotcheck.registry import all_checks, builtin_checks, choose, expand, find


def named(names) -> list[str]:
    return [c.name for c in names]


def test_built_in_checks_are_immutable_ordered_and_unique():
    found = builtin_checks()
    assert isinstance(found, tuple)
    assert [c.code for c in found] == sorted({c.code for c in found})
    assert len({c.name for c in found}) == len(found)


def test_every_built_in_code_is_ours_and_every_name_is_its_file():
    for c in builtin_checks():
        assert re.fullmatch(r"ROT\d{3}", c.code)
        assert c.function.__module__ == f"rotcheck.checks.{c.name}"


def test_every_built_in_check_says_what_it_cannot_see():
    for c in builtin_checks():
        for heading in ("Catches\n-------", "Cannot see\n----------", "References\n----------"):
            assert heading in c.documentation, f"{c.name} lacks {heading.splitlines()[0]}"


@pytest.mark.parametrize(
    ("select", "ignore", "expected"),
    [
        (["side"], [], ["side"]),
        (["ROT103"], [], ["side"]),
        (["rot103"], [], ["side"]),
        (["ROT103", "side", "isometry"], [], ["isometry", "side"]),
        (
            ["ROT10"],
            ["side", "ROT104"],
            ["orthogonality", "isometry", "determinism", "round_trip", "precision_scaling", "leading_energy"],
        ),
        (["side"], ["side"], []),
    ],
)
def test_names_codes_and_prefixes(select, ignore, expected):
    assert named(choose("Rotation", select=select, ignore=ignore)) == expected


def test_without_a_selection_all_checks_of_the_kind_are_chosen():
    assert choose("Rotation") == tuple(c for c in all_checks() if "Rotation" in c.kinds)
    assert choose("NoSuchKind") == ()


@pytest.mark.parametrize(("wrong", "right"), [("sides", "side"), ("energy-order", "energy_order"), ("ROT109", "ROT10")])
def test_a_misspelt_check_is_corrected(wrong, right):
    with pytest.raises(RotcheckError, match="did you mean") as caught:
        choose("Rotation", select=[wrong])
    assert right in str(caught.value)


@pytest.mark.parametrize("wrong", ["", "zzzzzzzzzz"])
def test_an_unknown_check_lists_the_known_ones(wrong):
    with pytest.raises(RotcheckError, match="no check is called"):
        expand([wrong], builtin_checks())


def test_find_takes_a_name_or_a_code():
    assert find("side") is find("ROT103") is side


def made(name: str, code: str):
    def function(subject, witness):
        """A check for this test."""

    function.__name__ = name
    return check(code=code, kinds=["Rotation"])(function)


@pytest.fixture
def installed(monkeypatch):
    """Installs checks as another distribution would, by entry point."""

    def install(**checks):
        module = types.ModuleType("acme_checks")
        vars(module).update(checks)
        monkeypatch.setitem(sys.modules, "acme_checks", module)
        entry = dataclasses.make_dataclass("Entry", ["value"])(value="acme_checks")
        monkeypatch.setattr(registry, "entry_points", lambda group: [entry] if group == registry.ENTRY_POINTS else [])

    return install


def test_an_installed_check_is_found(installed):
    extra = made("acme", "ACME7001")
    installed(acme=extra)
    assert find("ACME7001") is extra
    assert extra not in builtin_checks()


@pytest.mark.parametrize(
    ("name", "code", "clash"), [("side", "ACME7001", "name side"), ("acme", "ROT103", "code ROT103")]
)
def test_a_name_or_code_cannot_be_taken_twice(installed, name, code, clash):
    installed(acme=made(name, code))
    with pytest.raises(RotcheckError, match=f"two checks have the {clash}"):
        all_checks()


def test_importing_a_built_in_check_does_not_define_it_again(installed):
    installed(side=side, renamed=side)
    assert all_checks() == builtin_checks()


def test_checks_may_be_given_instead():
    extra = made("acme", "ACME7001")
    assert choose("Rotation", checks=[extra]) == (extra,)
    with pytest.raises(RotcheckError, match="known: acme"):
        choose("Rotation", select=["side"], checks=[extra])
