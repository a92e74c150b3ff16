"""Turning the kept columns of a basis among themselves."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from rotcheck.bases.haar import haar
from rotcheck.errors import RotcheckError

Orientation = Literal["pca", "haar"]


def orient(
    bases: tuple[Tensor, ...],
    site_basis: tuple[int, ...],
    widths: tuple[int, ...],
    *,
    orientation: Orientation,
    seed: int,
) -> tuple[Tensor, ...]:
    """Final orientation of the kept columns: leave them, or turn them by seeded Haar matrices.

    ``"haar"`` gives ``Q @ blockdiag(R, I)``, which keeps the span of the leading columns. A basis used at
    several widths is turned inside the segments between them, so that the span is kept at each of these
    widths.

    Raises
    ------
    RotcheckError
        `orientation` is neither ``"pca"`` nor ``"haar"``.
    """
    if orientation == "pca":
        return bases
    if orientation != "haar":
        raise RotcheckError(f"orientation {orientation!r} is not one of pca, haar")
    generator = torch.Generator().manual_seed(seed)
    turned = []
    for group, basis in enumerate(bases):
        cuts = sorted({width for width, used in zip(widths, site_basis, strict=True) if used == group})
        result = basis.clone()
        for start, stop in zip([0, *cuts], cuts, strict=False):
            result[:, start:stop] = basis[:, start:stop] @ haar(stop - start, seed=generator).to(basis.device)
        turned.append(result)
    return tuple(turned)
