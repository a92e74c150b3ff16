"""The plugin is loaded in every pytest run of an environment, so it must not load torch or the checks."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("torch", "numpy", "pydantic", "rich", "typer", "rotcheck.checking", "rotcheck.checks", "rotcheck.runner")


def test_importing_the_plugin_imports_nothing_heavy():
    code = f"import sys, rotcheck.pytest_plugin\nprint([n for n in {HEAVY} if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.fixture
def loaded(run, pytester, plugin_arguments):
    """Names among `HEAVY` that a pytest run in another process has loaded at its end."""

    def call(source: str) -> str:
        pytester.makepyfile(test_it=source)
        pytester.makeconftest(
            "import sys\n\ndef pytest_sessionfinish():\n"
            f"    print('loaded', [n for n in {HEAVY} if n in sys.modules])\n"
        )
        quiet = ("-p", "no:hypothesispytest", "-p", "no:benchmark", "-p", "no:syrupy", "-p", "no:cacheprovider")
        result = pytester.runpytest_subprocess("-s", *quiet, *plugin_arguments, "test_it.py")
        result.assert_outcomes(passed=1)
        return next(line for line in result.outlines if line.startswith("loaded") or "loaded [" in line)

    return call


def test_a_run_without_checks_loads_nothing(loaded):
    assert loaded("def test_plain():\n    pass\n").endswith("loaded []")


def test_a_check_that_needs_no_torch_does_not_load_it(loaded):
    found = loaded(
        "import rotcheck\nfrom toys import CHECKS, Toy\n\n"
        "@rotcheck.parametrize_with_checks(Toy, checks=CHECKS[:1])\n"
        "def test_toy(check):\n    check(Toy())\n"
    )
    assert "'rotcheck.runner'" in found
    assert "'torch'" not in found
    assert "'rotcheck.checks'" not in found
