"""Imports run one way: a room uses only the rooms above it, and the core files use nothing above themselves."""

from __future__ import annotations

import ast
from collections.abc import Iterator

import pytest

CORE = ("errors", "outcome", "convention", "tolerance", "witness", "checking")
ROOMS = (
    "bases",
    "kernels",
    "quantize",
    "measures",
    "models",
    "slicing",
    "adapters",
    "spectral",
    "diagnose",
    "subjects",
    "checks",
    "defects",
    "registry",
    "report",
    "runner",
    "studies",
    "timing",
    "strategies",
    "reporting",
    "cli",
    "pytest_plugin",
)
ORDER = {**dict.fromkeys(CORE, 0), **{room: rank for rank, room in enumerate(ROOMS, start=1)}}


class Imports(ast.NodeVisitor):
    """Absolute and relative imports of rotcheck modules; those for type checkers only do not count."""

    def __init__(self, module: str) -> None:
        self.package = module.split(".")[:-1]
        self.found: list[tuple[str, int]] = []

    def visit_If(self, node: ast.If) -> None:
        test = ast.unparse(node.test)
        for child in node.orelse if test in ("TYPE_CHECKING", "typing.TYPE_CHECKING") else [*node.body, *node.orelse]:
            self.visit(child)

    def visit_Import(self, node: ast.Import) -> None:
        self.found += [(alias.name, node.lineno) for alias in node.names if alias.name.split(".")[0] == "rotcheck"]

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        base = self.package[: len(self.package) - node.level + 1] if node.level else []
        module = ".".join([*base, *([node.module] if node.module else [])])
        if module == "rotcheck":
            self.found += [(f"rotcheck.{alias.name}", node.lineno) for alias in node.names]
        elif module.startswith("rotcheck."):
            self.found.append((module, node.lineno))


def imports(name: str, tree: ast.Module) -> list[tuple[str, int]]:
    visitor = Imports(name)
    visitor.visit(tree)
    return visitor.found


def room(name: str) -> str:
    return name.split(".")[1] if "." in name else "__init__"


def violations(trees: dict[str, ast.Module]) -> Iterator[str]:
    for name, tree in trees.items():
        here = room(name)
        if here == "__init__":
            continue
        for imported, line in imports(name, tree):
            there = room(imported)
            if there not in ORDER:  # rotcheck itself, or a name of it such as __version__
                continue
            if here not in ORDER:
                yield f"{name} is in no room: add {here} to the order in DESIGN section 7 and here"
            elif here != there and ORDER[there] >= ORDER[here] and not (here in CORE and there in CORE):
                yield f"{name}:{line} imports {imported}, which is below it"


def test_every_room_looks_up(trees):
    assert sorted(violations(trees)) == []


def test_every_module_has_a_room(trees):
    assert {room(name) for name in trees} - set(ORDER) == {"__init__"}


def test_the_package_file_imports_nothing_of_its_own(trees):
    assert imports("rotcheck.__init__", trees["rotcheck.__init__"]) == []


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("rotcheck.bases.haar", "from rotcheck.models import sites"),
        ("rotcheck.checking", "import rotcheck.runner"),
        ("rotcheck.slicing.plan", "def f():\n    from rotcheck.subjects.pair import ModelPair"),
        ("rotcheck.models.opt", "from ..cli import main"),
        ("rotcheck.models.opt", "if x:\n    from rotcheck import runner"),
    ],
)
def test_the_rule_rejects(name, source):
    assert len(list(violations({name: ast.parse(source)}))) == 1


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("rotcheck.slicing.plan", "from rotcheck.bases.haar import haar"),
        ("rotcheck.slicing.plan", "from .schedule import Schedule"),
        (
            "rotcheck.outcome",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from rotcheck.runner import verify",
        ),
        ("rotcheck.cli.run", "from rotcheck import __version__, runner"),
    ],
)
def test_the_rule_accepts(name, source):
    assert list(violations({name: ast.parse(source)})) == []
