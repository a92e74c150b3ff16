"""``rotcheck run``: the suite on the built-in paths, on a person's own subjects, or on a model."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rotcheck.cli.preflight import check_file
from rotcheck.cli.threads import threads as limited
from rotcheck.errors import RotcheckError

if TYPE_CHECKING:
    from rotcheck.report import Report


def run(
    target: Annotated[
        str, typer.Argument(metavar="TARGET", help="module:attribute, model directory or hub name.")
    ] = "",
    select: Annotated[
        list[str] | None, typer.Option(help="Only these checks: names, codes, prefixes; repeat, or use commas.")
    ] = None,
    ignore: Annotated[list[str] | None, typer.Option(help="Leave these checks out.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the witnesses.")] = 0,
    everything: Annotated[bool, typer.Option("--all", help="Every built-in path, also the slow ones.")] = False,
    report: Annotated[Path | None, typer.Option(metavar="PATH", help="Write the verdicts there as JSON.")] = None,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="One line per check.")] = False,
    threads: Annotated[int, typer.Option(min=1, help="Threads of torch.")] = 1,
    device: Annotated[str, typer.Option(help="For built-in paths and models: cpu, cuda.")] = "cpu",
) -> None:
    """Run the checks; without a target, on the built-in paths over the bundled tiny OPT.

    TARGET is module:attribute (a subject, a list or dict of subjects, or a function that returns them; the
    current directory is importable), a model directory, or a hub name.

    Exit codes: 0 passed, 1 failed, 2 usage, 3 undecided and nothing failed, 5 nothing applicable.
    """
    chosen, unchosen = _names(select, "--select"), _names(ignore, "--ignore")
    if report is not None:
        check_file(report, "--report")
    _check_names([*chosen, *unchosen])
    _check_device(device)
    from rotcheck.cli.targets import importable_here, subjects
    from rotcheck.reporting.console import show
    from rotcheck.witness import Witness

    Witness(seed=seed)  # refuses a seed out of range before anything slow
    with importable_here(), limited(threads):
        found = subjects(target, everything=everything, seed=seed, device=device, notify=_left_out)
        reproduce = _reproduce(target, everything=everything, device=device)
        reports = _verify(found, select=chosen, ignore=unchosen, seed=seed, target=reproduce)
    if not reports:
        raise RotcheckError(f"{target or 'the built-in paths'}: no subject to test")
    total = sum(list(reports.values())[1:], start=next(iter(reports.values())))
    if report is not None:
        _write(total, report)
    show(reports, verbose=verbose)
    raise typer.Exit(total.exit_code)


def _verify(
    found: Any, *, select: tuple[str, ...], ignore: tuple[str, ...], seed: int, target: str
) -> dict[str, Report]:
    from tqdm import tqdm

    from rotcheck.runner import verify

    reports: dict[str, Report] = {}
    # disable=None: no bar unless standard error is a terminal
    with tqdm(found, desc="subjects", file=sys.stderr, disable=None, leave=False) as bar:
        for item in bar:
            bar.set_postfix_str(item.label)
            report = verify(
                item.subject,
                select=select,
                ignore=ignore,
                seed=seed,
                expected_failures=item.expected_failures,
                allow_undecided=item.allow_undecided,
                target=target,
                progress=lambda checks, label=item.label: tqdm(
                    checks, desc=label, file=sys.stderr, disable=None, leave=False
                ),
            )
            reports[item.label] = reports[item.label] + report if item.label in reports else report
    return reports


def _left_out(line: str) -> None:
    """On standard error, above a progress bar where there is one: what goes to a pipe is the report alone."""
    from tqdm import tqdm

    tqdm.write(f"rotcheck: {' '.join(line.split())}", file=sys.stderr)


def _reproduce(target: str, *, everything: bool, device: str) -> str:
    """What stands between ``rotcheck run`` and ``--select`` in a command that repeats a verdict."""
    parts = [shlex.quote(target)] if target else []
    parts += ["--all"] * everything
    parts += [f"--device {shlex.quote(device)}"] * (device != "cpu" or not parts)
    return " ".join(parts)


def _names(given: list[str] | None, option: str) -> tuple[str, ...]:
    names = tuple(part.strip() for entry in given or () for part in entry.split(","))
    if not all(names):  # an empty selection would run everything
        raise RotcheckError(f"{option} {','.join(given or ())!r} holds an empty name: name a check, or leave it out")
    return names


def _check_names(names: list[str]) -> None:
    if names:
        from rotcheck.registry import all_checks, expand

        expand(names, all_checks())


def _write(report: Report, path: Path) -> None:
    try:
        report.write(path)
    except OSError as error:
        raise RotcheckError(f"--report {path}: {error.strerror or error}: choose another place") from error


def _check_device(device: str) -> None:
    import torch

    try:
        wanted = torch.device(device)
    except RuntimeError:
        raise RotcheckError(f"--device {device!r} is not a device: use cpu, cuda or cuda:0") from None
    if wanted.type not in ("cpu", "cuda"):
        raise RotcheckError(f"--device {device!r} is not supported: use cpu, cuda or cuda:0")
    if wanted.type == "cuda" and not torch.cuda.is_available():
        raise RotcheckError(f"--device {device}: this torch sees no CUDA device; use cpu")
    if wanted.type == "cuda" and (wanted.index or 0) >= torch.cuda.device_count():
        raise RotcheckError(f"--device {device}: this torch sees {torch.cuda.device_count()} CUDA devices; use cuda:0")
