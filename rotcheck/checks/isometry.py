"""ROT102: a rotation keeps the length of every row."""

from __future__ import annotations

from rotcheck.checking import Measurement, check
from rotcheck.checks._rotation import described, relative_allowance, rows
from rotcheck.outcome import Distance
from rotcheck.subjects.rotation import Rotation
from rotcheck.witness import Witness


@check(code="ROT102", kinds=["Rotation"], each=["CacheRotation"])
def isometry(subject: Rotation, witness: Witness) -> Measurement:
    r"""Each row keeps its norm: ``max_i | |rotate(x)_i| / |x_i| - 1 |`` is rounding.

    ``x`` is centred and normalised as declared before the norms are compared. A path that normalises is fed
    long rows, so that a guard such as ``x / (norm + 1e-8)`` does not count as a scale.

    Catches
    -------
    A missing or doubled ``1/sqrt(d)``, pad-rotate-truncate (the cut coordinates carry energy), rows that are
    left out, a declared mean that is not subtracted, non-finite output.

    Cannot see
    ----------
    Any convention: every orthogonal matrix keeps norms.

    References
    ----------
    TheTom/turboquant_plus#11 (pad and truncate), vllm-project/vllm#57014 (last rows of a kernel).
    """
    x = subject.probe(subject.length * rows(subject, witness))
    before = subject.prepared(x).norm(dim=-1)
    after = subject.apply(x).norm(dim=-1)
    ratio = after / before
    mean = ratio.mean().item()
    error = (ratio - 1).abs().max().item()
    allowed = relative_allowance(subject, x)
    # the scale is fitted: where it is one, or fits no row, it is not another claim
    scaled = Distance(name=f"{mean:.10g} |x|", error=(ratio / mean - 1).abs().max().item(), separation=abs(mean - 1))
    fits = scaled.separation > 2 * allowed.value and scaled.error <= allowed.value
    return Measurement(
        claim=Distance(name="|x|", error=error),
        rivals=((scaled,) if fits else ()) + (Distance(name="0", error=ratio.max().item(), separation=1.0),),
        allowed=allowed,
        verb="returns rows of length",
        witness=described(subject, x, witness),
        hint="an orthogonal matrix keeps norms: look for a scale, a pad or a cut",
        facts=(("worst row", float(int((ratio - 1).abs().argmax()))),),
    )
