"""The text of a verdict is part of the API: snapshots hold it."""

from __future__ import annotations

import pytest


@pytest.mark.parametrize("kind", ["failed", "undecided", "passed", "missing", "expected"])
def test_message(kind, request, snapshot):
    assert str(request.getfixturevalue(kind)) == snapshot


def test_the_first_line_is_complete_by_itself(failed):
    assert str(failed).splitlines()[0] == "ROT103 side: engine.rotate computes x @ basis.T, declared x @ basis"


def test_rich_is_imported_by_what_shows_things_only():
    import ast
    from pathlib import Path

    import rotcheck

    root = Path(rotcheck.__file__).parent
    using = {
        path.relative_to(root).as_posix()
        for path in root.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "rich"
    }
    assert using == {"reporting/caches.py", "reporting/console.py"}
