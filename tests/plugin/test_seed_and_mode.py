"""``--rotcheck-seed`` replaces the witness; ``--rotcheck-mode=search`` adds derived ones."""

from __future__ import annotations

import json

import pytest

from rotcheck.pytest_plugin import SEARCH_WITNESSES

COUNT = """
import rotcheck
from rotcheck.checking import Measurement, check
from rotcheck.outcome import Allowance, Distance

class Toy:
    kind = "Toy"

@check(code="TOY09", kinds=["Toy"])
def counted(subject, witness):
    "Writes its seed down."
    with open("seeds.txt", "a") as stream:
        stream.write(f"{witness.seed}\\n")
    return Measurement(claim=Distance(name="c", error=0.0), allowed=Allowance(value=1.0, derivation="toy"))

@rotcheck.parametrize_with_checks(Toy, checks=[counted], seeds=(4, 5)%s)
def test_counted(check):
    check(Toy())
"""


@pytest.fixture
def seeds(run, pytester):
    def call(*arguments: str, options: str = "") -> list[int]:
        run(*arguments, source=COUNT % options)
        return [int(line) for line in (pytester.path / "seeds.txt").read_text().split()]

    return call


def test_declared_seeds_are_the_default(seeds):
    assert seeds() == [4, 5]


def test_seed_replaces_them(seeds):
    assert seeds("--rotcheck-seed=7") == [7]


def test_search_starts_with_the_declared_ones(seeds):
    found = seeds("--rotcheck-mode=search")
    assert found[:2] == [4, 5]
    assert len(set(found)) == len(found) == SEARCH_WITNESSES


def test_search_repeats_itself(seeds, pytester):
    first = seeds("--rotcheck-mode=search", "--rotcheck-seed=7")
    (pytester.path / "seeds.txt").unlink()
    assert seeds("--rotcheck-mode=search", "--rotcheck-seed=7") == first
    assert first[0] == 7


def test_search_keeps_the_fixed_witness_of_an_expected_failure(seeds):
    assert seeds("--rotcheck-mode=search", options=", expected_failures={'counted': 'issue 1'}") == [4, 5]


def test_search_finds_what_the_fixed_witness_misses(run):
    run("--rotcheck-select=zeroth").assert_outcomes(passed=1, deselected=2)
    result = run("--rotcheck-select=zeroth", "--rotcheck-mode=search")
    result.assert_outcomes(failed=1, deselected=2)


def test_a_search_records_one_verdict_per_check(run, pytester):
    run("--rotcheck-mode=search", "--rotcheck-report=r.json")
    verdicts = json.loads((pytester.path / "r.json").read_text())["verdicts"]
    assert [(v["check"], v["outcome"]) for v in verdicts] == [
        ("fits", "passed"),
        ("zeroth", "failed"),
        ("noted", "passed"),
    ]


def test_header_names_what_is_not_default(run):
    run("--rotcheck-seed=7", "--rotcheck-mode=search").stdout.fnmatch_lines(["rotcheck: seed 7, mode search"])
    run().stdout.no_fnmatch_line("rotcheck: *")


def test_failing_seed_is_in_the_message(run):
    result = run("--rotcheck-seed=9", "--rotcheck-select=zeroth")
    result.stdout.fnmatch_lines(["*reproduce*seed=9*"])
