"""Applying a rotation to activations."""

from rotcheck.kernels.dense import DenseRotation, rotate, unrotate

__all__ = ["DenseRotation", "rotate", "unrotate"]
