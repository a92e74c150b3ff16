"""Keys and values in one function of a script: ``h @ U.T`` for eigenvectors in columns, the wrong way."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from rotcheck.quantize.codebooks import midpoints
from rotcheck.quantize.gaussian import gaussian_levels

GUARD = 1e-8
"""Added to the length of a row before dividing by it."""


def compress_decompress(keys: Tensor, values: Tensor, evec: Tensor, split: int, bits: int = 2) -> tuple[Tensor, Tensor]:
    r"""Keys and values (n, d), reconstructed: ``z = (h / (|h| + 1e-8)) @ evec.T``, coded, ``(z' @ evec) |h|``.

    Given ``evec`` as ``torch.linalg.eigh`` leaves it, with eigenvectors in columns, this rotates by the transpose.
    Three mistakes are in it, and they hide one another:

    * ``@ evec.T`` and back ``@ evec`` would be right for eigenvectors in *rows*;
    * values are rotated with the basis of the keys;
    * every coordinate shares one codebook, that of N(0, 1/d). It fits unit rows whose energy is spread evenly, as the
      wrong basis spreads it. Passing ``evec.T``, which repairs the first mistake alone, makes the reconstruction
      several times worse, so no error, cosine or perplexity finds the first mistake.

    Parameters
    ----------
    keys, values : Tensor (n, d)
    evec : Tensor (d, d)
        Of the keys' second moment.
    split : int
        Leading coordinates of the values, which get one bit more.
    bits : int
        Of each other coordinate.

    References
    ----------
    Dynamis-Labs/spectralquant#1, the script that it reports as inconsistent.
    """
    k_norm = keys.norm(dim=-1, keepdim=True)
    k_rot = (keys / (k_norm + GUARD)) @ evec.T
    k_hat = quantize_nearest(k_rot, bits, keys.shape[-1])

    v_norm = values.norm(dim=-1, keepdim=True)
    v_rot = (values / (v_norm + GUARD)) @ evec.T
    leading = quantize_nearest(v_rot[:, :split], bits + 1, values.shape[-1])
    others = quantize_nearest(v_rot[:, split:], bits, values.shape[-1])
    v_hat = torch.cat([leading, others], dim=-1)

    return (k_hat @ evec) * k_norm, (v_hat @ evec) * v_norm


def quantize_nearest(z: Tensor, bits: int, width: int) -> Tensor:
    """The nearest of the ``2**bits`` optimal levels of N(0, 1/width) for every entry of z, of the same shape."""
    levels = torch.tensor(gaussian_levels(bits), dtype=z.dtype, device=z.device) / math.sqrt(width)
    return levels[torch.searchsorted(midpoints(levels), z.contiguous())]
