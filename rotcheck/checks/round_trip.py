"""ROT106: rotating and rotating back gives the input again."""

from __future__ import annotations

from rotcheck.checking import Measurement, check
from rotcheck.checks._rotation import described, probe, relative_allowance
from rotcheck.outcome import Distance
from rotcheck.subjects.calling import relative
from rotcheck.subjects.rotation import Rotation
from rotcheck.witness import Witness


@check(code="ROT106", kinds=["Rotation"], each=["CacheRotation"], needs=["unrotate"])
def round_trip(subject: Rotation, witness: Witness) -> Measurement:
    """``unrotate(rotate(x)) = x``, up to the rounding of two products.

    A path that normalises may give back unit rows, or restore the norms: directions are compared. A path with
    a mean may give back the centred rows or the original ones; the closer of the two is measured.

    Catches
    -------
    An inverse that applies the forward rotation again, an inverse without the random signs, a padded transform
    that was cut, an inverse that does nothing.

    Cannot see
    ----------
    A convention that is wrong both ways: ``h @ U.T`` followed by ``y @ U`` is a perfect round trip.

    References
    ----------
    Blaizzy/mlx-vlm#1244; TheTom/turboquant_plus#11.
    """
    x = probe(subject, witness)
    prepared = subject.prepared(x)
    rotated = subject.apply(x)
    back = subject.apply(rotated, subject.unrotate)
    targets = [prepared] if subject.mean is None else [prepared, x]
    if subject.normalizes:
        targets = [target / target.norm(dim=-1, keepdim=True) for target in targets]
        back = back / back.norm(dim=-1, keepdim=True)
    target = min(targets, key=lambda candidate: relative(back, candidate))
    operator = subject.operator()
    allowed = relative_allowance(subject, x, products=2)
    # The claim says everything by itself, so rivals only name what went wrong: one that coincides with it on this
    # basis (rotating twice, for a symmetric Hadamard) is right on this basis, and is left out.
    named = {"rotate(rotate(x))": prepared @ operator @ operator, "rotate(x) (still rotated)": prepared @ operator}
    rivals = [Distance(name="zeros", error=back.norm().item() / target.norm().item(), separation=1.0)]
    scale = ((back * target).sum() / target.square().sum()).item()
    error = relative(back, scale * target) / abs(scale) if scale else float("inf")
    if min(abs(scale - 1), abs(scale)) > 2 * allowed.value and error <= allowed.value:  # a fitted scale, if it is one
        rivals.append(Distance(name=f"{scale:.10g} x", error=error, separation=abs(scale - 1)))
    for name, candidate in named.items():
        if (separation := relative(candidate, prepared)) > 2 * allowed.value:
            rivals.append(Distance(name=name, error=relative(back, candidate), separation=separation))
    return Measurement(
        claim=Distance(name="x again", error=relative(back, target)),
        rivals=tuple(rivals),
        allowed=allowed,
        verb="gives back",
        witness=described(subject, x, witness),
        hint="the inverse of x @ U is y @ U.T; random signs are applied in the opposite order on the way back",
    )
