from __future__ import annotations

import ast
from pathlib import Path

import pytest

import rotcheck

ROOT = Path(rotcheck.__file__).parent


@pytest.fixture(scope="session")
def trees() -> dict[str, ast.Module]:
    """Parsed source of every module, by dotted name; packages end in ``.__init__``."""
    paths = [path for path in sorted(ROOT.rglob("*.py")) if "_fixtures" not in path.parts]
    names = {path: ".".join(["rotcheck", *path.relative_to(ROOT).with_suffix("").parts]) for path in paths}
    return {name: ast.parse(path.read_text(encoding="utf-8"), str(path)) for path, name in names.items()}
