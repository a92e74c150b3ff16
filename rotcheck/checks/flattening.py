"""ROT604: the rows that are multiplied have lost the outliers of the inputs."""

from __future__ import annotations

import math

from torch import Tensor

from rotcheck.bases.haar import haar
from rotcheck.checking import Measurement, Missing, Undecided, check
from rotcheck.checks._weights import described
from rotcheck.errors import SubjectError
from rotcheck.measures.outliers import gaussian_peak_to_rms, peak_to_rms
from rotcheck.outcome import Allowance, Distance
from rotcheck.subjects.calling import to_float64
from rotcheck.subjects.quantized_layer import QuantizedLayer
from rotcheck.witness import Witness

ALLOWED = Allowance(
    value=0.49, derivation="less than half way, in octaves, from what Haar rotations leave to the inputs"
)
OCTAVES = 0.5
"""How far the peaks of the inputs must be above what Haar rotations leave of them for a rotation to show."""

ROTATIONS = 16
"""Haar rotations: where one channel dominates, what they leave is the largest entry of one random direction."""


@check(code="ROT604", kinds=["QuantizedLayer"])
def flattening(subject: QuantizedLayer, witness: Witness) -> Measurement | Undecided | Missing:
    r"""The peak-to-RMS ratio of the rows falls, as under a Haar rotation, when the runtime rotates them.

    ``p`` is the median over rows of `rotcheck.measures.outliers.peak_to_rms`, and ``h`` the largest p of the inputs
    under 16 seeded Haar rotations. Measured is ``log(p(rotated) / h) / log(p(x) / h)``: a rotation that spreads
    outliers brings it to zero or below, and none at all leaves it at one.

    Catches
    -------
    A rotation that does nothing: never applied at run time, an identity, signs or a permutation only; applied to other
    axes than the outliers'.

    Cannot see
    ----------
    Which rotation it is (`rotated_error`). Inputs without outliers, or of few channels, are undecided. Principal axes
    gather outliers, and rotations of small blocks spread them over a block only: neither declares ``flattens``.

    References
    ----------
    NVIDIA/TensorRT-LLM#15158; vllm-project/vllm#55459; the signs after the transform in Scottcjn/ComfyUI-TurboQuant,
    as quoted in Scottcjn/rustchain-bounties#71.
    """
    if not subject.flattens:
        return Missing(argument="flattens", reason="principal axes gather outliers, so it has to be declared")
    inputs = to_float64(subject.inputs)
    before, after = _peak(inputs), _peak(subject.fed)
    if math.isnan(after):
        raise SubjectError(f"the rotation of {subject} gives rows of zeros")
    generator = witness.generator("rotations")
    spread = max(_peak(inputs @ haar(subject.width, seed=generator)) for _ in range(ROTATIONS))
    facts = (
        ("peak-to-RMS before", before),
        ("peak-to-RMS after", after),
        (f"largest under {ROTATIONS} Haar rotations", spread),
        ("peak-to-RMS of normal rows", gaussian_peak_to_rms(subject.width)),
    )
    if not before > spread * 2**OCTAVES:
        return Undecided(
            reason="the inputs have no outliers for a rotation to spread",
            needs=f"inputs whose peaks are {2**OCTAVES:.3g} times those under a Haar rotation",
            facts=facts,
        )
    share = math.log2(after / spread) / math.log2(before / spread)
    return Measurement(
        claim=Distance(name="the outliers that a Haar rotation leaves", error=max(0.0, share)),
        rivals=(Distance(name="the outliers of its inputs", error=abs(1 - share), separation=1.0),),
        allowed=ALLOWED,
        verb="multiplies rows with",
        witness=described(subject, f"; rotations of seed {witness.seed}"),
        hint="look at whether the rotation runs at all, and on which axis",
        facts=facts,
    )


def _peak(rows: Tensor) -> float:
    """Rows of zeros do not count; NaN where there are no others."""
    return peak_to_rms(rows).nanmedian().item()
