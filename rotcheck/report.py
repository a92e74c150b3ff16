"""A record of verdicts: JSON in and out, with the environment, and never a tensor."""

from __future__ import annotations

import os
import platform
import secrets
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from rotcheck import __version__
from rotcheck.errors import RotcheckError
from rotcheck.outcome import Outcome, Verdict

SCHEMA_VERSION = 1
LARGEST_FILE = 64 * 2**20
"""Bytes that `Report.read` accepts: reports come from strangers."""

DISTRIBUTIONS = ("torch", "transformers", "numpy", "scipy", "hypothesis")


def environment() -> dict[str, str]:
    """Versions and machine, as strings, without importing any of the packages."""
    found = {"python": platform.python_version(), "platform": platform.platform(), "cores": str(os.cpu_count())}
    found["rotcheck"] = __version__  # also from a checkout that is not installed
    for name in DISTRIBUTIONS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def status(verdict: Verdict) -> str:
    """The outcome as it counts: an expected failure that does not fail is itself a failure."""
    if not verdict.expected:
        return verdict.outcome.value
    if verdict.outcome is Outcome.FAILED:
        return "expected failure"
    if verdict.outcome is Outcome.UNDECIDED:
        return "allowed undecided"
    return "unexpected pass" if verdict.outcome is Outcome.PASSED else verdict.outcome.value


@dataclass(frozen=True, kw_only=True)
class Report:
    """The verdicts of one run, in order. Iterate over it, or write it as JSON.

    Attributes
    ----------
    verdicts : tuple of Verdict
    seed : int
    environment : dict of str to str
    schema_version : int
    """

    verdicts: tuple[Verdict, ...]
    seed: int = 0
    environment: dict[str, str] = field(default_factory=environment)
    schema_version: int = SCHEMA_VERSION

    def __iter__(self) -> Iterator[Verdict]:
        return iter(self.verdicts)

    def __len__(self) -> int:
        return len(self.verdicts)

    def __add__(self, other: Report) -> Report:
        return Report(verdicts=self.verdicts + other.verdicts, seed=self.seed, environment=self.environment)

    def counts(self) -> dict[str, int]:
        """How many verdicts have each status, in a fixed order, zero ones left out."""
        counted = Counter(status(v) for v in self.verdicts)
        order = ["failed", "unexpected pass", "undecided", "passed", "expected failure", "allowed undecided"]
        return {name: counted[name] for name in [*order, "not applicable"] if counted[name]}

    @property
    def exit_code(self) -> int:
        """0 passed, 1 failed, 3 undecided and nothing failed, 5 nothing applicable."""
        counts = self.counts()
        if counts.get("failed") or counts.get("unexpected pass"):
            return 1
        if counts.get("undecided"):
            return 3
        decided = sum(counts.values()) - counts.get("not applicable", 0)
        return 0 if decided else 5

    def to_json(self) -> str:
        """JSON text with sorted, stable layout. Non-finite numbers are written as strings."""
        return _adapter().dump_json(self, indent=1).decode() + "\n"

    @classmethod
    def from_json(cls, text: str | bytes) -> Report:
        """Read what `to_json` wrote.

        Raises
        ------
        RotcheckError
            For text that is not a report, or one of another schema version.
        """
        from pydantic import ValidationError
        from pydantic_core import from_json

        try:
            found = from_json(text)
        except ValueError as error:
            raise RotcheckError(f"not a rotcheck report: the whole text: {error}") from None
        # first of all, because another version may have other fields
        if isinstance(found, dict) and found.get("schema_version", SCHEMA_VERSION) != SCHEMA_VERSION:
            raise RotcheckError(
                f"report has schema version {found['schema_version']!r:.40}, this rotcheck reads {SCHEMA_VERSION}: "
                "write it again with the installed version"
            )
        try:
            return _adapter().validate_json(text)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"]) or "the whole text"
            raise RotcheckError(f"not a rotcheck report: {where}: {first['msg']}") from None

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write the JSON beside ``path`` first, then rename, so that no half-written file is left."""
        target = Path(path)
        text = self.to_json()
        temporary = target.with_name(f".{secrets.token_hex(8)}.tmp")  # not mkstemp, whose files only their owner reads
        try:
            if not target.parent.is_dir():
                raise RotcheckError(f"cannot write {target}: the directory {target.parent} does not exist")
            if target.is_dir():
                raise RotcheckError(f"cannot write {target}: it is a directory, name a file")
            temporary.write_text(text, encoding="utf-8")
            os.replace(temporary, target)
        except OSError as error:
            raise RotcheckError(f"cannot write {target!s:.200}: {error.strerror or error}") from error
        finally:
            temporary.unlink(missing_ok=True)  # still there only if writing failed

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Report:
        """Read a report file of bounded size."""
        target = Path(path)
        if not target.is_file():
            raise RotcheckError(f"no report at {target}: give the path of a JSON file that rotcheck wrote")
        if (size := target.stat().st_size) > LARGEST_FILE:
            raise RotcheckError(f"{target} has {size} bytes, a report has at most {LARGEST_FILE}")
        try:
            return cls.from_json(target.read_bytes())
        except OSError as error:
            raise RotcheckError(f"cannot read {target}: {error.strerror or error}") from error


def _adapter():  # type: ignore[no-untyped-def]
    from pydantic import ConfigDict, TypeAdapter, with_config

    return TypeAdapter(with_config(ConfigDict(ser_json_inf_nan="strings", extra="forbid"))(Report))
