"""The historical paths in a list, with the failures that their bugs cause."""

from __future__ import annotations

from collections.abc import Iterator

from rotcheck.subjects.codec import Codec
from rotcheck.subjects.historical import codecs, rotations
from rotcheck.subjects.historical.data import drawn
from rotcheck.subjects.labelled import Labelled
from rotcheck.subjects.rotation import Rotation

ISSUE = "Dynamis-Labs/spectralquant#1"

INSIDE = ("side", "energy_order", "leading_energy")
"""Checks of a `Rotation` that find a transpose, or the basis of something else."""

OUTSIDE = ("recalibration_equivariance", "axis_aligned_control", "codebook_cardinality", "jump_directions")
"""Checks of a `Codec` that find a transpose without seeing a rotation."""

SCALES = ("codebook_scale", "mean_kept")
"""Checks of a `Codec` that find tables of another scale: too narrow for a leading coordinate, or for a mean."""


def historical_subjects(seed: int = 0) -> Iterator[Labelled]:
    """Two right paths and two wrong ones, from inside (`Rotation`) and from outside (`Codec`).

    The wrong ones expect the failures that the transpose, the basis of the keys on values, and the single codebook
    cause, and no others. From outside the script is there twice: as it was, and with its transpose repaired, which
    makes its error larger and leaves the codebook as the one thing to find.
    """
    data = drawn(seed)
    yield _labelled(rotations.lookup(data))
    yield _labelled(rotations.affine(data))
    yield _labelled(rotations.script_keys(data), INSIDE, "h @ U.T")
    yield _labelled(rotations.script_values(data), INSIDE, "values in the basis of the keys, transposed")
    yield _labelled(rotations.engine(data), INSIDE, "Pi = V, and h @ Pi.T")
    yield _labelled(codecs.lookup(data))
    yield _labelled(codecs.affine(data))
    # of its two mistakes the transpose hides the codebook from `mean_kept`, as from every error
    yield _labelled(codecs.script(data), (*OUTSIDE, "codebook_scale"), "h @ U.T, and one codebook N(0, 1/d)")
    yield _labelled(codecs.repaired_script(data), SCALES, "one codebook N(0, 1/d)")
    yield _labelled(codecs.engine(data), (*OUTSIDE, *SCALES), "Pi = V, and h @ Pi.T, with tables for h @ Pi")


def _labelled(subject: Rotation | Codec, failing: tuple[str, ...] = (), why: str = "") -> Labelled:
    expected = dict.fromkeys(failing, f"{ISSUE}: {why}")
    return Labelled(label=str(subject), subject=subject, expected_failures=expected)
