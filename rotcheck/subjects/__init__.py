"""What can be put under test."""

from rotcheck.subjects.cache import CacheRotation
from rotcheck.subjects.codec import Codec
from rotcheck.subjects.consumer import Consumer
from rotcheck.subjects.pair import ModelPair
from rotcheck.subjects.quantized_layer import QuantizedLayer
from rotcheck.subjects.rotation import Rotation
from rotcheck.subjects.sliced import SlicedModel

__all__ = ["CacheRotation", "Codec", "Consumer", "ModelPair", "QuantizedLayer", "Rotation", "SlicedModel"]
