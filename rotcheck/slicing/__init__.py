"""Rotate and slice a language model: calibrate, plan, rotate, save.

Importing this registers the sliced model types with transformers' Auto classes.
"""

from __future__ import annotations

from rotcheck.slicing.calibrate import Calibration, calibrate
from rotcheck.slicing.consumers import rotate_reader
from rotcheck.slicing.describe import describe
from rotcheck.slicing.examine import verify_manifest
from rotcheck.slicing.inner import InnerPlan, inner_plan
from rotcheck.slicing.inner_steps import InnerSteps
from rotcheck.slicing.lora import Lora, rotate_lora, with_lora
from rotcheck.slicing.manifest import BasisManifest, read_manifest
from rotcheck.slicing.plan import (
    Grouping,
    Plan,
    global_groups,
    identity_plan,
    k_block_groups,
    make_plan,
    parse,
    per_layer_groups,
    random_plan,
)
from rotcheck.slicing.rotate import fuse, rotate_and_slice
from rotcheck.slicing.schedule import Schedule
from rotcheck.slicing.sequential import sequential_plan
from rotcheck.slicing.sharding import shard
from rotcheck.slicing.sliced import parameter_counts, register, skeleton
from rotcheck.slicing.steps import Steps
from rotcheck.slicing.store import load, save
from rotcheck.slicing.walk import walk

register()

__all__ = [
    "BasisManifest",
    "Calibration",
    "Grouping",
    "InnerPlan",
    "InnerSteps",
    "Lora",
    "Plan",
    "Schedule",
    "Steps",
    "calibrate",
    "describe",
    "fuse",
    "global_groups",
    "identity_plan",
    "inner_plan",
    "k_block_groups",
    "load",
    "make_plan",
    "parameter_counts",
    "parse",
    "per_layer_groups",
    "random_plan",
    "read_manifest",
    "rotate_and_slice",
    "rotate_lora",
    "rotate_reader",
    "save",
    "sequential_plan",
    "shard",
    "skeleton",
    "verify_manifest",
    "walk",
    "with_lora",
]
