"""How large an error the arithmetic explains: two terms, derived, never a bare literal."""

from __future__ import annotations

import math
from dataclasses import dataclass

from rotcheck.errors import RotcheckError
from rotcheck.outcome import Allowance

UNIT_ROUNDOFF = {"float64": 2.0**-53, "float32": 2.0**-24, "float16": 2.0**-11, "bfloat16": 2.0**-8}
"""Half the distance from 1 to the next number of each dtype (IEEE 754; bfloat16 has 8 significant bits)."""

SAFETY = 8.0
"""Default safety factor: a rounded Haar basis measures 1.2 u and ``x @ Q`` at most 0.72 sqrt(n) u."""


def dtype_name(dtype: object) -> str:
    """``torch.float32``, ``numpy.float32`` and ``"float32"`` all give ``"float32"``.

    Raises
    ------
    RotcheckError
        For a dtype that has no entry in `UNIT_ROUNDOFF`.
    """
    name = getattr(dtype, "__name__", None) or getattr(dtype, "name", None) or str(dtype)
    name = name.removeprefix("torch.")
    if name not in UNIT_ROUNDOFF:
        raise RotcheckError(f"dtype {name} has no tolerance: use one of {', '.join(UNIT_ROUNDOFF)}")
    return name


def accumulator(dtype: str) -> str:
    """The dtype in which matrix products of ``dtype`` are summed: float32 for the 16-bit ones, else itself."""
    return "float32" if dtype in ("float16", "bfloat16") else dtype


@dataclass(frozen=True, kw_only=True, slots=True)
class Tolerance:
    r"""Relative error explained by rounding: ``s (u_storage + sqrt(k) u_accumulate) kappa``.

    Storing a result rounds each entry once, whatever the size, so the first term does not grow. A sum of
    ``k`` products accumulates rounding errors like a random walk, hence ``sqrt(k)``; with
    ``rigorous=True`` the worst case ``k`` is used, which is vacuous in 16 bits.

    Parameters
    ----------
    storage : str
        dtype in which the operands and the result are stored.
    accumulate : str, optional
        dtype of the running sum; float32 for 16-bit storage and the storage dtype otherwise.
    length : int
        Number of terms in each sum.
    safety : float
        Factor that keeps false alarms away.
    kappa : float
        Amplification by what surrounds the product (cancellation in ``x - mean``, a solve), >= 1.
    rigorous : bool

    References
    ----------
    Higham and Mary, "A new approach to probabilistic rounding error analysis", SIAM J. Sci. Comput. 41(5), 2019.
    """

    storage: str
    length: int
    accumulate: str = ""
    safety: float = SAFETY
    kappa: float = 1.0
    rigorous: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "storage", dtype_name(self.storage))
        object.__setattr__(self, "accumulate", dtype_name(self.accumulate or accumulator(self.storage)))
        for name, least in (("length", 1), ("safety", 1), ("kappa", 1)):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= least):
                raise RotcheckError(f"Tolerance({name}={value}) must be finite and at least {least}")

    @property
    def value(self) -> float:
        growth = self.length if self.rigorous else math.sqrt(self.length)
        terms = UNIT_ROUNDOFF[self.storage] + growth * UNIT_ROUNDOFF[self.accumulate]
        return self.safety * terms * self.kappa

    @property
    def derivation(self) -> str:
        growth = f"{self.length}" if self.rigorous else f"sqrt({self.length})"
        kinds = self.storage if self.storage == self.accumulate else f"{self.storage} summed in {self.accumulate}"
        kappa = "" if self.kappa == 1 else f" * {self.kappa:.3g}"
        return f"{self.safety:g} (u_storage + {growth} u_accumulate){kappa}, {kinds}"

    def allowance(self) -> Allowance:
        return Allowance(value=self.value, derivation=self.derivation)


def measured(floor: float, *, source: str, least: Allowance, safety: float = SAFETY) -> Allowance:
    """Allowance from a measured noise floor, ``max(least, s * floor)``.

    Whole models have no simple bound, so the floor is what the *original* model itself shows between the
    working dtype and float64. ``least`` keeps the allowance above zero where the floor happens to be tiny.

    Raises
    ------
    RotcheckError
        When the floor is not a finite number: the original model itself is broken.
    """
    if not math.isfinite(floor):
        raise RotcheckError(f"the noise floor of {source} is {floor}: the original gives non-finite numbers")
    if safety * floor <= least.value:
        return least
    return Allowance(value=safety * floor, derivation=f"{safety:g} * {floor:.2e}, {source}")
