"""The KV-cache subjects of ``rotcheck run``: our own cache over a model, and its code for single heads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from rotcheck.spectral.calibrate import calibrate_cache
from rotcheck.spectral.settings import Settings
from rotcheck.subjects.labelled import Labelled
from rotcheck.subjects.running import cast
from rotcheck.subjects.spectral import spectral_cache
from rotcheck.subjects.spectral_codec import spectral_codec

CACHES = (Settings(bits=3.0),)
MORE_CACHES = (
    Settings(bits=2.5, allocation="two-regimes", codebook="minmax", centred=False),
    Settings(bits=4.0, codebook="gaussian", normalize=True, sketch=64),
    Settings(bits=4.0, allocation="uniform", rotation="haar", codebook="regime"),
)
CODECS = (("keys", Settings(bits=3.0)), ("values", Settings(bits=3.0, codebook="gaussian", normalize=True)))
MORE_CODECS = (
    ("keys", Settings(allocation="4/2", codebook="minmax")),
    ("values", Settings(bits=2.5, allocation="two-regimes", codebook="regime", centred=False)),
    ("keys", Settings(bits=3.0, codebook="uniform")),
)
ROWS = 2048
"""Rows of a head that its code is checked on."""


def cache_subjects(model: Any, inputs: Any, windows: Sequence[Tensor], *, everything: bool) -> Iterator[Labelled]:
    """The compressed cache of a model in its dtype, and codes of its middle layer; with ``everything`` other settings,
    and 16 bits.
    """
    calibration = calibrate_cache(model, windows)
    for settings in (*CACHES, *(MORE_CACHES if everything else ())):
        subject = spectral_cache(model, calibration, settings, inputs=inputs)
        yield Labelled(label=str(subject), subject=subject)
    if everything:
        coarse = cast(model, torch.bfloat16)
        subject = spectral_cache(
            coarse, calibration, CACHES[0], inputs=inputs, name=f"spectral cache, {CACHES[0]}, bfloat16 model"
        )
        yield Labelled(label=str(subject), subject=subject)
    middle = len(calibration.keys) // 2
    for kind, settings in (*CODECS, *(MORE_CODECS if everything else ())):
        statistics = getattr(calibration, kind)[middle]
        name = f"codec of {kind}, layer {middle} head 0, {settings}"
        codec = spectral_codec(statistics.rows[0, :ROWS], settings, kind=kind, rotary=statistics.rotary, name=name)
        yield Labelled(label=name, subject=codec)
