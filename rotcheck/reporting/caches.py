"""Compressed caches as text: what one costs, its spectra, and a table beside other rotations.

Piped, these are plain lines; on a terminal the attention error has a bar.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from rotcheck.spectral.evaluate import Evaluation, Row
    from rotcheck.spectral.report import SpectrumRow

BAR = 24
"""Characters of the longest bar."""

HEADINGS = (
    "rotation",
    "perplexity",
    "ratio",
    "95 % interval",
    "payload bits",
    "side bits",
    "bytes per token",
    "smaller",
)
ERROR = "attention error"


def summary(evaluation: Evaluation, text: str) -> list[tuple[str, str]]:
    """Labelled facts about the first row, beside the others."""
    first, *others = evaluation.rows
    ratio = f" (x {first.ratio.value:.4f}, {_interval(first)})" if first.ratio else ""
    beside = "; " + ", ".join(f"{row.name} {row.attention_error:.3g}" for row in others) if others else ""
    return [
        (
            "perplexity",
            f"{evaluation.full:.3f} -> {first.perplexity:.3f}{ratio} on {text}, {evaluation.windows} windows",
        ),
        ("attention", f"relative error {first.attention_error:.3g}{beside}"),
    ]


def spectra(rows: Sequence[SpectrumRow]) -> list[tuple[str, str]]:
    """``d_eff`` of keys and of values: mean over heads and range, about the mean and about zero, and the gap behind."""
    found = []
    for kind in dict.fromkeys(row.kind for row in rows):
        own = [row for row in rows if row.kind == kind]
        parts = []
        for how in ("centred", "uncentred"):
            effective, gaps = [getattr(row, how) for row in own], [getattr(row, f"{how}_gap") for row in own]
            parts.append(f"{how} {_range(effective)}, gap {_range(gaps)}")
        widths = ", ".join(map(str, sorted({row.width for row in own})))
        found.append((f"d_eff {kind}", f"{'; '.join(parts)}; of {widths}"))
    return found


def levels(used: Mapping[str, Sequence[float]]) -> list[tuple[str, str]]:
    """Share of the levels of each coordinate that occur: mean over coordinates that have bits, and range."""
    shares = [f"{kind} {_range(own)}" for kind, own in used.items() if own]
    return [("levels used", "; ".join(shares))] if shares else []


def table(evaluation: Evaluation) -> list[str]:
    """Plain lines, one per cache, the uncompressed one first."""
    rows = [(*HEADINGS, ERROR), *((*cells, error) for cells, error in _cells(evaluation))]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def show_table(evaluation: Evaluation, *, stream: TextIO | None = None) -> None:
    """Write the table to a stream, standard output by default."""
    stream = stream or sys.stdout
    if not stream.isatty() or os.environ.get("TERM") == "dumb":
        stream.write("\n".join(table(evaluation)) + "\n")
        return
    from rich.bar import Bar
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(file=stream, highlight=False, markup=False, emoji=False)
    longest = max((row.attention_error for row in evaluation.rows), default=0.0)
    shown = Table(box=None, pad_edge=False, header_style="bold")
    for heading in (*HEADINGS, ERROR, ""):
        shown.add_column(Text(heading), overflow="fold")
    sizes = [None, *(row.attention_error for row in evaluation.rows)]
    for (cells, error), size in zip(_cells(evaluation), sizes, strict=True):
        bar = "" if size is None or not longest else Bar(longest, 0, size, width=BAR)
        shown.add_row(*(Text(cell) for cell in cells), Text(error), bar)
    console.print(shown)


def _cells(evaluation: Evaluation) -> list[tuple[tuple[str, ...], str]]:
    """Cells of each row without the error, and the error."""
    full = ("full precision", f"{evaluation.full:.3f}", "1", "", "16", "", _full_bytes(evaluation), "1.00")
    return [(full, "0"), *((_row(row), f"{row.attention_error:.4f}") for row in evaluation.rows)]


def _row(row: Row) -> tuple[str, ...]:
    return (
        row.name,
        f"{row.perplexity:.3f}",
        f"{row.ratio.value:.4f}" if row.ratio else "",
        _interval(row) if row.ratio else "",
        f"{row.payload_bits:.2f}",
        f"{row.side_bits:.2f}",
        str(row.bytes_per_token),
        f"{row.compression:.2f}",
    )


def _full_bytes(evaluation: Evaluation) -> str:
    return str(evaluation.full_bytes_per_token)


def _interval(row: Row) -> str:
    return f"{row.ratio.low:.4f} to {row.ratio.high:.4f}" if row.ratio else ""


def _range(values: Sequence[float]) -> str:
    return f"{sum(values) / len(values):.3g} ({min(values):.3g} to {max(values):.3g})"
