"""ROT105: the same input gives the same output, and is not written to."""

from __future__ import annotations

import torch

from rotcheck.checking import Broken, Measurement, check
from rotcheck.checks._rotation import described, probe, relative_allowance
from rotcheck.outcome import Allowance, Distance
from rotcheck.subjects.calling import call, relative, to_float64
from rotcheck.subjects.rotation import Rotation
from rotcheck.witness import Witness

FEWER = (1, 7)
"""Row counts at which the first rows are fed again: a decode step, and a number that no tile divides."""


@check(code="ROT105", kinds=["Rotation"], each=["CacheRotation"])
def determinism(subject: Rotation, witness: Witness) -> list[Measurement] | Broken:
    """Two calls on equal rows agree bit for bit, fewer of the rows give the same, and the input is left alone.

    The second call comes after one on other rows, so that a workspace shared between calls shows. A row's
    result may not depend on the rows beside it: the first 1 and 7 rows alone agree up to rounding.

    Catches
    -------
    A fresh random sign at each call, a kernel race, a rotation in place, an output that aliases a buffer which
    the next call overwrites, a decode path with another rotation than prefill, tail rows that a kernel drops,
    statistics taken over the batch.

    Cannot see
    ----------
    A wrong result that is always the same; a race, or another code path, that needs more rows than the witness.

    References
    ----------
    vllm-project/vllm#43462 (aliased output), vllm-project/vllm#57014 (race), Blaizzy/mlx-vlm#973 (decode path).
    """
    x = probe(subject, witness)
    argument = subject.argument(x)
    first_answer = call(subject.rotate, argument, what=str(subject))
    first = to_float64(first_answer, like=x, what=str(subject)).clone()
    if not torch.equal(to_float64(argument), x):
        return Broken(
            what="writes to its input: the caller's activations changed during the call",
            hint="rotate into a new tensor, or say in the name of the function that it works in place",
        )
    subject.apply(probe(subject, witness, "other activations"))
    later = to_float64(first_answer, like=x, what=str(subject))
    if not torch.equal(later.nan_to_num(), first.nan_to_num()):
        return Broken(
            what="returns memory that its next call overwrites",
            hint="return a fresh tensor, or document that the caller must copy it",
        )
    return [_repeated(subject, witness, x, first), *(_fewer(subject, witness, x, first, rows) for rows in FEWER)]


def _repeated(subject: Rotation, witness: Witness, x: torch.Tensor, first: torch.Tensor) -> Measurement:
    second = subject.apply(x)
    return Measurement(
        claim=Distance(name="the same numbers for the same input", error=relative(second, first)),
        allowed=Allowance(value=0.0, derivation="bit equality: the same code on the same numbers"),
        verb="returns",
        witness=f"{described(subject, x, witness)}, twice",
        hint="look for a random generator or a reused buffer inside the call",
        facts=(("rows that differ", float((second != first).any(dim=-1).sum())),),
    )


def _fewer(subject: Rotation, witness: Witness, x: torch.Tensor, first: torch.Tensor, rows: int) -> Measurement:
    alone = subject.apply(x[:rows])
    name = "the first row alone" if rows == 1 else f"the first {rows} rows alone"
    return Measurement(
        claim=Distance(name=f"the same numbers for {name}", error=relative(alone, first[:rows])),
        allowed=relative_allowance(subject, x[:rows]),
        verb="returns",
        witness=f"{described(subject, x, witness)}, then its first {rows}",
        hint="compare the code paths for one row and for many, and look for statistics over the batch",
    )
