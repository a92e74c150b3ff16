"""The command line. Importing it imports neither torch nor the checks, so that ``--help`` is quick."""

from __future__ import annotations

from typing import Annotated

import typer
from typer.core import TyperGroup

from rotcheck import __version__
from rotcheck.cli.explain import explain
from rotcheck.cli.quantize_kv import quantize_kv
from rotcheck.cli.run import run
from rotcheck.cli.slice import slice_model
from rotcheck.errors import RotcheckError

__all__ = ["app", "main"]


class _Commands(TyperGroup):
    """Turns an error that a person can put right into one line and exit code 2."""

    def invoke(self, ctx: typer.Context) -> object:
        try:
            return super().invoke(ctx)
        except RotcheckError as error:
            typer.echo(f"rotcheck: {' '.join(str(error).split())}", err=True)
            raise typer.Exit(2) from None
        except KeyboardInterrupt:
            raise typer.Exit(130) from None  # 128 + SIGINT, as shells have it; no traceback


# rich_markup_mode=None: usage errors and help stay plain text when piped
app = typer.Typer(
    cls=_Commands,
    name="rotcheck",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.command("run")(run)
app.command("slice")(slice_model)
app.command("quantize-kv")(quantize_kv)
app.command("explain")(explain)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"rotcheck {__version__}")
        raise typer.Exit


@app.callback()
def _rotcheck(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Show it.")] = False,
) -> None:
    """Tests and diagnostics for models compressed with orthogonal matrices.

    Exit codes: 0 passed, 1 failed, 2 usage, 3 undecided and nothing failed, 5 nothing applicable.
    """


def main() -> None:
    """Entry point of the ``rotcheck`` command."""
    app(prog_name="rotcheck")
