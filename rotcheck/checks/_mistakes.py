"""The mistakes that a cache can make on the way there and back, as what it then returns in place of its vectors."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from rotcheck.checks._caches import Stored, applied
from rotcheck.subjects.cache import KINDS, CacheRotation, Head
from rotcheck.subjects.calling import to_float64

Place = tuple[int, str]
"""Layer, and keys or values."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Turn:
    """``x[:, h] -> x[:, h] @ matrix[h] + offset[h]`` of the H heads of one layer's keys or values.

    Attributes
    ----------
    matrix : Tensor (H, d, d) float64
    offset : Tensor (H, d) float64
    """

    matrix: Tensor
    offset: Tensor

    @property
    def idle(self) -> bool:
        """Whether it changes nothing."""
        identity = torch.eye(self.matrix.shape[-1], dtype=torch.float64).expand_as(self.matrix)
        return bool(torch.allclose(self.matrix, identity, rtol=0.0) and not self.offset.any())

    def of(self, x: Tensor) -> Tensor:
        """Applied to (batch, H, tokens, d), in float64; in the dtype of ``x``."""
        turned = x.to(torch.float64) @ self.matrix.to(x.device) + self.offset.unsqueeze(1).to(x.device)
        return turned.to(x.dtype)


@dataclass(frozen=True, kw_only=True)
class Mistake:
    """One mistake, made in all layers.

    Attributes
    ----------
    name : str
        What comes back.
    kinds : tuple of str
        Where it is made: keys, values, or both.
    matrix : callable
        From the bases (H, d, d) of a layer's own kind and of the other kind to the matrices by which vectors come back.
    mean : bool
        Whether the mean, which was subtracted first, is added at the end.
    """

    name: str
    kinds: tuple[str, ...]
    matrix: Callable[[Tensor, Tensor], Tensor]
    mean: bool = True

    def turn(self, own: Tensor, other: Tensor, mean: Tensor) -> Turn:
        """``(x - mean) @ M + mean``, or without the last term."""
        matrix = self.matrix(own, other)
        shift = (mean.unsqueeze(1) @ matrix).squeeze(1)
        return Turn(matrix=matrix, offset=mean - shift if self.mean else -shift)


NEEDED = (
    Mistake(name="values that are still rotated", kinds=("values",), matrix=lambda own, other: own, mean=False),
    Mistake(
        name="keys that are still rotated for queries that are not", kinds=("keys",), matrix=lambda own, other: own
    ),
)
"""What a witness must tell from the truth."""

_WAYS_BACK: tuple[tuple[str, Callable[[Tensor, Tensor], Tensor]], ...] = (
    ("rotated forward again on the way back", lambda own, other: own @ own),
    ("rotated by basis.T, forward and back", lambda own, other: own.mT @ own.mT),
    ("un-rotated by the basis of the next head", lambda own, other: own @ own.roll(-1, 0).mT),
    ("un-rotated by the basis of the head before", lambda own, other: own @ own.roll(1, 0).mT),
)

NAMED = (
    Mistake(name="keys and values that are still rotated", kinds=KINDS, matrix=lambda own, other: own),
    Mistake(name="values that are still rotated, with their mean", kinds=("values",), matrix=lambda own, other: own),
    *(
        Mistake(name=f"{' and '.join(kinds)} {name}", kinds=kinds, matrix=matrix)
        for name, matrix in _WAYS_BACK
        for kinds in (KINDS, ("values",), ("keys",))
    ),
    Mistake(
        name="values un-rotated by the basis of the keys", kinds=("values",), matrix=lambda own, other: own @ other.mT
    ),
    Mistake(name="values without their mean", kinds=("values",), matrix=lambda own, other: own @ own.mT, mean=False),
)
"""What a failure is compared with, to name it."""


def turns(
    subject: CacheRotation, stored: Stored, mistakes: tuple[Mistake, ...]
) -> Iterator[tuple[Mistake, dict[Place, Turn]]]:
    """What each mistake does to the layers; mistakes that change nothing with these bases are left out."""
    banks = _banks(subject, stored)
    for mistake in mistakes:
        found = {}
        for (layer, kind), (own, mean) in banks.items():
            if kind in mistake.kinds:
                other, _ = banks.get((layer, KINDS[1 - KINDS.index(kind)]), (own, mean))
                turn = mistake.turn(own, other if other.shape == own.shape else own, mean)
                if not turn.idle:
                    found[layer, kind] = turn
        if found:
            yield mistake, found


def _banks(subject: CacheRotation, stored: Stored) -> Mapping[Place, tuple[Tensor, Tensor]]:
    """The declared bases (H, d, d) and means (H, d) wherever the heads are those that are stored."""
    found = {}
    for layer, pair in enumerate(stored):
        for kind, tensor in zip(KINDS, pair, strict=True):
            _, heads, _, width = tensor.shape
            parts = [subject.heads.get(Head(layer=layer, head=head, kind=kind)) for head in range(heads)]
            known = [part for part in parts if part is not None and part.basis is not None and part.width == width]
            if len(known) == heads == sum((place.layer, place.kind) == (layer, kind) for place in subject.heads):
                means = [to_float64(torch.zeros(width) if part.mean is None else part.mean) for part in known]
                found[layer, kind] = torch.stack([applied(part) for part in known]), torch.stack(means)
    return found
