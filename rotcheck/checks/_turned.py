"""Calibration rows with known principal axes, and turns of them that leave the signs of axes as they were."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from rotcheck.bases.haar import haar
from rotcheck.bases.hadamard import hadamard
from rotcheck.bases.pca import principal_basis
from rotcheck.checks._codec import calibration
from rotcheck.subjects.codec import Codec
from rotcheck.tolerance import Tolerance
from rotcheck.witness import Witness

ROWS = 2048
"""Rows that are made of them, or as many as the width asks for."""

LEAST = 32
"""Rows of the samples that are used at least, however wide they are."""


def coefficients(subject: Codec, witness: Witness) -> Tensor:
    """The samples, centred and along their principal axes, without rows of length zero: (n, d)."""
    rows = calibration(subject, witness)
    rows = rows - rows.mean(0)
    found = rows @ principal_basis(rows.T @ rows / len(rows))[0]
    lengths = found.norm(dim=-1)
    return found[lengths > Tolerance(storage="float64", length=subject.width).value * lengths.max()]


def symmetric(a: Tensor, witness: Witness) -> Tensor:
    """Rows whose coordinates have random signs: tables that coordinates share do not change much with their signs."""
    return a * (2 * torch.randint(0, 2, a.shape, generator=witness.generator("signs")) - 1)


def decorrelated(a: Tensor) -> Tensor:
    """Rows along their own principal axes, in order, by every moment that a code may take of them: (n', d).

    Rows of one length (the median), repeated with the signs of a Hadamard matrix's columns, which are orthogonal to
    one another and to the constant one. So the mean is zero, and every second moment, of rows or of rows over their
    lengths, centred or not, is exactly diagonal in the same order.
    """
    lengths = a.norm(dim=-1, keepdim=True)
    order = 1 << a.shape[1].bit_length()  # the smallest power of two above d: the constant column is left out
    base = (a / lengths * lengths.median())[: max(LEAST, ROWS // order)]
    signs = hadamard(order)[:, 1 : a.shape[1] + 1].sign()
    found = (base.unsqueeze(1) * signs).reshape(-1, a.shape[1])
    return found[:, found.square().sum(0).argsort(descending=True, stable=True)]


def along_axes(a: Tensor) -> Tensor:
    """Both directions of each axis (2 d, d), as long as the rows of ``a``: no range of a row depends on signs there."""
    eye = torch.eye(a.shape[1], dtype=a.dtype)
    return a.norm(dim=-1).median() * torch.cat([eye, -eye])


def turns(a: Tensor, witness: Witness) -> Iterator[Tensor]:
    """Orthogonal matrices Q, seeded: a Haar matrix, then the same after reflections of axes of ``a``.

    The principal axes of ``a @ Q`` are those of a, turned, but each with whichever sign LAPACK gives it. With the signs
    that it gives here, for one of four moments of the rows, reflections are chosen so that a code which takes
    the same moment sees the same coordinates, signs included.
    """
    turn = haar(a.shape[1], seed=witness.generator("turn"))
    yield turn
    unit = a / a.norm(dim=-1, keepdim=True)
    for rows in (a, a - a.mean(0), unit, unit - unit.mean(0)):
        moment = rows.T @ rows / len(rows)
        before, after = principal_basis(moment)[0], principal_basis(turn.T @ moment @ turn)[0]
        signs = ((turn.T @ before) * after).sum(0).sign()
        yield (before * signs) @ before.T @ turn
