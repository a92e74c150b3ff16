"""``rotcheck explain``: what a check computes, catches and cannot see."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rotcheck.checking import Check


def explain(
    name: Annotated[str, typer.Argument(metavar="CHECK", help="Name or code: side, ROT103. All without one.")] = "",
) -> None:
    """Say what a check catches and what it cannot see; without an argument, list all checks."""
    from rotcheck.registry import all_checks

    if not name:
        checks = all_checks()
        widths = [max(len(text) for text in column) for column in zip(*map(_row, checks), strict=True)]
        for check in checks:
            cells = (text.ljust(width) for text, width in zip(_row(check), widths, strict=True))
            typer.echo("  ".join([*cells, _title(check)]))
        return
    typer.echo(_page(_only(name)))


def _only(name: str) -> Check:
    """The check with exactly this name or code; a prefix of several codes is not enough."""
    from rotcheck.errors import RotcheckError
    from rotcheck.registry import all_checks, expand

    pool = all_checks()
    names = expand([name], pool)
    exact = [c for c in pool if name == c.name or name.upper() == c.code]
    if exact or len(names) == 1:
        return next(c for c in [*exact, *pool] if c.name in names)
    codes = ", ".join(c.code for c in pool if c.name in names)
    raise RotcheckError(f"{name!r} is the beginning of {len(names)} codes: choose one of {codes}")


def _page(check: Check) -> str:
    facts = [("kinds", ", ".join(check.kinds)), ("needs", ", ".join(check.needs) or "nothing more")]
    head = [f"{check.code} {check.name}: {_title(check)}", "", *(f"{label}: {text}" for label, text in facts)]
    rest = check.documentation.partition("\n\n")[2]
    return "\n".join([*head, f"since: {check.since}", "", rest])


def _row(check: Check) -> tuple[str, str, str]:
    return check.code, check.name, ", ".join(check.kinds)


def _title(check: Check) -> str:
    return " ".join(check.documentation.partition("\n\n")[0].split())
