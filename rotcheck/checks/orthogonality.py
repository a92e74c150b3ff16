"""ROT101: the columns of a basis have length one and are perpendicular."""

from __future__ import annotations

import torch

from rotcheck.checking import Measurement, check
from rotcheck.checks._rotation import relative_allowance
from rotcheck.outcome import Allowance, Distance
from rotcheck.subjects.calling import to_float64
from rotcheck.subjects.rotation import Rotation
from rotcheck.tolerance import UNIT_ROUNDOFF, Tolerance
from rotcheck.witness import Witness

PRODUCTS = 4
"""Products of length d in each entry of a factor Q: two for a reflector, which is applied twice."""

HINT = "divide a Hadamard matrix by sqrt(its own size); keep a learned rotation on the orthogonal group"


@check(code="ROT101", kinds=["Rotation"], each=["CacheRotation"])
def orthogonality(subject: Rotation, witness: Witness) -> list[Measurement]:
    r"""The stored basis, and the matrix that is really applied, satisfy ``Q.T @ Q = I``.

    ``|Q.T @ Q - I|_2 <= s (u_storage + sqrt(4 d) u_accumulate)`` with the product in float64. The 2-norm of the
    error of a rounded orthogonal matrix does not grow with d (1.2 u, measured at d = 128 to 1024). The second
    term is for the factorisation that made it: Householder QR applies each reflector twice, by two products of
    length d. A bound ``d * eps`` would accept the zero matrix in bfloat16.

    Catches
    -------
    A Hadamard matrix without ``1/sqrt(d)`` or scaled for a padded size, a drifted learned rotation, a matrix of
    random numbers, a basis rounded through a coarser dtype than it is stored in, ``(1 + 4e-6) I`` in float64.

    Cannot see
    ----------
    Any convention: a transposed, reordered or wrong basis is just as orthogonal.

    References
    ----------
    vllm-project/vllm#41414 (scale of a padded Hadamard). torch's private ``_is_orthogonal`` has the vacuous bound.
    """
    found = []
    if subject.basis is not None:
        stored = Tolerance(storage=subject.dtype, length=PRODUCTS * subject.width).allowance()
        found.append(_measure(to_float64(subject.basis), "has", "a stored basis", stored))
    applied = relative_allowance(subject, subject.axes(), products=PRODUCTS)
    return [*found, _measure(subject.operator(), "applies", "a matrix", applied)]


def _measure(matrix: torch.Tensor, verb: str, noun: str, allowed: Allowance) -> Measurement:
    d = matrix.shape[0]
    gram = matrix.T @ matrix
    # all the 2-norms needed are those of gram minus a multiple of I, so its eigenvalues give them at once
    finite = bool(gram.isfinite().all())
    squares = torch.linalg.eigvalsh(gram) if finite else gram.new_full((d,), float("nan"))

    def error(scale: float) -> float:
        return (squares - scale).abs().max().item()

    scale = squares.mean().item()
    rivals = [Distance(name=f"{noun} of zeros", error=error(0.0), separation=1.0)]
    # the scale is fitted: it is another claim only when it is far from one and from zero, and fits
    if min(abs(scale - 1), scale) > 2 * allowed.value and error(scale) / scale <= allowed.value:
        name = f"{noun} with orthogonal columns of length {scale**0.5:.10g}"
        rivals.append(Distance(name=name, error=error(scale) / scale, separation=abs(scale - 1)))
    return Measurement(
        claim=Distance(name=f"{noun} with orthonormal columns", error=error(1.0)),
        rivals=tuple(rivals),
        allowed=allowed,
        verb=verb,
        witness=f"Q.T @ Q: ({d}, {d}) in float64, 2-norm",
        hint=_rounded_through(matrix, allowed) or HINT,
        facts=(("mean squared column length", scale),),
    )


def _rounded_through(matrix: torch.Tensor, allowed: Allowance) -> str:
    for name in ("bfloat16", "float16", "float32"):
        if torch.equal(matrix.to(getattr(torch, name)).double(), matrix) and UNIT_ROUNDOFF[name] > allowed.value:
            return f"every entry is a {name} number: the basis was rounded through {name}"
    return ""
