"""The pytest plugin: options, the ``rotcheck`` marker, and a record of the verdicts made during tests.

pytest imports this module in every run of the environment, so it imports the standard library and pytest only;
checks and torch are loaded by the tests that use them.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Generator, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from rotcheck.outcome import Verdict
    from rotcheck.runner import RaisingCheck

SEARCH_WITNESSES = 25
"""Witnesses tried by ``--rotcheck-mode=search``; the declared ones come first."""

CHOICES = {"mode": ("fixed", "search"), "undecided": ("fail", "skip")}

HELP = {
    "select": "run only these checks: names, codes or code prefixes, separated by commas",
    "ignore": "leave these checks out",
    "seed": "seed of the witnesses",
    "mode": f"fixed: the declared witnesses; search: {SEARCH_WITNESSES} derived from the seed",
    "undecided": "what an undecided check does to its test",
    "report": "write every verdict as JSON to this file",
}


@dataclass(frozen=True, kw_only=True)
class Options:
    """The options of one run, from the command line or else from the ini file."""

    select: tuple[str, ...]
    ignore: tuple[str, ...]
    seed: int | None
    mode: str
    undecided: str
    report: Path | None


OPTIONS: pytest.StashKey[Options] = pytest.StashKey()
REFUSAL: pytest.StashKey[str] = pytest.StashKey()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("rotcheck", "rotation-correctness checks")
    for name, text in HELP.items():
        listed = name in ("select", "ignore")
        group.addoption(
            f"--rotcheck-{name}",
            dest=f"rotcheck_{name}",
            action="append" if listed else "store",
            choices=CHOICES.get(name),
            metavar=None if name in CHOICES else {"seed": "N", "report": "PATH"}.get(name, "CHECK"),
            help=text,
        )
        parser.addini(f"rotcheck_{name}", text, type="args" if listed else "string", default=[] if listed else "")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "rotcheck: a rotation-correctness check, added by parametrize_with_checks")
    config.stash[OPTIONS] = options = _options(config)
    if not hasattr(config, "workerinput"):  # a pytest-xdist worker sends its verdicts to the controller
        from rotcheck.reporting.recorder import Recorder

        config.pluginmanager.register(Recorder(path=options.report, seed=options.seed or 0), "rotcheck-recorder")


def pytest_report_header(config: pytest.Config) -> str | None:
    options = config.stash[OPTIONS]
    shown = {"seed": options.seed, "mode": options.mode if options.mode == "search" else None}
    text = ", ".join(f"{name} {value}" for name, value in shown.items() if value is not None)
    return f"rotcheck: {text}" if text else None


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if "rotcheck.runner" not in sys.modules:
        return
    options = config.stash[OPTIONS]
    raising = {item: check for item in items if (check := _raising(item)) is not None}
    try:
        kept = _kept([check.check for check in raising.values()], options)
    except pytest.UsageError as error:
        if not hasattr(config, "workerinput"):
            raise
        # a pytest-xdist worker that stops here is an internal error of the controller: its tests say it instead
        for item in raising:
            item.stash[REFUSAL] = str(error)
        return
    dropped = [item for item, check in raising.items() if check.check.name not in kept]
    if dropped:
        config.hook.pytest_deselected(items=dropped)
        gone = set(dropped)
        items[:] = [item for item in items if item not in gone]
    for item in items:
        if item in raising:
            item.callspec.params["check"] = replace(raising[item], seeds=_seeds(raising[item], options))  # type: ignore[attr-defined]


def pytest_runtest_setup(item: pytest.Item) -> None:
    if refusal := item.stash.get(REFUSAL, ""):
        pytest.fail(refusal, pytrace=False)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, Any, Any]:
    if item.get_closest_marker("rotcheck") is None and "rotcheck.runner" not in sys.modules:
        return (yield)
    from rotcheck.outcome import CheckFailed, Outcome
    from rotcheck.reporting.recorder import properties
    from rotcheck.runner import listening

    verdicts: list[Verdict] = []
    try:
        with listening(verdicts.append):
            return (yield)
    except CheckFailed as error:
        skips = item.config.stash[OPTIONS].undecided == "skip" and error.verdict.outcome is Outcome.UNDECIDED
        if not skips:
            raise
        pytest.skip(str(error).splitlines()[0])
    finally:
        item.user_properties.extend(properties(verdicts))


def _options(config: pytest.Config) -> Options:
    values: dict[str, Any] = {}
    for name in HELP:
        given = config.getoption(f"rotcheck_{name}")
        values[name] = config.getini(f"rotcheck_{name}") if given is None else given
        if name in CHOICES:
            values[name] = values[name] or CHOICES[name][0]
            if values[name] not in CHOICES[name]:
                raise pytest.UsageError(
                    f"rotcheck_{name} = {values[name]!r} in the ini file: use {' or '.join(CHOICES[name])}"
                )
    for name in ("select", "ignore"):
        values[name] = tuple(part.strip() for entry in values[name] for part in entry.split(",") if part.strip())
    values["seed"] = _seed(values["seed"])
    values["report"] = _path(config, values["report"])
    return Options(**values)


def _seed(text: str) -> int | None:
    if not text:
        return None
    if not (text.isascii() and text.isdecimal() and int(text) < 2**63):
        raise pytest.UsageError(f"--rotcheck-seed={text}: use an integer from 0 to 2**63 - 1")
    return int(text)


def _path(config: pytest.Config, text: str) -> Path | None:
    if not text:
        return None
    given = config.getoption("rotcheck_report") is not None
    path = (config.invocation_params.dir if given else config.rootpath) / text
    if path.is_dir() or not path.parent.is_dir():
        raise pytest.UsageError(f"--rotcheck-report={text}: name a file in a directory that exists")
    return path


def _raising(item: pytest.Item) -> RaisingCheck | None:
    from rotcheck.runner import RaisingCheck

    value = getattr(getattr(item, "callspec", None), "params", {}).get("check")
    return value if isinstance(value, RaisingCheck) else None


def _kept(checks: Iterable[Any], options: Options) -> frozenset[str]:
    present = tuple(dict.fromkeys(checks))
    if not present or not (options.select or options.ignore):
        return frozenset(check.name for check in present)
    from rotcheck.errors import RotcheckError
    from rotcheck.registry import all_checks, expand

    pool = tuple(dict.fromkeys((*all_checks(), *present)))  # a name may be right and simply not used here
    try:
        selected, ignored = expand(options.select, pool), expand(options.ignore, pool)
    except RotcheckError as error:
        raise pytest.UsageError(f"--rotcheck-select or --rotcheck-ignore: {error}") from None
    names = frozenset(check.name for check in present)
    return (names & selected if options.select else names) - ignored


def _seeds(check: RaisingCheck, options: Options) -> tuple[int, ...]:
    declared = check.seeds if options.seed is None else (options.seed,)
    # another witness could turn an expected failure into a pass by chance, and a strict xfail into a failure
    if options.mode == "fixed" or check.expectation[0] == "failed":
        return declared
    draw = random.Random(declared[0])
    derived = [draw.getrandbits(32) for _ in range(SEARCH_WITNESSES)]
    return tuple(dict.fromkeys((*declared, *derived)))[: max(SEARCH_WITNESSES, len(declared))]
