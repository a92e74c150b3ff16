"""Applying a rotation to activations."""

from rotcheck.kernels.dense import DenseRotation, rotate, unrotate
from rotcheck.kernels.per_head import rotate_heads, unrotate_heads

__all__ = ["DenseRotation", "rotate", "rotate_heads", "unrotate", "unrotate_heads"]
