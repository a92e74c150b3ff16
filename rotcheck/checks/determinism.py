"""ROT105: the same input gives the same output, and is not written to."""

from __future__ import annotations

import torch

from rotcheck.checking import Broken, Measurement, check
from rotcheck.checks._rotation import probe
from rotcheck.outcome import Allowance, Distance
from rotcheck.subjects.calling import call, relative, to_float64
from rotcheck.subjects.rotation import Rotation
from rotcheck.witness import Witness


@check(code="ROT105", kinds=["Rotation"])
def determinism(subject: Rotation, witness: Witness) -> Measurement | Broken:
    """Two calls on equal rows agree bit for bit, and the caller's tensor is left as it was.

    The second call comes after one on other rows, so that a workspace shared between calls shows.

    Catches
    -------
    A fresh random sign at each call, a kernel race, a rotation in place, an output that aliases a buffer which
    the next call overwrites.

    Cannot see
    ----------
    A wrong result that is always the same; a race that needs larger inputs than the witness.

    References
    ----------
    vllm-project/vllm#43462 (aliased output), vllm-project/vllm#57014 (race).
    """
    x = probe(subject, witness)
    given = x.to(subject.dtype).to(subject.device)
    kept = given.clone()
    numpy = not isinstance(subject.basis, torch.Tensor) and subject.basis is not None
    argument = given.numpy() if numpy else given
    first_answer = call(subject.rotate, argument, what=str(subject))
    first = to_float64(first_answer, like=x, what=str(subject)).clone()
    if not torch.equal(given, kept):
        return Broken(
            what="writes to its input: the caller's activations changed during the call",
            hint="rotate into a new tensor, or say in the name of the function that it works in place",
        )
    subject.apply(probe(subject, witness, "other activations"))
    later = to_float64(first_answer, like=x, what=str(subject))
    if not torch.equal(later, first):
        return Broken(
            what="returns memory that its next call overwrites",
            hint="return a fresh tensor, or document that the caller must copy it",
        )
    second = subject.apply(x)
    return Measurement(
        claim=Distance(name="the same numbers for the same input", error=relative(second, first)),
        rivals=(Distance(name="zeros", error=first.norm().item(), separation=1.0),),
        allowed=Allowance(value=0.0, derivation="bit equality: the same code on the same numbers"),
        verb="returns",
        witness=f"x: {tuple(x.shape)} twice, seed {witness.seed}",
        hint="look for a random generator or a reused buffer inside the call",
    )
