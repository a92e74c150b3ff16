"""An orthogonal matrix learned by descent on the orthogonal group, so that it cannot drift off it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.utils.parametrizations import orthogonal
from tqdm import tqdm

from rotcheck.bases.objectives import Objective
from rotcheck.bases.polar import orthonormal, polar_factor
from rotcheck.errors import RotcheckError


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Learned:
    """What `learn` found.

    Attributes
    ----------
    basis
        U (d, d) float64, ``|U' U - I|_2`` about 1.2 u. Round it for storage with `stored`.
    history
        Value of the objective at the start and after each step, (steps + 1,).
    start, end
        Value at the first iterate and at `basis`: ``end <= start``.
    step
        Step after which the best iterate came; 0 is the start.
    """

    basis: Tensor
    history: tuple[float, ...]
    start: float
    end: float
    step: int

    def __repr__(self) -> str:
        return f"Learned({self.start:.4g} -> {self.end:.4g}, step {self.step} of {len(self.history) - 1})"


def learn(
    objective: Objective, start: Tensor, *, steps: int = 200, rate: float = 0.03, progress: bool = False
) -> Learned:
    r"""Minimise an objective over orthogonal matrices, and keep the best one seen.

    ``U = start @ Q`` with the Cayley transform ``Q = (I - A/2)^-1 (I + A/2)`` of a skew-symmetric A, which is
    `torch.nn.utils.parametrizations.orthogonal`. A starts at zero, where Q is the identity *exactly*, so the first
    iterate is the start itself. A's entries are free, and are moved by Adam, with a rate that falls to zero as half a
    cosine: every iterate is orthogonal to rounding, whatever the rate and however many steps, where an update of U
    itself drifts. In the end the polar factor is taken.

    Nothing is drawn at random: the same objective and start give the same basis, bit by bit, on one thread. Q has
    determinant one and no eigenvalue -1, which leaves out no basis but reflections of the start. A start at which the
    gradient is zero, such as the principal axes in any order for `objectives.rate`, stays where it is.

    Parameters
    ----------
    objective
        From U (d, d) float64 to a scalar tensor: one of `rotcheck.bases.objectives`, or any that is differentiable, or
        has a gradient that descends.
    start
        (d, d), orthogonal up to the arithmetic of its dtype; its polar factor in float64 is the first iterate, and is
        the start itself where that is orthogonal to 2 u. A Hadamard matrix for objectives that flatten, principal axes
        for those that align.
    steps
        Evaluations of objective and gradient, 0 or more. A step costs a solve of size d beside them.
    rate
        Largest step of an entry of A, roughly an angle in radians.
    progress
        A progress bar, on a terminal only.

    Returns
    -------
    Learned

    Raises
    ------
    RotcheckError
        A start that is not orthogonal, steps or rate out of range, or an objective that gives no scalar, no gradient,
        or a value that is not finite.

    References
    ----------
    Lezcano-Casado and Martinez-Rubio, "Cheap orthogonal constraints in neural networks", ICML 2019. Li, Fuxin and
    Todorovic, "Efficient Riemannian optimization on the Stiefel manifold via the Cayley transform", ICLR 2020, is the
    update that SpinQuant uses.
    """
    if steps < 0:
        raise RotcheckError(f"learn: steps is {steps}; pass 0 or more")
    if not 0 < rate < float("inf"):
        raise RotcheckError(f"learn: rate is {rate}; pass a positive one, such as 0.03")
    first = orthonormal("learn", "start", start)
    with torch.enable_grad():
        history, best = _descend(objective, first, steps, rate, progress)
    lowest = min(range(steps + 1), key=history.__getitem__)
    basis, end = first, history[0]
    if lowest:
        polar = polar_factor(best)
        with torch.no_grad():
            value = objective(polar).item()
        # the polar factor moves the best iterate by rounding, and must not lose to the start by it
        basis, end, lowest = (polar, value, lowest) if value <= end else (first, end, 0)
    return Learned(basis=basis, history=tuple(history), start=history[0], end=end, step=lowest)


def _descend(
    objective: Objective, first: Tensor, steps: int, rate: float, progress: bool
) -> tuple[list[float], Tensor]:
    """Values at the start and after each step, and the iterate with the lowest."""
    holder = torch.nn.Module()
    holder.register_parameter("basis", torch.nn.Parameter(first.clone()))
    orthogonal(holder, "basis", orthogonal_map="cayley")
    optimizer = torch.optim.Adam(holder.parameters(), lr=rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=max(steps, 1))
    history, best = [], first
    for step in tqdm(range(steps + 1), desc="learning", disable=None if progress else True, leave=False):
        basis = holder.basis
        value = objective(basis)
        history.append(_scalar(value, step))
        if history[-1] == min(history):
            best = basis.detach().clone()
        if step < steps:
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
            schedule.step()
    return history, best


def _scalar(value: Tensor, step: int) -> float:
    if not isinstance(value, Tensor) or value.numel() != 1:
        raise RotcheckError(f"learn: the objective gave {type(value).__name__}, not a tensor of one number")
    if not value.requires_grad:
        raise RotcheckError(
            "learn: the objective has no gradient in the basis; compute it from the basis by torch alone"
        )
    if not bool(value.isfinite()):
        cure = "start elsewhere" if step == 0 else "lower the rate"
        raise RotcheckError(f"learn: the objective is {value.item()} after {step} steps; {cure}, or leave rows out")
    return value.item()
