"""ROT405: what a row becomes does not depend on the rows beside it, before it, or on their number."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from rotcheck.checking import Broken, Measurement, check
from rotcheck.checks._codec import described, factor, rounding, sample
from rotcheck.outcome import Allowance, Distance
from rotcheck.subjects.calling import call, to_float64
from rotcheck.subjects.codec import Codec
from rotcheck.tolerance import Tolerance, dtype_name
from rotcheck.witness import Witness

STREAM = 16
"""Rows that are coded one at a time."""

LEADING = 7
"""Longer rows in front of the others."""


@check(code="ROT405", kinds=["Codec"])
def batch_invariance(subject: Codec, witness: Witness) -> list[Measurement] | Broken:
    r"""The same rows come out of any split, order or stream of them, behind any others.

    Counted is the share of rows that differ from those of one call by more than rounding: of the same rows again after
    others, in two unequal parts, in another order, one at a time, and behind 7 rows that are 8 times as long. A matrix
    product of another shape rounds differently, and moves a coordinate across a threshold with the probability of its
    rounding over the step; so many rows may differ, and one more.

    Catches
    -------
    Ranges, norms or means taken over the batch, the state of the first row used for all, random numbers drawn in the
    call, a buffer that a later call overwrites, a tail of rows that is left out, a decode path with other tables than
    prefill, input that is written to.

    Cannot see
    ----------
    A wrong code that treats each row the same. A batch axis: the rows of one head are one axis here.

    References
    ----------
    jundot/omlx#2172 (batched append); Blaizzy/mlx-vlm#973 (prefill and decode); kruschdev/SpectralQuant-Ollama-Bridge
    (``states[0]`` drops the batch).
    """
    x = sample(subject, witness)
    argument = subject.argument(x)
    value = call(subject.round_trip, argument, what=str(subject))
    base = subject.answer(value, x)
    if not torch.equal(to_float64(argument), x):
        return Broken(
            what="writes to its input: the caller's rows changed during the call",
            hint="code a copy, or say in the name of the function that it works in place",
        )
    found = [
        _measure(subject, witness, x[: len(rows)], rows, base[: len(rows)], how)
        for how, rows in _variants(subject, x, witness)
    ]
    if not torch.equal(to_float64(value).nan_to_num(), base.nan_to_num()):
        return Broken(
            what="returns memory that its next call overwrites",
            hint="return fresh rows, or say that they must be copied",
        )
    return found


def _variants(subject: Codec, x: Tensor, witness: Witness) -> Iterator[tuple[str, Tensor]]:
    """How the rows were coded, and what they became, in their first order."""
    cut = len(x) // 3 + 1
    subject.apply(sample(subject, witness, "other rows"))
    yield "the same rows again, after others", subject.apply(x)
    yield "in two parts", torch.cat([subject.apply(part) for part in x.split([cut, len(x) - cut])])
    order = torch.randperm(len(x), generator=witness.generator("order"))
    yield "in another order", subject.apply(x[order])[order.argsort()]
    yield "one row at a time", torch.cat([subject.apply(row) for row in x[:STREAM].split(1)])
    longer = factor(to_float64(subject.samples)) * x[:LEADING].flip(0)
    yield f"behind {len(longer)} longer rows", subject.apply(torch.cat([longer, x]))[len(longer) :]


def _measure(subject: Codec, witness: Witness, x: Tensor, rows: Tensor, base: Tensor, how: str) -> Measurement:
    length = torch.maximum(x, base.abs()).norm(dim=-1)
    near = Tolerance(storage=dtype_name(subject.dtype), length=2 * subject.width).value * length
    differ = ~((rows - base).norm(dim=-1) <= near)  # NaN differs
    share = differ.double().mean().item()
    return Measurement(
        claim=Distance(name="the same rows", error=share),
        rivals=(Distance(name="rows that depend on those beside them", error=1 - share, separation=1.0),),
        allowed=_allowance(subject, x, base),
        verb="gives",
        place=how,
        witness=described(subject, x, witness),
        hint="look for a statistic over the batch, a state that outlives a call, or another path for few rows",
        needs="a dtype in which rounding does not move most codes",
        facts=(("rows that differ", float(differ.sum())),),
    )


def _allowance(subject: Codec, x: Tensor, base: Tensor) -> Allowance:
    """Rows in which rounding moves a code, and one."""
    # a coordinate of size |x| / sqrt(d) rounds by tol |x| / sqrt(d); steps are sqrt(12) times the error of a coordinate
    error = (base - x).norm(dim=-1).square().mean().sqrt().item()
    length = x.norm(dim=-1).square().mean().sqrt().item()
    moved = subject.width * 2 * rounding(subject) * length / (math.sqrt(12) * error) if error > 0 else 0.0
    expected = min(1.0, moved if math.isfinite(moved) else 1.0)
    n = len(x)
    return Allowance(
        value=expected + 3 * math.sqrt(expected / n) + 1 / n,
        derivation=f"p + 3 sqrt(p / {n}) + 1 / {n}; p = {expected:.1e} = 2 d rounding / step, codes at thresholds",
    )
