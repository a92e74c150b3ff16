from __future__ import annotations

from importlib.metadata import entry_points
from pathlib import Path

import pytest

import rotcheck
from rotcheck import assert_verified, registry, report

# pytester forgets what an inner run imports: torch cannot be imported twice, nor may a class of ours exist twice
PRELOADED = (assert_verified, registry.all_checks(), report.Report(verdicts=()).to_json())

TOYS = '''
from rotcheck.checking import Measurement, check
from rotcheck.outcome import Allowance, Distance


class Toy:
    kind = "Toy"

    def __init__(self, error=0.0, separation=1.0, note="x"):
        self.error, self.separation, self.note = error, separation, note

    def __str__(self):
        return "toy"


def measure(subject, witness, error):
    return Measurement(
        claim=Distance(name="claim", error=error),
        rivals=(Distance(name="rival", error=1.0, separation=subject.separation),),
        allowed=Allowance(value=0.1, derivation="a toy"),
        witness=f"seed {witness.seed}",
    )


@check(code="TOY01", kinds=["Toy"])
def fits(subject, witness):
    """Fits when the subject says so."""
    return measure(subject, witness, subject.error)


@check(code="TOY02", kinds=["Toy"])
def zeroth(subject, witness):
    """Fits on seed 0 only."""
    return measure(subject, witness, 0.0 if witness.seed == 0 else 5.0)


@check(code="TOY03", kinds=["Toy"], needs=["note"])
def noted(subject, witness):
    """Needs a note."""
    return measure(subject, witness, 0.0)


CHECKS = (fits, zeroth, noted)
'''

TEST = """
import rotcheck
from toys import CHECKS, Toy

@rotcheck.parametrize_with_checks(Toy, checks=CHECKS{options})
def test_toy(check):
    check(Toy({subject}))
"""


@pytest.fixture(scope="session")
def plugin_arguments() -> tuple[str, ...]:
    """What an inner pytest needs to have the plugin: nothing where it is installed."""
    installed = any(entry.value == "rotcheck.pytest_plugin" for entry in entry_points(group="pytest11"))
    return () if installed else ("-p", "rotcheck.pytest_plugin")


@pytest.fixture
def run(pytester, monkeypatch, plugin_arguments):
    """Write ``toys.py`` and a test over it, and run pytest on them in this process."""
    monkeypatch.setenv("PYTHONPATH", str(Path(rotcheck.__file__).parents[1]))
    monkeypatch.setenv("COLUMNS", "200")
    pytester.syspathinsert()
    pytester.makepyfile(toys=TOYS)

    def call(*arguments: str, subject: str = "", options: str = "", source: str | None = None):
        text = TEST.format(subject=subject, options=f", {options}" if options else "")
        pytester.makepyfile(test_toys=text if source is None else source)
        return pytester.runpytest_inprocess(*plugin_arguments, "-p", "no:cacheprovider", *arguments)

    return call
