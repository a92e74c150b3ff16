"""A rotation of activations under test: a function, and what it says about itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
import torch

from rotcheck.convention import Convention, Formula
from rotcheck.errors import RotcheckError
from rotcheck.subjects.access import reached
from rotcheck.subjects.calling import call, describe, to_float64
from rotcheck.subjects.declared import validate_counts, validate_tensors
from rotcheck.subjects.matmul_spy import spied
from rotcheck.subjects.taps import known_width, tapped
from rotcheck.tolerance import dtype_name
from rotcheck.witness import Witness

_LONG = 2.0**40
"""Length of the rows that are fed where a guard such as ``x / (norm + 1e-5)`` must vanish beside them."""


@dataclass(frozen=True, eq=False, repr=False)
class Rotation:
    """A function that rotates row vectors, with the basis that it says it uses.

    Parameters
    ----------
    rotate : callable, optional
        ``(n, d) -> (n, d)`` for every n >= 1, torch tensors, or numpy arrays when ``basis`` (``covariance``
        where there is none) is a numpy array. Made from ``make(basis)`` when left out.
    basis : Tensor or ndarray, shape (d, d)
        Columns are the axes, unless ``convention`` says otherwise.
    unrotate : callable, optional
        The inverse.
    covariance : Tensor or ndarray, shape (d, d), optional
        Second moment of the data that the basis is the eigenbasis of.
    tokens : int, optional
        Number of rows ``covariance`` was estimated from, when the basis comes from as many *other* rows of the
        same kind. Give the effective number where rows are correlated. Left out: the basis was computed from
        exactly this matrix.
    mean : Tensor or ndarray, shape (d,), optional
        Subtracted before rotating (an affine path). Subtracted before any normalisation.
    normalizes : bool
        The path divides each row by its norm before rotating.
    neighbours : mapping of str to Tensor
        Bases that could be taken by mistake: other heads, other layers, keys for values.
    samples : Tensor or ndarray, shape (n, d), optional
        Rows of real data, in token order, on which ``rotate`` can be run: cached keys. Their second moment is
        ``covariance``. Where only rotated rows are kept, they go here, with a ``rotate`` that returns its input.
    effective_samples : float, optional
        Number of independent rows that ``samples`` are worth. Left out: estimated from their autocorrelation.
    spectrum : Tensor or ndarray, shape (d,), optional
        Mean squares of the coordinates that a right path returns, largest first: of unit rows where the path
        normalises. Left out: the eigenvalues of ``covariance``.
    make : callable, optional
        ``make(basis) -> rotate``, the same code for another basis; decides where this basis cannot
        (a symmetric one), and lets `precision_scaling` vary the dtype.
    convention : Convention
    name : str, optional

    Raises
    ------
    RotcheckError
        For neither ``rotate`` nor ``make`` with ``basis``, for shapes that do not agree, and for anything but a basis
        that is not finite. A *basis* that is not finite is a finding, not an error.
    """

    kind: ClassVar[str] = "Rotation"

    rotate: Callable[[Any], Any] | None = None
    _: KW_ONLY
    basis: Any = None
    unrotate: Callable[[Any], Any] | None = None
    covariance: Any = None
    tokens: int | None = None
    mean: Any = None
    normalizes: bool = False
    neighbours: Mapping[str, Any] = field(default_factory=dict)
    samples: Any = None
    effective_samples: float | None = None
    spectrum: Any = None
    make: Callable[[Any], Callable[[Any], Any]] | None = None
    convention: Convention = field(default_factory=Convention)
    name: str = ""

    def __post_init__(self) -> None:
        matrices = {"basis": self.basis, "covariance": self.covariance, **self.neighbours}
        validate_tensors(matrices, mean=self.mean, spectrum=self.spectrum, samples=self.samples)
        dtype_name(self.dtype)
        validate_counts(tokens=self.tokens, samples=self.samples, effective_samples=self.effective_samples)
        if self.rotate is None:
            if self.make is None or self.basis is None:
                raise RotcheckError("Rotation needs rotate=..., or both make=... and basis=...")
            object.__setattr__(self, "rotate", call(self.make, self.basis, what="make"))
        if not callable(self.rotate):
            raise RotcheckError(f"Rotation(rotate={type(self.rotate).__name__}) is not callable: pass a function of x")

    @classmethod
    def from_tap(
        cls,
        run: Callable[[Any], Any],
        owner: Any,
        name: str,
        /,
        width: int | None = None,
        *,
        skip: int = 0,
        axis: int | None = -1,
        **declared: Any,
    ) -> Rotation:
        """The rotation inside ``run``, seen at the call ``owner.<name>`` that receives what was rotated.

        ``declared`` are the other parameters of `Rotation`; ``width`` is that of basis, covariance or mean unless
        given. `rotcheck.subjects.taps.tapped` says what is recorded, and when it is an error.

        >>> Rotation.from_tap(engine.compress_keys, engine, "_quantize_regime", basis=U, normalizes=True)
        """
        rotate = tapped(run, owner, name, known_width(width, declared), skip=skip, axis=axis)
        return cls(rotate, **({"name": describe(run)} | declared))

    @classmethod
    def from_matmul(
        cls, run: Callable[[Any], Any], /, width: int | None = None, *, skip: int = 0, **declared: Any
    ) -> Rotation:
        """The rotation inside ``run``, seen at the product with a (d, d) matrix, where no quantiser can be tapped.

        See `rotcheck.subjects.matmul_spy.spied`; ``width`` and ``declared`` are those of `from_tap`.

        >>> Rotation.from_matmul(lambda x: lowrank.compress(x[None]), basis=U)
        """
        rotate = spied(run, known_width(width, declared), skip=skip)
        return cls(rotate, **({"name": describe(run)} | declared))

    @classmethod
    def from_code(
        cls, run: Callable[[Any], Any], /, *, tap: tuple[Any, str] | None = None, skip: int = 0, **declared: Any
    ) -> Rotation:
        """The rotation inside ``run`` by the surest way: its matrix product, or else the call ``tap=(owner, name)``.

        `rotcheck.subjects.access.reached` tries both on seeded rows; the subject's name says which it was.

        >>> Rotation.from_code(engine.compress_keys, tap=(engine, "_quantize_regime"), basis=U, normalizes=True)
        """
        blank = cls(run, **declared)
        rows = blank.argument(blank.probe(Witness().normal("access", blank.width + 3, blank.width)))
        rotate, how = reached(run, rows, blank.width, tap=tap, skip=skip)
        return replace(blank, rotate=rotate, name=f"{blank} by its {how}")

    @property
    def width(self) -> int:
        """Size d of the vectors."""
        first = next(v for v in (self.basis, self.covariance, self.mean) if v is not None)
        return int(first.shape[-1])

    @property
    def dtype(self) -> torch.dtype:
        """dtype of the activations fed: that of the basis, float32 when there is none."""
        return torch.float32 if self.basis is None else getattr(torch, dtype_name(self.basis.dtype))

    @property
    def device(self) -> torch.device:
        return self.basis.device if isinstance(self.basis, torch.Tensor) else torch.device("cpu")

    @property
    def numpy(self) -> bool:
        """Whether the functions take numpy arrays: as the first of basis, covariance and mean that is there."""
        return isinstance(next(v for v in (self.basis, self.covariance, self.mean) if v is not None), np.ndarray)

    @property
    def length(self) -> float:
        """Factor on rows whose lengths are judged: large for a path that normalises, so that its guard vanishes."""
        # float16 ends at 65504, and is too coarse to notice the guard
        return _LONG if self.normalizes and self.dtype != torch.float16 else 1.0

    def __str__(self) -> str:
        return self.name or describe(self.rotate)

    def __repr__(self) -> str:
        return f"Rotation({self}, d={self.width}, {dtype_name(self.dtype)})"

    def argument(self, x: torch.Tensor) -> Any:
        """``x`` as the functions take it: rounded to their dtype, on their device, in memory of its own."""
        fresh = x.to(self.device, self.dtype, copy=True)  # a path that works in place must not reach the witness
        return fresh.numpy() if self.numpy else fresh

    def apply(self, x: torch.Tensor, function: Callable[[Any], Any] | None = None) -> torch.Tensor:
        """Run ``rotate`` (or ``function``) on float64 ``x`` rounded to the subject's dtype; float64 out.

        Raises
        ------
        SubjectError
            When the function raises, or answers with another shape.
        """
        answer = call(function or self.rotate, self.argument(x), what=str(self))
        return to_float64(answer, like=x, what=str(self))

    def probe(self, x: torch.Tensor) -> torch.Tensor:
        """The activations that ``apply`` really feeds for ``x``: shifted by the mean, rounded, float64."""
        shifted = x if self.mean is None else x + to_float64(self.mean)
        return shifted.to(self.dtype).double()

    def prepared(self, probe: torch.Tensor) -> torch.Tensor:
        """What the declared path rotates for a probe: centred and normalised as declared, in float64."""
        centred = probe if self.mean is None else probe - to_float64(self.mean)
        return centred / centred.norm(dim=-1, keepdim=True) if self.normalizes else centred

    def expected(self, formula: Formula, probe: torch.Tensor, basis: Any = None) -> torch.Tensor:
        """What ``formula`` gives for a probe, in float64."""
        return formula.apply(self.prepared(probe), to_float64(self.basis if basis is None else basis))

    def axes(self) -> torch.Tensor:
        """The (d, d) probe of `operator`: multiples of the axes, around the mean, as the subject will see them."""
        return self.probe(self._reach() * torch.eye(self.width, dtype=torch.float64))

    def operator(self) -> torch.Tensor:
        """The (d, d) matrix that the function applies: its linear part, from its answers along the axes.

        With a mean the answers to both directions of each axis are subtracted, so that the mean itself, rounded as
        the code rounds it, drops out. That it was subtracted at all is judged by `side` and `isometry`.
        """
        ahead = self.axes()
        if self.mean is None:
            answer, fed = self.apply(ahead), self.prepared(ahead)
        else:
            back = self.probe(-self._reach() * torch.eye(self.width, dtype=torch.float64))
            answer, fed = self.apply(ahead) - self.apply(back), self.prepared(ahead) - self.prepared(back)
        return answer / fed.diagonal().unsqueeze(-1)  # off the diagonal nothing was fed but the mean's own rounding

    def _reach(self) -> float:
        """How far along the axes the linear part is measured: beyond the guard of a division, and beyond the mean."""
        return self.length if self.mean is None else max(self.length, to_float64(self.mean).norm().item())

    def remade(self, basis: torch.Tensor) -> Rotation:
        """The same code for another basis, given in any float dtype; needs ``make``.

        Covariance, samples, neighbours and inverse belong to the old basis and are left out; a mean is kept.
        """
        if self.make is None:
            raise RotcheckError(f"{self} cannot be made for another basis: pass make=lambda basis: ...")
        if self.numpy and basis.dtype == torch.bfloat16:
            raise RotcheckError(f"{self} takes numpy arrays, and numpy has no bfloat16: use float16")
        fresh = basis.cpu().numpy() if self.numpy else basis.to(self.device)
        function = call(self.make, fresh, what=f"make of {self}")
        own = {"covariance": None, "tokens": None, "neighbours": {}, "unrotate": None}
        own |= {"samples": None, "effective_samples": None, "spectrum": None}
        return replace(self, rotate=function, basis=fresh, name=str(self), **own)
