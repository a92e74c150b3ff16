"""Jumps of a round trip along great circles: where one code changes, the output moves along one reconstruction axis."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from rotcheck.checks._codec import sample
from rotcheck.subjects.calling import to_float64
from rotcheck.subjects.codec import Codec
from rotcheck.witness import Witness

CIRCLES = 48
"""Quarters of great circles, each from one row of the samples towards another."""

POINTS = 65
"""Points on each."""

JUMPS = 512
"""Intervals between neighbouring points, drawn from those in which the output changes."""

HALVINGS = 14
"""Bisections of each, towards its largest jump. All in all 48 * 65 + 512 * 14 = 10288 rows are coded."""

PARALLEL = 0.98
"""Cosine from which on two directions count as one."""

SMALL = 2.0**-10
"""Jumps of every coordinate by this part of the row are those of side information stored in float16."""

STEEP = 64.0
"""A jump is this much longer than the way on which it happens; what is shorter may be a slope."""

FEWEST = 32
"""Jumps that are needed; fewer larger ones are not preferred to the small ones."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Jumps:
    """Directions of jumps.

    Attributes
    ----------
    directions : Tensor (j, d)
        Unit vectors, of either sign.
    rows : int
        Rows that were coded for them.
    """

    directions: Tensor
    rows: int

    def parallel(self, axes: Tensor) -> float:
        """Share of the jumps that are parallel to a column of ``axes`` (d, m)."""
        return ((self.directions @ axes).abs().amax(1) > PARALLEL).double().mean().item()

    def off_axis(self, moment: Tensor) -> float:
        """How far the directions are from eigenvectors of a moment C: 0 for these, 1 for random directions.

        Median of ``|C v - (v.T C v) v|`` over ``|C|_F / sqrt(d)``. It does not change with signs, nor with rotations
        inside equal eigenvalues, and weighs a wrong axis by the variances that it mixes.
        """
        image = self.directions @ moment
        rest = image - (image * self.directions).sum(1, keepdim=True) * self.directions
        scale = moment.norm() / math.sqrt(len(moment))
        return (rest.norm(dim=-1).median() / scale).item()

    def axes(self) -> Tensor:
        """Directions that occur at least twice, one for each group of parallel ones: (d, m)."""
        left, found = self.directions, []
        while len(left):
            alike = (left @ left[0]).abs() > PARALLEL
            if alike.sum() > 1:
                found.append(left[0])
            left = left[~alike]
        return torch.stack(found, dim=1) if found else torch.zeros(self.directions.shape[1], 0, dtype=torch.float64)

    def oblique(self) -> float:
        """Share of the pairs of axes that are not at right angles: .62 of random directions, none of a rotation."""
        axes = self.axes()
        pairs = torch.triu(torch.ones(axes.shape[1], axes.shape[1]), diagonal=1).bool()
        cosines = (axes.T @ axes).abs()[pairs]
        return (cosines > 0.5 / math.sqrt(len(axes))).double().mean().item() if len(cosines) else 0.0

    def common(self) -> Jumps:
        """The jumps that are parallel to another one: a change of several codes at once rarely is."""
        alike = (self.directions @ self.directions.T).abs() > PARALLEL
        return replace(self, directions=self.directions[alike.sum(1) > 1])


def find_jumps(subject: Codec, witness: Witness) -> Jumps:
    """Walk from rows of the samples towards others at constant length, and bisect where the output changes.

    Lengths are constant around the declared mean, so that a stored length does not change on the way; jumps as small
    as the rounding of other side information are left out where there are enough larger ones.
    """
    mean = torch.zeros(subject.width, dtype=torch.float64) if subject.mean is None else to_float64(subject.mean)
    drawn = sample(subject, witness, "circles", 2 * CIRCLES) - mean
    start, towards = drawn[: len(drawn) // 2], drawn[len(drawn) // 2 :][: len(drawn) // 2]
    reach = start.norm(dim=-1, keepdim=True)
    across = towards - (towards * start).sum(-1, keepdim=True) / reach.square().clamp(min=1e-300) * start
    across = across / across.norm(dim=-1, keepdim=True).clamp(min=1e-300) * reach

    def at(circle: Tensor, angle: Tensor) -> Tensor:
        rows = mean + angle.cos().unsqueeze(-1) * start[circle] + angle.sin().unsqueeze(-1) * across[circle]
        return subject.apply(rows)

    circle = torch.arange(len(start)).repeat_interleave(POINTS)
    angle = torch.linspace(0, math.pi / 2, POINTS, dtype=torch.float64).repeat(len(start))
    out = at(circle, angle).reshape(len(start), POINTS, -1)
    changed = (out.diff(dim=1).norm(dim=-1) > 0).nonzero()
    order = torch.randperm(len(changed), generator=witness.generator("intervals"))[:JUMPS]
    which, first = changed[order].T
    low, high = angle[first], angle[first + 1]
    left, right = out[which, first], out[which, first + 1]
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        between = at(which, middle)
        lower = ((between - left).norm(dim=-1) > (right - between).norm(dim=-1)).unsqueeze(-1)
        low, high = torch.where(lower[:, 0], low, middle), torch.where(lower[:, 0], middle, high)
        left, right = torch.where(lower, left, between), torch.where(lower, between, right)
    jump, output = right - left, left - mean
    size, length = jump.norm(dim=-1), output.norm(dim=-1)
    directions = jump / torch.where(size > 0, size, 1.0).unsqueeze(-1)
    moved = (high - low) * reach[which, 0]
    kept = size > STEEP * moved
    large = kept & (size > SMALL * math.sqrt(subject.width) * length)
    chosen = large if large.sum() >= FEWEST else kept
    return Jumps(directions=directions[chosen], rows=len(circle) + HALVINGS * len(which))
