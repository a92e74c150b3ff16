"""What a rotation is learned for: the error of a quantiser, tails, or the rate of coded coefficients."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from rotcheck.errors import RotcheckError

Objective = Callable[[Tensor], Tensor]
"""From a basis U (d, d) float64 to a scalar that is to be small, differentiable in U."""

UNIFORM_KURTOSIS = 9 / 5
"""``E y^4 / (E y^2)^2`` of a uniform distribution around zero, the one that equal steps suit best."""


def quantization_error(bits: int, *, rows: Tensor | None = None, weights: Tensor | None = None) -> Objective:
    r"""Relative error of round-to-nearest: the mean over rows of ``|y_i - Q(y_i)|^2 / |y_i|^2``.

    It is that of ``y = rows @ U`` and, added to it, that of ``y = weights @ U``. Each row has a step of its own,
    ``s_i = max_j |y_ij| / (2^(b-1) - 1)``, and ``Q(y_i) = s_i round(y_i / s_i)``: symmetric, per token for activations
    and per output channel for weights, the quantisers that SpinQuant's rotations are learned behind. Every row counts
    alike, as behind an RMSNorm: over their summed energies one massive token would be all that counts. Rows of zeros
    have no error.

    The gradient is straight-through: the derivative of ``round`` is taken for one. What is left of the error's
    gradient is the part through the steps, ``2 |y_i - Q(y_i)|^2 d log s_i``: it makes the largest coordinate of each
    row smaller. The optimum is not known in closed form, and there are many local ones.

    Parameters
    ----------
    bits
        b, 2 to 16.
    rows
        Activations (n, d), float64 preferred; they are used as float64.
    weights
        (out, d), of layers that read the rotated activations.

    Raises
    ------
    RotcheckError
        Bits out of range, neither rows nor weights, widths that differ, or a tensor that is empty or all zeros.

    References
    ----------
    Liu et al., "SpinQuant: LLM quantization with learned rotations", arXiv:2405.16406, which differentiates the loss of
    the whole model behind the same quantisers. Bengio et al., arXiv:1308.3432 (straight-through).
    """
    if not 2 <= bits <= 16:
        raise RotcheckError(f"quantization_error: bits is {bits}; pass 2 to 16")
    given = {"rows": rows, "weights": weights}
    parts = [_matrix("quantization_error", name, value) for name, value in given.items() if value is not None]
    if not parts:
        raise RotcheckError("quantization_error: neither rows nor weights; pass rows=x (n, d), weights=W (out, d)")
    if len({part.shape[1] for part in parts}) > 1:
        widths = " and ".join(str(part.shape[1]) for part in parts)
        raise RotcheckError(f"quantization_error: rows and weights have widths {widths}; both are rotated by one basis")
    levels = 2 ** (bits - 1) - 1

    def objective(basis: Tensor) -> Tensor:
        return torch.stack([_error(_turned(part, basis), levels) for part in parts]).sum()

    return objective


def kurtosis(rows: Tensor, *, target: float = UNIFORM_KURTOSIS) -> Objective:
    r"""Mean distance of the tokens' kurtosis from that of a uniform distribution: ``mean_i |k(x_i @ U) - 9/5|``.

    ``k(y) = mean (y - m)^4 / (mean (y - m)^2)^2`` with the mean m over the d coordinates of *one* token, because that
    is what shares a step in dynamic quantisation. 0 where every token is as flat as a uniform distribution; a Gaussian
    has 3, and one large coordinate about d. A token that is the same in all coordinates counts as ``k = 0``.

    It is a distance, so that rows which are flatter than uniform ones count as well: a Hadamard rotation of a few
    outlier channels gives sums of a few terms of one size, with a kurtosis below 9/5, and is moved *away* from it.
    There a lower value goes with a larger peak (`rotcheck.measures.outliers.peak_to_rms` of 1.6 becomes 1.75 at d = 24
    on its `outlier_rows`): read both.

    Parameters
    ----------
    rows
        Activations (n, d); used as float64. Rows of zeros have no kurtosis and are refused.
    target

    Raises
    ------
    RotcheckError
        Rows that are no (n, d) matrix, not finite, or with a row of zeros.

    References
    ----------
    Akhondzadeh et al., "KurTail: kurtosis-based LLM quantization", arXiv:2503.01483.
    """
    x = _matrix("kurtosis", "rows", rows)
    norms = x.norm(dim=1, keepdim=True)
    if bool((norms == 0).any()):
        index = int((norms == 0).nonzero()[0, 0])
        raise RotcheckError(f"kurtosis: row {index} is zero and has no kurtosis; leave such rows out")
    unit = x * (x.shape[1] ** 0.5 / norms)  # kurtosis does not see lengths, and these cannot underflow
    tiny = torch.finfo(torch.float64).eps ** 2

    def objective(basis: Tensor) -> Tensor:
        y = _turned(unit, basis)
        squares = (y - y.mean(dim=1, keepdim=True)).square()
        found = squares.square().mean(dim=1) / squares.mean(dim=1).square().clamp(min=tiny)
        return (found - target).abs().mean()

    return objective


def rate(rows: Tensor, distortion: float) -> Objective:
    r"""Bits per token of Gaussian coefficients: ``sum_j 1/2 log2(1 + v_j / D)`` with ``v_j = mean_i (x U)_ij^2``.

    ``1/2 log2(1 + v / D)`` is the rate of a Gaussian coefficient of variance v behind noise of variance D: for
    ``v >> D`` its rate-distortion function, and never below it. The sum is Schur-concave in v, and by Schur and Horn
    the eigenvalues l of ``C = x' x / n`` majorise every diagonal ``v = diag(U' C U)``. So the optimum is *known*: the
    principal axes, with ``1/2 log2 det(I + C / D)`` bits; and the worst basis is one with equal variances, which is
    where a Hadamard rotation goes. It is the measure on which flattening loses and alignment wins.

    Parameters
    ----------
    rows
        Activations (n, d), used as float64. They are not centred: subtract the mean first where it is coded apart.
    distortion
        D, in the units of the squared rows; ``step^2 / 12`` for equal steps.

    Raises
    ------
    RotcheckError
        Rows that are no (n, d) matrix or not finite, or a distortion that is not positive.

    References
    ----------
    Goyal, "Theoretical foundations of transform coding", IEEE Signal Processing Magazine 18(5), 2001.
    """
    x = _matrix("rate", "rows", rows)
    if not distortion > 0:
        raise RotcheckError(f"rate: distortion is {distortion}; pass a positive one, such as step**2 / 12")
    moment = x.T @ x / len(x)

    def objective(basis: Tensor) -> Tensor:
        variances = (_turned(moment, basis) * basis).sum(dim=0)
        return 0.5 * torch.log2(1 + variances / distortion).sum()

    return objective


def entropy(rows: Tensor, step: float) -> Objective:
    r"""Bits per token of the coefficients in equal steps: ``sum_j H_j``, the entropies of their histograms.

    The histogram of coordinate j counts each ``t = (x U)_ij / step`` in its two nearest whole numbers, with weights
    ``1 - frac t`` and ``frac t``. These are exactly the probabilities of ``floor(t + u)`` for u uniform in [0, 1), so
    ``H_j`` is the entropy of a dithered quantiser, and differentiable in U where that of ``round(t)`` is constant. An
    entropy coder with a table per coordinate comes as close to it as one likes.

    For small steps ``sum_j H_j`` differs from the sum of the marginal differential entropies by a constant, and the
    optimum is the most *independent* set of axes (ICA): the principal axes for Gaussian rows, and better ones for
    others. With few rows a histogram is too empty, and ``H_j <= log2(2 n)``: choose a step that leaves several rows in
    the bins that matter.

    Parameters
    ----------
    rows
        Activations (n, d), used as float64.
    step
        Width of a bin, in the units of the rows.

    Raises
    ------
    RotcheckError
        Rows that are no (n, d) matrix or not finite, or a step that is not positive, or so small that the largest row
        spans more than 2^20 bins.

    References
    ----------
    Comon, "Independent component analysis, a new concept?", Signal Processing 36(3), 1994.
    """
    x = _matrix("entropy", "rows", rows)
    longest = x.norm(dim=1).max().item()
    if not step > 0 or longest / step > 2**20:
        raise RotcheckError(
            f"entropy: step is {step} for rows of length {longest:.3g}; pass a positive one above 2^-20 of it"
        )

    def objective(basis: Tensor) -> Tensor:
        scaled = _turned(x, basis) / step
        low = scaled.detach().floor()
        fraction = scaled - low
        bins = (low - low.amin()).long()
        width = int(bins.max()) + 2
        index = bins + width * torch.arange(x.shape[1])
        counts = scaled.new_zeros(width * x.shape[1])
        counts = counts.index_add(0, index.flatten(), (1 - fraction).flatten())
        counts = counts.index_add(0, index.flatten() + 1, fraction.flatten())
        shares = counts / len(x)
        return -(shares * torch.log2(shares.clamp(min=torch.finfo(torch.float64).tiny))).sum()

    return objective


def _error(y: Tensor, levels: int) -> Tensor:
    tiny = torch.finfo(torch.float64).tiny
    steps = (y.abs().amax(dim=1, keepdim=True) / levels).clamp(min=tiny)
    codes = y / steps
    codes = codes + (codes.round() - codes).detach()
    # rotating keeps |y|, so its gradient would be rounding only
    energies = y.detach().square().sum(dim=1).clamp(min=tiny)
    return ((y - codes * steps).square().sum(dim=1) / energies).mean()


def _turned(x: Tensor, basis: Tensor) -> Tensor:
    if basis.shape != (x.shape[1], x.shape[1]):
        raise RotcheckError(
            f"the objective is of rows with {x.shape[1]} coordinates, and the basis is {tuple(basis.shape)}; "
            "pass one of that size"
        )
    return x @ basis


def _matrix(function: str, name: str, value: Tensor) -> Tensor:
    """Float64 copy without gradient history of a matrix that has an energy."""
    if value.dim() != 2 or 0 in value.shape or not value.is_floating_point():
        raise RotcheckError(
            f"{function}: {name} has shape {tuple(value.shape)} and {value.dtype}; pass a non-empty (n, d) real matrix"
        )
    if not bool(value.isfinite().all()):
        row, column = (~value.isfinite()).nonzero()[0].tolist()
        raise RotcheckError(f"{function}: {name}[{row}, {column}] is {value[row, column].item()}; leave that row out")
    if not bool(value.any()):
        raise RotcheckError(f"{function}: {name} is all zeros; pass rows that carry energy")
    return value.detach().to("cpu", torch.float64)
