"""How many columns of its basis each site keeps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from rotcheck.errors import RotcheckError


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """Widths of all sites; make one with :meth:`constant`, :meth:`linear` or :meth:`explicit`.

    Parameters
    ----------
    first, last
        Sparsity of the first site and of the last site before the head; interpolated linearly over sites.
    round_to
        Widths are rounded down to a multiple of this.
    head_sliced
        Whether the head's site is sliced too (at `last`); otherwise it keeps the full width.
    explicit_widths
        All widths, overriding the other fields; ``None`` for a schedule by sparsity.
    """

    first: float = 0.0
    last: float = 0.0
    round_to: int = 8
    head_sliced: bool = False
    explicit_widths: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        for sparsity in (self.first, self.last):
            if isinstance(sparsity, bool) or not isinstance(sparsity, (int, float)) or not 0.0 <= sparsity < 1.0:
                raise RotcheckError(f"Schedule: sparsity {sparsity!r} is outside [0, 1); pass e.g. 0.25 for 25 %")
        if isinstance(self.round_to, bool) or not isinstance(self.round_to, int) or self.round_to < 1:
            raise RotcheckError(f"Schedule: round_to is {self.round_to!r}; pass a positive integer (1: no rounding)")
        for width in self.explicit_widths or ():
            if isinstance(width, bool) or not isinstance(width, int) or width < 1:
                raise RotcheckError(f"Schedule: width {width!r} is not a positive integer; keep one column or more")

    @classmethod
    def constant(cls, sparsity: float, round_to: int = 8, head_sliced: bool = False) -> Schedule:
        """The same sparsity at every site."""
        return cls(first=sparsity, last=sparsity, round_to=round_to, head_sliced=head_sliced)

    @classmethod
    def linear(cls, first: float, last: float, round_to: int = 8, head_sliced: bool = False) -> Schedule:
        """Sparsity from `first` at site 0 to `last` at the last site before the head."""
        return cls(first=first, last=last, round_to=round_to, head_sliced=head_sliced)

    @classmethod
    def explicit(cls, widths: Sequence[int]) -> Schedule:
        """One width per site, the head's site included."""
        return cls(explicit_widths=tuple(widths))

    def widths(self, hidden_size: int, n_sites: int) -> tuple[int, ...]:
        """Width of each site, ``w = int((1 - s) d)`` minus ``w mod round_to``, as SliceGPT rounds.

        Sparsity 0 gives exactly `hidden_size`, whatever `round_to` is.

        Parameters
        ----------
        hidden_size
            d, the width of the unsliced stream.
        n_sites
            Number of sites with the head's, at least 2.

        Raises
        ------
        RotcheckError
            A width of zero or above `hidden_size`, or a wrong number of explicit widths.
        """
        if n_sites < 2:
            raise RotcheckError(f"Schedule: {n_sites} sites; a model has one before each norm and one before the head")
        if self.explicit_widths is not None:
            return self._explicit(hidden_size, n_sites)
        body = n_sites - 1
        widths = [self._width(self._sparsity(site, body), hidden_size, site) for site in range(body)]
        return (*widths, self._width(self.last, hidden_size, body) if self.head_sliced else hidden_size)

    def _explicit(self, hidden_size: int, n_sites: int) -> tuple[int, ...]:
        widths = self.explicit_widths or ()
        if len(widths) != n_sites:
            raise RotcheckError(f"Schedule: {len(widths)} explicit widths for {n_sites} sites; pass one per site")
        if max(widths) > hidden_size:
            site = widths.index(max(widths))
            raise RotcheckError(
                f"Schedule: width {widths[site]} at site {site} exceeds the hidden size {hidden_size}; "
                "pass widths of at most the hidden size"
            )
        return widths

    def _sparsity(self, site: int, body: int) -> float:
        if site == 0:
            return self.first
        if site == body - 1:  # exactly: a last sparsity of 0 keeps the full width, and of 1e-18 does not
            return self.last
        return self.first + (self.last - self.first) * site / (body - 1)

    def _width(self, sparsity: float, hidden_size: int, site: int) -> int:
        if sparsity == 0:
            return hidden_size
        # int() of a product such as (1 - 0.9) * 10 = 0.999... would lose a whole column to rounding.
        width = math.floor(round((1 - sparsity) * hidden_size, 9))
        width -= width % self.round_to
        if width < 1:
            raise RotcheckError(
                f"Schedule: sparsity {sparsity:g} of {hidden_size} rounded down to a multiple of {self.round_to} "
                f"keeps no column at site {site}; lower the sparsity or round_to"
            )
        return width
