"""A rotation of activations under test: a function, and what it says about itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
import torch

from rotcheck.convention import Convention, Formula
from rotcheck.errors import RotcheckError
from rotcheck.subjects.calling import call, describe, to_float64
from rotcheck.tolerance import dtype_name


@dataclass(frozen=True, eq=False, repr=False)
class Rotation:
    """A function that rotates row vectors, with the basis that it says it uses.

    Parameters
    ----------
    rotate : callable, optional
        ``(n, d) -> (n, d)``, torch tensors, or numpy arrays when ``basis`` is a numpy array. Made from
        ``make(basis)`` when left out.
    basis : Tensor or ndarray, shape (d, d)
        Columns are the axes, unless ``convention`` says otherwise.
    unrotate : callable, optional
        The inverse.
    covariance : Tensor or ndarray, shape (d, d), optional
        Second moment of the data that the basis is the eigenbasis of.
    tokens : int, optional
        Number of rows ``covariance`` was estimated from, when the basis comes from *other* rows of the same
        kind. Left out: the basis was computed from exactly this matrix.
    mean : Tensor, shape (d,), optional
        Subtracted before rotating (an affine path). Subtracted before any normalisation.
    normalizes : bool
        The path divides each row by its norm before rotating.
    neighbours : mapping of str to Tensor
        Bases that could be taken by mistake: other heads, other layers, keys for values.
    make : callable, optional
        ``make(basis) -> rotate``, the same code for another basis; decides where this basis cannot
        (a symmetric one), and lets `precision_scaling` vary the dtype.
    convention : Convention
    name : str, optional

    Raises
    ------
    RotcheckError
        For neither ``rotate`` nor ``make`` with ``basis``, or for shapes that do not agree.
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
    make: Callable[[Any], Callable[[Any], Any]] | None = None
    convention: Convention = field(default_factory=Convention)
    name: str = ""

    def __post_init__(self) -> None:
        if self.rotate is None:
            if self.make is None or self.basis is None:
                raise RotcheckError("Rotation needs rotate=..., or both make=... and basis=...")
            object.__setattr__(self, "rotate", call(self.make, self.basis, what="make"))
        if not callable(self.rotate):
            raise RotcheckError(f"Rotation(rotate={type(self.rotate).__name__}) is not callable: pass a function of x")
        if self.basis is None and self.covariance is None and self.mean is None:
            raise RotcheckError("Rotation needs basis=..., or at least covariance=... to know the width")
        for attribute in ("basis", "covariance"):
            shape = getattr(getattr(self, attribute), "shape", None)
            if shape is not None and tuple(shape) != (self.width, self.width):
                raise RotcheckError(f"Rotation({attribute}=...) has shape {tuple(shape)}, expected a square matrix")
        for label, value in {"mean": self.mean, **self.neighbours}.items():
            if value is not None and value.shape[-1] != self.width:
                raise RotcheckError(f"{label} has shape {tuple(value.shape)}, the basis has size {self.width}")

    @property
    def width(self) -> int:
        """Size d of the vectors."""
        first = next(v for v in (self.basis, self.covariance, self.mean) if v is not None)
        return int(first.shape[0])

    @property
    def dtype(self) -> torch.dtype:
        """dtype of the activations fed: that of the basis, float32 when there is none."""
        source = self.basis if self.basis is not None else np.zeros(1, np.float32)
        return getattr(torch, dtype_name(source.dtype))

    @property
    def device(self) -> torch.device:
        return self.basis.device if isinstance(self.basis, torch.Tensor) else torch.device("cpu")

    def __str__(self) -> str:
        return self.name or describe(self.rotate)

    def __repr__(self) -> str:
        return f"Rotation({self}, d={self.width}, {dtype_name(self.dtype)})"

    def apply(self, x: torch.Tensor, function: Callable[[Any], Any] | None = None) -> torch.Tensor:
        """Run ``rotate`` (or ``function``) on float64 ``x`` rounded to the subject's dtype; float64 out.

        Raises
        ------
        SubjectError
            When the function raises, or answers with another shape.
        """
        given = x.to(self.dtype).to(self.device)
        numpy = isinstance(self.basis, np.ndarray)
        answer = call(function or self.rotate, given.numpy() if numpy else given, what=str(self))
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

    def operator(self) -> torch.Tensor:
        """The (d, d) matrix that the function applies: its answer to the identity, plus the mean where declared."""
        answer = self.apply(self.probe(torch.eye(self.width, dtype=torch.float64)))
        return answer / answer.norm(dim=-1, keepdim=True) if self.normalizes else answer

    def remade(self, basis: torch.Tensor) -> Rotation:
        """The same code for another basis, given in any float dtype; needs ``make``.

        Covariance and neighbours belong to the old basis and are left out; a mean is kept.
        """
        if self.make is None:
            raise RotcheckError(f"{self} cannot be made for another basis: pass make=lambda basis: ...")
        fresh = basis.cpu().numpy() if isinstance(self.basis, np.ndarray) else basis.to(self.device)
        function = call(self.make, fresh, what=f"make of {self}")
        return replace(self, rotate=function, basis=fresh, covariance=None, neighbours={}, name=str(self))
