"""What other tools write, read safely and with its exact meaning: rotations, transforms, sliced models, state dicts."""

from __future__ import annotations

from rotcheck.adapters.compressed_tensors import (
    TransformDescription,
    TransformGroup,
    TransformPlace,
    read_transform_config,
)
from rotcheck.adapters.plans import spinquant_plans
from rotcheck.adapters.slicegpt import SlicedRead, read_sliced, to_model
from rotcheck.adapters.spinquant import SpinQuantRotations, read_rotations
from rotcheck.adapters.state_dicts import Form, StateDict, read_state_dict

__all__ = [
    "Form",
    "SlicedRead",
    "SpinQuantRotations",
    "StateDict",
    "TransformDescription",
    "TransformGroup",
    "TransformPlace",
    "read_rotations",
    "read_sliced",
    "read_state_dict",
    "read_transform_config",
    "spinquant_plans",
    "to_model",
]
