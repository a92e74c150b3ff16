"""A compression of vectors under test: rows in, reconstructed rows out, and what the code says about itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar

import numpy as np
import torch

from rotcheck.errors import RotcheckError, SubjectError
from rotcheck.subjects.calling import call, describe, to_float64
from rotcheck.tolerance import dtype_name

RoundTrip = Callable[[Any], Any]
"""Rows (n, d) to reconstructed rows (n, d)."""

MOST_BITS = 16
"""Widest declared code; beyond it nothing is compressed."""


@dataclass(frozen=True, eq=False, repr=False)
class Codec:
    """The compress-and-decompress path of *one head*, with what it says about itself.

    Everything but the path and its rows is optional; a check that needs more names the argument that is missing.
    Functions take and return torch tensors, or numpy arrays when ``samples`` is one.

    Parameters
    ----------
    round_trip : callable, optional
        ``(n, d) -> (n, d)`` for every n >= 1: compress and decompress. When left out it is made from the first that is
        there of ``calibrate(samples)``, ``decode(encode(x))`` and ``seeded(0)``.
    samples : Tensor or ndarray, shape (n, d)
        Real rows: those the code was calibrated on, or more of their kind. Its dtype is the dtype that is fed.
    calibrate : callable, optional
        ``calibrate(rows) -> round_trip``, the same code for other calibration rows. Where the code has random
        projections, without them: they do not turn with the data.
    make : callable, optional
        ``make(bits) -> round_trip``, the same code and data with ``bits`` bits per coordinate on average.
    widths : sequence of int
        The bits that ``make`` takes, at least two of them, 1 to 16.
    split : callable, optional
        ``split(k) -> round_trip``, the same code with its leading regime on k coordinates, 1 <= k <= d. For a code that
        codes all coordinates; leave it out where the others are dropped.
    seeded : callable, optional
        ``seeded(seed) -> round_trip``, the same code with other random projections. Declares that the mean over seeds
        is x.
    encode, decode : callable, optional
        ``encode(x)`` gives bytes, or a uint8 array that holds them; ``decode(payload)`` the reconstructed rows.
    bytes_per_row : float, optional
        What the code says one row takes, everything included that changes from row to row.
    reload : callable, optional
        ``reload() -> round_trip``, the same code saved and loaded again.
    calls : callable, optional
        ``calls() -> int``, how often the compression has run.
    basis : Tensor or ndarray, shape (d, d), optional
        Columns are the axes along which coordinates are coded.
    mean : Tensor or ndarray, shape (d,), optional
        Subtracted before everything else. Declares that the code is centred.
    normalizes : bool
        Each row, after centring, is divided by its length, which is stored beside it.
    eigenbasis : bool
        The axes are the principal axes of the calibration rows. False for axes that do not depend on data.
    bits : int or sequence of int, optional
        Code bits of each coordinate in ``basis``.
    name : str, optional

    Raises
    ------
    RotcheckError
        For no path, shapes that do not agree, samples or a mean that are not finite, bits outside 0 to 16.
    """

    kind: ClassVar[str] = "Codec"

    round_trip: RoundTrip | None = None
    _: KW_ONLY
    samples: Any
    calibrate: Callable[[Any], RoundTrip] | None = None
    make: Callable[[int], RoundTrip] | None = None
    widths: Sequence[int] = (1, 2, 3, 4, 5, 6, 7, 8)
    split: Callable[[int], RoundTrip] | None = None
    seeded: Callable[[int], RoundTrip] | None = None
    encode: Callable[[Any], Any] | None = None
    decode: Callable[[Any], Any] | None = None
    bytes_per_row: float | None = None
    reload: Callable[[], RoundTrip] | None = None
    calls: Callable[[], int] | None = None
    basis: Any = None
    mean: Any = None
    normalizes: bool = False
    eigenbasis: bool = True
    bits: Any = None
    name: str = ""

    def __post_init__(self) -> None:
        self._validate_samples()
        self._validate_declarations()
        if self.round_trip is None:
            object.__setattr__(self, "round_trip", self._default_path())
        if not callable(self.round_trip):
            raise RotcheckError(f"Codec(round_trip={type(self.round_trip).__name__}) is not callable: pass a function")

    def _default_path(self) -> RoundTrip:
        if self.calibrate is not None:
            return call(self.calibrate, self.argument(to_float64(self.samples)), what="calibrate")  # type: ignore[no-any-return]
        if self.encode is not None and self.decode is not None:
            encode, decode = self.encode, self.decode
            return lambda x: decode(encode(x))
        if self.seeded is not None:
            return call(self.seeded, 0, what="seeded")  # type: ignore[no-any-return]
        raise RotcheckError(
            "Codec needs round_trip=..., or one of calibrate=..., encode=... with decode=..., seeded=..."
        )

    def _validate_samples(self) -> None:
        if not isinstance(self.samples, torch.Tensor | np.ndarray):
            raise RotcheckError(f"samples is a {type(self.samples).__name__}: pass a torch tensor or a numpy array")
        if self.samples.ndim != 2 or self.samples.shape[0] < 2 or self.samples.shape[1] < 1:
            raise RotcheckError(f"samples has shape {tuple(self.samples.shape)}: pass real rows (n, d), n at least 2")
        dtype_name(self.samples.dtype)
        rows = to_float64(self.samples)
        if not rows.isfinite().all():
            raise RotcheckError("samples has entries that are not finite: these are broken activations")
        if torch.equal(rows, rows[:1].expand_as(rows)):
            raise RotcheckError("samples has equal rows only, which no code has to tell apart: pass real rows")

    def _validate_declarations(self) -> None:
        for name, expected in (("basis", (self.width, self.width)), ("mean", (self.width,))):
            value = getattr(self, name)
            if value is None:
                continue
            if not isinstance(value, torch.Tensor | np.ndarray):
                raise RotcheckError(f"{name} is a {type(value).__name__}: pass a torch tensor or a numpy array")
            if tuple(value.shape) != expected:
                raise RotcheckError(f"{name} has shape {tuple(value.shape)}, expected {expected} as the samples say")
            if not to_float64(value, what=name).isfinite().all():
                raise RotcheckError(f"{name} has entries that are not finite: it was computed from broken activations")
        widths = tuple(sorted(set(self.widths)))
        if len(widths) < 2 or not all(isinstance(b, int) and 1 <= b <= MOST_BITS for b in widths):
            raise RotcheckError(f"widths={self.widths}: pass at least two numbers of bits from 1 to {MOST_BITS}")
        object.__setattr__(self, "widths", widths)
        if self.bits is not None:
            given = [self.bits] * self.width if isinstance(self.bits, int) else [int(b) for b in self.bits]
            if len(given) != self.width or not all(0 <= b <= MOST_BITS for b in given):
                raise RotcheckError(f"bits={given}: pass 0 to {MOST_BITS} for each of the {self.width} coordinates")
            object.__setattr__(self, "bits", tuple(given))
        if self.bytes_per_row is not None and not 0 < self.bytes_per_row < float("inf"):
            raise RotcheckError(f"bytes_per_row={self.bytes_per_row}: a row takes a positive number of bytes")

    @property
    def width(self) -> int:
        """Size d of the vectors."""
        return int(self.samples.shape[1])

    @property
    def dtype(self) -> torch.dtype:
        """dtype of the rows fed: that of the samples."""
        return getattr(torch, dtype_name(self.samples.dtype))  # type: ignore[no-any-return]

    @property
    def numpy(self) -> bool:
        """Whether the functions take numpy arrays."""
        return isinstance(self.samples, np.ndarray)

    @property
    def device(self) -> torch.device:
        return self.samples.device if isinstance(self.samples, torch.Tensor) else torch.device("cpu")

    def __str__(self) -> str:
        return self.name or describe(self.round_trip)

    def __repr__(self) -> str:
        return f"Codec({self}, d={self.width}, {dtype_name(self.dtype)})"

    def rounded(self, x: torch.Tensor) -> torch.Tensor:
        """Float64 rows as the subject will see them: rounded to its dtype."""
        return x.to(self.dtype).double()

    def argument(self, x: torch.Tensor) -> Any:
        """``x`` as the functions take it: in their dtype, on their device, in memory of its own."""
        fresh = x.to(self.device, self.dtype, copy=True)
        return fresh.numpy() if self.numpy else fresh

    def apply(self, x: torch.Tensor, function: RoundTrip | None = None) -> torch.Tensor:
        """Run ``round_trip`` (or ``function``) on float64 rows; float64 rows of the same shape out.

        Raises
        ------
        SubjectError
            When the function raises, or answers with another shape.
        """
        return self.answer(call(function or self.round_trip, self.argument(x), what=str(self)), x)

    def answer(self, value: Any, like: torch.Tensor) -> torch.Tensor:
        """What the subject answered, as float64 rows that do not change when the subject reuses its memory."""
        return to_float64(value, like=like, what=str(self)).clone()

    def variant(self, argument: str, *values: Any) -> RoundTrip:
        """``calibrate(rows)``, ``make(bits)``, ``split(k)``, ``seeded(seed)`` or ``reload()``: another round trip.

        Raises
        ------
        SubjectError
            When it raises, or does not answer with a function.
        """
        given = [self.argument(v) if isinstance(v, torch.Tensor) else v for v in values]
        shown = ", ".join("rows" if isinstance(v, torch.Tensor) else str(v) for v in values)
        what = f"{argument}({shown}) of {self}"
        found = call(getattr(self, argument), *given, what=what)
        if not callable(found):
            raise SubjectError(f"{what} answered with {type(found).__name__}, expected a function of rows")
        return found  # type: ignore[no-any-return]

    def centred(self, x: torch.Tensor) -> torch.Tensor:
        """``x`` minus the declared mean."""
        return x if self.mean is None else x - to_float64(self.mean)

    def lengths(self, x: torch.Tensor) -> torch.Tensor:
        """What each row is divided by, (n, 1): its centred length where the code normalises, else one.

        A row without length has the divisor one.
        """
        if not self.normalizes:
            return torch.ones(len(x), 1, dtype=torch.float64)
        found = self.centred(x).norm(dim=-1, keepdim=True)
        return torch.where(found > 0, found, 1.0)
