"""Sizes of the published OPT models, for random weights in their shapes."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from rotcheck.errors import RotcheckError

VOCABULARY = 50272
POSITIONS = 2048

_TABLE = {
    "125m": (768, 12, 12), "1.3b": (2048, 24, 32), "2.7b": (2560, 32, 32), "6.7b": (4096, 32, 32),
    "13b": (5120, 40, 40), "30b": (7168, 48, 56), "66b": (9216, 64, 72),
}  # fmt: skip
OPT_SIZES: Mapping[str, tuple[int, int, int]] = MappingProxyType(_TABLE)
"""Hidden size, layers and heads by name; the feed-forward size is four times the hidden one. The 350M model is not
here: it is post-norm, and its stream cannot be rotated. Source: arXiv:2205.01068, table 1."""


def opt_shape(name: str) -> dict[str, int]:
    """Keyword arguments of `rotcheck.models.adversarial.adversarial_opt` for a published size.

    Raises
    ------
    RotcheckError
        For a size that is not in `OPT_SIZES`.
    """
    if name not in OPT_SIZES:
        raise RotcheckError(f"OPT has no size {name!r} here: use one of {', '.join(OPT_SIZES)}")
    hidden, layers, heads = OPT_SIZES[name]
    return {
        "hidden_size": hidden, "layers": layers, "heads": heads, "ffn_dim": 4 * hidden,
        "vocab_size": VOCABULARY, "max_positions": POSITIONS,
    }  # fmt: skip
