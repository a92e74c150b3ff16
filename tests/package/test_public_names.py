"""The table of public names, the stub for type checkers and the modules agree."""

from __future__ import annotations

import ast
import importlib
import inspect
from pathlib import Path

import pytest

import rotcheck

STUB = Path(rotcheck.__file__).with_suffix(".pyi")


def stub_imports() -> dict[str, str]:
    """Name to module, for every re-export ``from rotcheck.x import Name as Name`` of the stub."""
    found = {}
    for node in ast.parse(STUB.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                assert alias.asname == alias.name, f"{alias.name} is not re-exported: write `as {alias.name}`"
                found[alias.name] = str(node.module)
    return found


def test_stub_and_table_agree():
    table = {name: f"rotcheck.{module}" for name, module in rotcheck._HOME.items()}
    assert stub_imports() == table


def test_all_is_the_table_in_order():
    assert rotcheck.__all__ == sorted(rotcheck._HOME)


@pytest.mark.parametrize("name", sorted(rotcheck._HOME))
def test_every_name_resolves_to_its_module(name):
    module = importlib.import_module(f"rotcheck.{rotcheck._HOME[name]}")
    assert getattr(rotcheck, name) is getattr(module, name)


@pytest.mark.parametrize("name", sorted(rotcheck._HOME))
def test_every_name_has_a_docstring(name):
    assert inspect.getdoc(getattr(rotcheck, name))


def test_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'rotcheck' has no attribute 'Rotatoin'"):
        rotcheck.Rotatoin  # noqa: B018


def test_the_package_is_typed():
    assert (STUB.parent / "py.typed").is_file()


def test_the_surface_is_small():
    assert len(rotcheck.__all__) <= 20
