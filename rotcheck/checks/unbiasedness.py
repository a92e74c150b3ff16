"""ROT408: over random projections the mean of the reconstruction is x."""

from __future__ import annotations

import math

import torch

from rotcheck.checking import Broken, Measurement, check
from rotcheck.checks._codec import described, sample
from rotcheck.outcome import Allowance, Distance
from rotcheck.subjects.codec import Codec
from rotcheck.witness import Witness

SEEDS = 64
"""Independent projections."""

ROWS = 64
"""Rows of each; the projections are what is random, so more rows help little."""

SIGMAS = 5.0
"""Standard errors that chance explains: 4e-6 of right codes with 63 degrees of freedom would go beyond."""

HALVES = 2.0**-10
"""Lengths stored in float16 may be off by 2**-11 each."""


@check(code="ROT408", kinds=["Codec"], needs=["seeded"])
def unbiasedness(subject: Codec, witness: Witness) -> Measurement | Broken:
    r"""The mean of ``<x - mean, f_seed(x) - mean>`` over seeds is ``|x - mean|^2``: its slope is 1, within its error.

    For each of 64 seeds the slope of the reconstructed rows on the rows is taken. Their mean is the estimator's factor,
    their scatter over sqrt(64) its standard error. For every q the score ``<q, f(x)>`` then has this factor on average.
    The rivals are the factors that wrong constants give, and the fitted one, if it fits.

    Catches
    -------
    A sketch scaled by k / m or d / m for 1 / m, a missing ``sqrt(pi / 2)``, the length of the whole residual for that
    of its sketched part, a sketch that is left out, projections that do not depend on the seed.

    Cannot see
    ----------
    A bias at right angles to the rows. The variance of the estimate.

    References
    ----------
    Dynamis-Labs/spectralquant selective_qjl.py (k / m: factors of 2.00, 4.01, 8.00 and 32.0 for k = 2, 4, 8, 32) and
    engine.py (``|r|`` for ``|r_sem|``: 2.31). Zandieh, Daliri and Han, arXiv:2406.03482.
    """
    x = sample(subject, witness, most=ROWS)
    mean = x.mean(0)
    start = int(witness.generator("seeds").initial_seed() % 2**31)
    rows = torch.stack([subject.apply(x, subject.variant("seeded", start + i)) for i in range(SEEDS)])
    if (rows == rows[:1]).all():
        return Broken(
            what=f"gives the same rows for {SEEDS} seeds",
            place="seeded",
            hint="the seed does not reach the projections, or the sketch is not used",
        )
    centred = x - mean
    slopes = ((rows - mean) * centred).sum((1, 2)) / centred.square().sum()
    slope, error = slopes.mean().item(), slopes.std().item() / math.sqrt(SEEDS)
    allowed = Allowance(
        value=SIGMAS * error + HALVES,
        derivation=f"{SIGMAS:g} * {error:.1e}, standard error over {SEEDS} seeds, + {HALVES:.1e} for float16 lengths",
    )
    factors = {
        "d <q, x>": float(subject.width),
        "sqrt(d) <q, x>": math.sqrt(subject.width),
        "pi / 2 <q, x>": math.pi / 2,
        "sqrt(2 / pi) <q, x>": math.sqrt(2 / math.pi),
        "2 / pi <q, x>": 2 / math.pi,
        "0": 0.0,
    }
    # a fitted factor is another claim only where it is not one; more of the named ones would be undecided
    rivals = [Distance(name=n, error=abs(slope - f), separation=abs(f - 1)) for n, f in factors.items()]
    if abs(slope - 1) > 2 * allowed.value and min(r.error for r in rivals) > allowed.value:
        rivals.append(Distance(name=f"{slope:.4g} <q, x>", error=0.0, separation=abs(slope - 1)))
    return Measurement(
        claim=Distance(name="<q, x>", error=abs(slope - 1)),
        rivals=tuple(rivals),
        allowed=allowed,
        verb="gives scores <q, f(x)> with the mean",
        witness=f"{described(subject, x, witness)}; {SEEDS} seeds from {start}",
        hint="E[s sign(s . r)] = sqrt(2 / pi) r / |r|: each of m signs has the weight sqrt(pi / 2) |r| / m",
        needs="projections with less noise, that is more signs",
        facts=(("slope", slope), ("standard error", error)),
    )
