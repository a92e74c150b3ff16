"""ROT406: every coordinate's table of levels has the scale of the data that it codes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from rotcheck.checking import Measurement, Missing, Undecided, check
from rotcheck.checks._codec import carried, coarse, described, sample
from rotcheck.checks._levels import clusters, coordinates, counts, entropy, largest
from rotcheck.checks._tables import deviations, made_for, normal_entropy, ordinary, union, unnormalised
from rotcheck.outcome import Allowance, Distance
from rotcheck.quantize.gaussian import MOST_BITS
from rotcheck.subjects.calling import to_float64
from rotcheck.subjects.codec import Codec
from rotcheck.witness import Witness

ROWS = 4096
"""Rows whose coordinates are counted; levels that are rarely used must have a chance to occur."""

FEW = 4
"""Levels are a table when they are at most this part of the rows."""

JUDGED_BITS = 3
"""Occupancy is judged from this many bits on: with two, equal steps over 4 deviations hardly use the outer levels."""

HALF_AN_OCTAVE = Allowance(
    value=0.5,
    derivation="half an octave, deviations within 0.71 and 1.41: one optimal bit keeps 0.80 of a normal deviation",
)
UNUSED = Allowance(
    value=1.25,
    derivation="1.25 bits: equal steps over 4 deviations of a normal number, or tails of Student's t, lose 0.8",
)
LOWEST = 6.0
"""Octaves below the data at which a deviation counts as none: all rows in one cell."""

ONE = "one table for all coordinates"
UNNORMALISED = "rows that are not normalised"
PER_AXIS = "after PCA each axis has its own variance: scale the table by the deviation of each coordinate"


@check(code="ROT406", kinds=["Codec"], needs=["basis"])
def codebook_scale(subject: Codec, witness: Witness) -> list[Measurement] | Undecided | Missing:
    r"""The deviation of each reconstructed coordinate is that of the data, and its levels are in use.

    Coordinates are ``(x - mean) / |x - mean| @ basis``, as far as the subject centres and normalises. For those that
    have bits, ``max_i |log2(std(y_hat_i) / std(y_i))|`` is measured in octaves, without entries beyond 16 median
    deviations. Of coordinates with 3 declared bits or more, the entropy of their codes is compared with that of the
    optimal table of a normal number. Where levels show in the transposed basis only, the axes are wrong, which
    is for other checks to say: the scale that each table is made for is then compared with the data in the declared
    basis, and tables that were fitted in the transposed one are accepted.

    The rivals: one table for all coordinates (the union of all levels is no larger than the table of one), tables
    for rows of the original lengths where the rows that are coded have length one, and a common factor.

    Catches
    -------
    Tables from raw eigenvalues while the data are normalised, one table N(0, 1/d) after PCA (in the transposed basis
    too, which flattens the spectrum and hides it from every error), variances taken for deviations, tables of another
    head, levels that an outlier has drawn away, tables around zero for a coordinate whose mean is far from it, more
    bits declared than levels used.

    Cannot see
    ----------
    Tables in axes that are neither in ``basis`` nor in its transpose (undecided): see `codebook_cardinality`. A wrong
    factor below half an octave. Ranges that each row carries with it.

    References
    ----------
    Dynamis-Labs/spectralquant engine.py (raw eigenvalues, key cosine .776 from 1 to 4 bits; one table N(0, 1/d)) and
    its LloydMax (one outlier at 60 leaves 3 of 8 levels).
    """
    if (missing := carried(subject)) is not None:
        return missing
    if (undecided := coarse(subject, "see levels")) is not None:
        return undecided
    seen = _look(subject, sample(subject, witness, most=ROWS))
    few = min(seen.levels, seen.levels_transposed)
    if few > len(seen.x) / FEW:
        return Undecided(
            reason="values differ from row to row in the basis and in its transpose, so no table of levels shows",
            needs="a code with tables, the basis that it codes in, or more rows",
            facts=(("levels, median", few), ("rows", float(len(seen.x)))),
        )
    if not seen.judged.any():
        return Undecided(reason="no coordinate has bits and varies", needs="rows that vary")
    found = [_scale(subject, witness, seen)]
    if subject.bits is not None and not seen.transposed:
        found += _occupancy(subject, witness, seen)
    return found


@dataclass(frozen=True, kw_only=True, eq=False)
class _Seen:
    """Coordinates (n, d) of data and reconstruction, in the declared basis and in its transpose."""

    x: Tensor
    basis: Tensor
    data: Tensor
    coded: Tensor
    data_transposed: Tensor
    coded_transposed: Tensor
    longest: float
    levels: float
    levels_transposed: float
    judged: Tensor

    @property
    def transposed(self) -> bool:
        return self.levels_transposed < self.levels

    @property
    def table(self) -> Tensor:
        return self.coded_transposed if self.transposed else self.coded


def _look(subject: Codec, x: Tensor) -> _Seen:
    actual, basis = subject.apply(x), to_float64(subject.basis)
    data, data_transposed = coordinates(subject, x, x, basis), coordinates(subject, x, x, basis.T)
    coded, coded_transposed = coordinates(subject, x, actual, basis), coordinates(subject, x, actual, basis.T)
    longest = largest(subject, x, actual)
    levels, across = counts(coded, subject, longest), counts(coded_transposed, subject, longest)
    varies = data.std(0) > torch.finfo(subject.dtype).eps * data.abs().max()
    has_bits = torch.tensor(subject.bits) > 0 if subject.bits is not None else levels > 1
    return _Seen(
        x=x,
        basis=basis,
        data=data,
        coded=coded,
        data_transposed=data_transposed,
        coded_transposed=coded_transposed,
        longest=longest,
        levels=levels.double().median().item(),
        levels_transposed=across.double().median().item(),
        judged=varies & has_bits,
    )


def _scale(subject: Codec, witness: Witness, seen: _Seen) -> Measurement:
    """Scale of the tables against that of the data, in octaves."""
    deviation, made = deviations(seen.data, ordinary(seen.data)), _made(subject, seen)
    declared = deviation[seen.judged].log2()
    scale = made[seen.judged].log2().nan_to_num(nan=-torch.inf).maximum(declared - LOWEST)
    off = scale - declared
    shared = union(seen.table, subject, seen.longest)
    if seen.transposed and shared > HALF_AN_OCTAVE.value:
        kept = ordinary(seen.data_transposed)
        ratio = deviations(seen.coded_transposed, kept) / deviations(seen.data_transposed, kept)
        off = min(off, ratio[seen.judged].log2(), key=lambda found: found.abs().max().item())
    rivals, hints = [], []

    def rival(name: str, error: float, separation: float, hint: str) -> None:
        if separation > 2 * HALF_AN_OCTAVE.value:  # a table that fits all is not another claim
            rivals.append(Distance(name=name, error=error, separation=separation))
            hints.append((name, hint))

    rival(ONE, shared, (declared - declared.median()).abs().max().item(), PER_AXIS)
    if subject.normalizes and not seen.transposed:
        predicted = [
            p[seen.judged].log2().maximum(declared - LOWEST)
            for p in unnormalised(subject, seen.x, seen.data, seen.basis)
        ]
        nearest = min(predicted, key=lambda p: (scale - p).abs().max().item())
        error, separation = ((nearest - log).abs().max().item() for log in (scale, declared))
        rival(UNNORMALISED, error, separation, "fit the levels to rows after they were divided by their length")
    common = off.median().item()
    if (rest := (off - common).abs().max().item()) <= HALF_AN_OCTAVE.value:
        rival(f"{2**common:.2g} times the data", rest, abs(common), "the levels were scaled for other data")
    worst = int(seen.judged.nonzero()[int(off.abs().argmax())])
    return Measurement(
        claim=Distance(name="the data", error=off.abs().max().nan_to_num(nan=torch.inf).item()),
        rivals=tuple(rivals),
        allowed=HALF_AN_OCTAVE,
        verb="has levels on the scale of",
        place=f"coordinate {worst}",
        witness=described(subject, seen.x, witness)
        + ("; levels show in the transpose only" if seen.transposed else ""),
        hint="compare the table of this coordinate with the deviation of the data in the same coordinate",
        hints=tuple(hints),
        facts=(("deviation of the data", deviation[worst].item()), ("of the levels", made[worst].item())),
    )


def _made(subject: Codec, seen: _Seen) -> Tensor:
    """Deviation of what the tables give; in the transposed basis, of what they are made for."""
    if seen.transposed:
        return made_for(seen.coded_transposed, subject, seen.longest)
    return deviations(seen.coded, ordinary(seen.data))


def _occupancy(subject: Codec, witness: Witness, seen: _Seen) -> list[Measurement]:
    """Bits of information in the codes against those of a normal number, at the worst coordinate."""
    bits = torch.tensor(subject.bits)
    chosen = seen.judged & (bits >= JUDGED_BITS) & (bits <= MOST_BITS) & (FEW * 2.0**bits <= len(seen.x))
    if not chosen.any():
        return []
    unused = torch.full((subject.width,), -torch.inf, dtype=torch.float64)
    for width in sorted(set(bits[chosen].tolist())):
        members = chosen & (bits == width)
        table = seen.coded[:, members]
        if union(table, subject, seen.longest) <= HALF_AN_OCTAVE.value:  # one table, used by all of them together
            table = table.reshape(-1, 1)
        unused[members] = normal_entropy(width) - entropy(clusters(table, subject, seen.longest))
    worst = int(unused.argmax())
    ideal = normal_entropy(int(bits[worst]))
    return [
        Measurement(
            claim=Distance(name=f"the 2**{bits[worst]} levels of its table", error=max(0.0, unused[worst].item())),
            allowed=UNUSED,
            verb="uses",
            place=f"coordinate {worst}",
            witness=described(subject, seen.x, witness),
            hint="levels lie where no data are: an outlier drew them away, the scale is wrong, or fewer bits are used",
            facts=(("bits used", ideal - unused[worst].item()), ("bits of a normal number", ideal)),
        )
    ]
