"""ROT602: the quantiser saw the second moment of what the runtime feeds."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from rotcheck.checking import Measurement, Undecided, check
from rotcheck.checks._weights import coarsest, decided, described, fed_moment, input_moment
from rotcheck.outcome import Allowance, Distance
from rotcheck.quantize.moments import second_moment
from rotcheck.subjects.calling import to_float64
from rotcheck.subjects.quantized_layer import QuantizedLayer
from rotcheck.tolerance import Tolerance
from rotcheck.witness import Witness

CLAIM = "U.T @ C @ U, the moment of what it multiplies"


@check(code="ROT602", kinds=["QuantizedLayer"], needs=["moment"])
def calibration_basis(subject: QuantizedLayer, witness: Witness) -> Measurement | Undecided:
    r"""The moment that calibrated the quantiser is ``U.T C U``: that of the rows as the runtime multiplies them.

    C is the second moment of the inputs. All moments are brought to unit trace, so sums, means and GPTQ's factor 2 are
    the same; distances are relative to ``|U.T C U|_F``. With ``tokens`` the moment comes from other rows, and what
    random halves of the inputs differ by is allowed for.

    Catches
    -------
    A Hessian accumulated on un-rotated inputs for a rotated weight, or the other way round; ``U C U.T``; a rotation
    that calibration applies and the runtime does not; a moment about the mean.

    Cannot see
    ----------
    Whether the quantiser used the moment at all. Calibration rows of another kind than the inputs, as far as halves of
    the inputs differ as much; beyond that they match no candidate, like a basis that nobody named. A moment about the
    mean, or a diagonal one, that is as near to the right one as rounding and sampling are.

    References
    ----------
    ModelCloud/GPTQModel#2980: the weight of ``down_proj`` held the Hadamard, GPTQ was calibrated on its raw input.
    """
    return decided(subject, witness, lambda layer, note: _measure(layer, witness, note))  # type: ignore[return-value]


def _measure(subject: QuantizedLayer, witness: Witness, note: str) -> Measurement | Undecided:
    used, fed, plain = to_float64(subject.moment), fed_moment(subject), input_moment(subject)
    if not (fed.trace() > 0 and used.trace() > 0):
        return Undecided(reason="a moment is zero or negative", needs="inputs and a moment that are not all zero")
    u = subject.applied
    mean = subject.fed.mean(0)
    rotations = {"C, the moment of the inputs before they are rotated": plain, "U @ C @ U.T": u @ plain @ u.T}
    shapes = {
        "the diagonal of U.T @ C @ U": torch.diag(fed.diagonal()),
        "U.T @ C @ U about the mean": fed - torch.outer(mean, mean),
    }
    allowed = _allowance(subject, witness, fed)
    claim, given = _unit(fed), _unit(used)

    def distance(one: Tensor, other: Tensor) -> float:
        return ((one - other).norm() / claim.norm()).item()

    rivals = [
        Distance(name=name, error=distance(given, _unit(moment)), separation=distance(_unit(moment), claim))
        for name, moment in (*rotations.items(), *shapes.items())
        if moment.trace() > 0
    ]
    # in principal axes the diagonal is the whole moment, and centred inputs have one about the mean: neither is a bug
    rivals = [r for r in rivals if r.name in rotations or r.separation > 2 * allowed.value]
    return Measurement(
        claim=Distance(name=CLAIM, error=distance(given, claim)),
        rivals=tuple(rivals),
        allowed=allowed,
        verb="was calibrated on",
        witness=described(subject, note),
        hint="run the calibration with the rotation in place, as the runtime does",
        hints=(
            (rivals[0].name, "the weight is rotated and what calibrates it is not: rotate both, or neither"),
            ("U @ C @ U.T", "rows x @ U have the moment U.T @ C @ U, with the columns of U as axes"),
        ),
        needs="a basis that is not symmetric, and inputs whose moment it changes; or pass make=lambda basis: ...",
        facts=(("share of the moment off its diagonal", _off_diagonal(fed)),),
    )


def _unit(moment: Tensor) -> Tensor:
    return moment / moment.trace()


def _off_diagonal(moment: Tensor) -> float:
    return ((moment - torch.diag(moment.diagonal())).norm() / moment.norm()).item()


def _allowance(subject: QuantizedLayer, witness: Witness, fed: Tensor) -> Allowance:
    """Rounding of a sum over rows and of two products; and sampling, where the moment comes from other rows.

    Halves of n rows have moments that differ by ``2 s / sqrt(n)``, where one of n rows differs from the truth by
    ``s / sqrt(n)``; n rows and t others differ by ``s sqrt(1 / n + 1 / t)``. Twice that is allowed.
    """
    dtype, rows = coarsest(subject, subject.moment, subject.weight), len(subject.inputs)
    rounding = Tolerance(storage=dtype, length=rows + 2 * subject.width)
    if subject.tokens is None:
        return rounding.allowance()
    order = torch.randperm(rows, generator=witness.generator("halves"))
    one, other = (_unit(second_moment(subject.fed[half])) for half in (order[::2], order[1::2]))
    halves = ((one - other).norm() / _unit(fed).norm()).item()
    sampling = halves * math.sqrt(1 + rows / subject.tokens)
    return Allowance(
        value=rounding.value + sampling,
        derivation=f"{rounding.derivation} + {halves:.2g} between halves of the {rows} inputs, "
        f"times sqrt(1 + {rows} / {subject.tokens} tokens)",
    )
