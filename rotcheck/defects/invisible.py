"""What equivalence at full width cannot see: consistent use of the wrong basis, and the wrong divisor."""

from __future__ import annotations

from dataclasses import replace

from rotcheck.bases.haar import haar
from rotcheck.defects._slicing import RIGHT, sliced, with_bases
from rotcheck.defects.defect import Defect

TRANSPOSE = with_bases(lambda basis: basis.T)
ASCEND = with_bases(lambda basis: basis.flip(1))
DRAW = with_bases(lambda basis: haar(len(basis), seed=11))

DEFECTS = (
    Defect(
        name="plan_of_transposed_bases",
        kind="SlicedModel",
        issue="Dynamis-Labs/spectralquant#1",
        summary="eigenvectors taken from the rows, consistently: exact at full width",
        plant=lambda seed: sliced(seed, used=TRANSPOSE, declared=TRANSPOSE),
        twin=sliced,
        killed_by=("kept_energy",),
    ),
    Defect(
        name="plan_of_ascending_bases",
        kind="SlicedModel",
        issue="microsoft/TransformerCompression: the one mutation of twelve that its tests kill",
        summary="eigenvectors in eigh's own order: the smallest variances are kept",
        plant=lambda seed: sliced(seed, used=ASCEND, declared=ASCEND),
        twin=sliced,
        killed_by=("kept_energy",),
    ),
    Defect(
        name="plan_of_random_bases",
        kind="SlicedModel",
        issue="bugs class B20: calibration in another basis",
        summary="orthogonal bases that have nothing to do with the data",
        plant=lambda seed: sliced(seed, used=DRAW, declared=DRAW),
        twin=sliced,
        killed_by=("kept_energy",),
    ),
    Defect(
        name="model_of_transposed_bases",
        kind="SlicedModel",
        issue="Dynamis-Labs/spectralquant#1",
        summary="the plan is right, the model uses its bases transposed",
        plant=lambda seed: sliced(seed, used=TRANSPOSE),
        twin=sliced,
        killed_by=("kept_energy", "tensor_bases", "projected_stream"),
    ),
    Defect(
        name="divisor_of_the_sliced_width",
        kind="SlicedModel",
        issue="microsoft/TransformerCompression, RMSN(mean_dim)",
        summary="norms divide by w in place of d: better perplexity than the right code",
        plant=lambda seed: sliced(seed, steps=replace(RIGHT, norm_divisor=lambda d, w: w)),
        twin=sliced,
        killed_by=("projected_stream", "tensor_bases"),
    ),
)
