"""Importing rotcheck, its plugin or its command line loads no heavy package."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("torch", "transformers", "numpy", "scipy", "hypothesis", "pydantic", "rich", "tqdm")


def loaded(code: str) -> set[str]:
    program = f"import sys\n{code}\nprint(*[n for n in {HEAVY} if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize("module", ["rotcheck", "rotcheck.pytest_plugin", "rotcheck.cli"])
def test_importing_loads_nothing_heavy(module):
    assert loaded(f"import {module}") == set()


def test_the_package_alone_imports_no_module_of_its_own():
    program = "import sys, rotcheck; print(*[n for n in sys.modules if n.startswith('rotcheck')])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["rotcheck"]


def test_core_names_do_not_load_torch():
    names = [
        "Outcome",
        "Verdict",
        "CheckFailed",
        "Convention",
        "Witness",
        "Tolerance",
        "Report",
        "check",
        "Measurement",
        "verify",
    ]
    assert "torch" not in loaded(f"from rotcheck import {', '.join(names)}")


def test_dir_lists_the_public_names_without_loading_them():
    assert loaded("import rotcheck\nassert 'Rotation' in dir(rotcheck)") == set()
