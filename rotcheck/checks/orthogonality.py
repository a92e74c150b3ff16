"""ROT101: the columns of a basis have length one and are perpendicular."""

from __future__ import annotations

import torch

from rotcheck.checking import Measurement, check
from rotcheck.checks._rotation import relative_allowance
from rotcheck.outcome import Allowance, Distance
from rotcheck.subjects.calling import to_float64
from rotcheck.subjects.rotation import Rotation
from rotcheck.tolerance import Tolerance
from rotcheck.witness import Witness


@check(code="ROT101", kinds=["Rotation"])
def orthogonality(subject: Rotation, witness: Witness) -> list[Measurement]:
    r"""The stored basis, and the matrix that is really applied, satisfy ``Q.T @ Q = I``.

    ``|Q.T @ Q - I|_2 <= s (u_storage + sqrt(d) u_accumulate)`` with the product in float64. The 2-norm of the
    error of a rounded orthogonal matrix does not grow with d (1.2 u, measured at d = 128 to 1024), and the
    second term leaves room for the factorisation that made it; a bound ``d * eps`` would accept the zero
    matrix in bfloat16.

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
        stored = Tolerance(storage=subject.dtype, length=subject.width).allowance()
        found.append(_measure(to_float64(subject.basis), "has a stored basis with", stored))
    x = subject.probe(torch.eye(subject.width, dtype=torch.float64))
    return [*found, _measure(subject.operator(), "applies a matrix with", relative_allowance(subject, x))]


def _measure(matrix: torch.Tensor, verb: str, allowed: Allowance) -> Measurement:
    d = matrix.shape[0]
    gram = matrix.T @ matrix
    identity = torch.eye(d, dtype=torch.float64)
    scale = gram.diagonal().mean().item()
    rivals = [Distance(name="zero columns", error=_spectral(gram), separation=1.0)]
    if abs(scale - 1) > 2 * allowed.value:  # only then is a common scale another claim than the declared one
        name = f"orthogonal columns of length {scale**0.5:.10g}"
        rivals.append(Distance(name=name, error=_spectral(gram - scale * identity), separation=abs(scale - 1)))
    return Measurement(
        claim=Distance(name="orthonormal columns", error=_spectral(gram - identity)),
        rivals=tuple(rivals),
        allowed=allowed,
        verb=verb,
        witness=f"Q.T @ Q: ({d}, {d}) in float64, 2-norm",
        hint="divide a Hadamard matrix by sqrt(its own size); keep a learned rotation on the orthogonal group",
        facts=(("mean squared column length", scale),),
    )


def _spectral(matrix: torch.Tensor) -> float:
    if not matrix.isfinite().all():
        return float("nan")
    return torch.linalg.matrix_norm(matrix, ord=2).item()
