"""A package that declares an architecture, installed for one test."""

from __future__ import annotations

import sys

import pytest

from rotcheck.models.declared import _collected
from rotcheck.slicing.sliced import classes


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """``installed({"starcoder2": "mine:DECLARED"}, mine="DECLARED = ...")``: modules, and their entry points."""
    names = []

    def install(points, **modules):
        for name, source in modules.items():
            (tmp_path / f"{name}.py").write_text(source, encoding="utf-8")
            names.append(name)
        info = tmp_path / f"declared_{len(names)}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: declared-{len(names)}\nVersion: 1.0\n")
        lines = ["[rotcheck.architectures]", *(f"{name} = {value}" for name, value in points.items())]
        (info / "entry_points.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
        forget()

    def forget():
        _collected.cache_clear()
        classes.cache_clear()

    monkeypatch.syspath_prepend(tmp_path)
    yield install
    for name in names:
        sys.modules.pop(name, None)
    monkeypatch.undo()
    forget()
