"""What can be put under test."""

from rotcheck.subjects.pair import ModelPair
from rotcheck.subjects.rotation import Rotation
from rotcheck.subjects.sliced import SlicedModel

__all__ = ["ModelPair", "Rotation", "SlicedModel"]
