"""Hypothesis strategies: bases, spectra, subjects, plans and models, each built from drawn integers.

Only integers are drawn, and tensors are made from them by generators of their own, so that examples shrink, repeat
on every machine, and leave global random state alone.
"""

from __future__ import annotations

import torch
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy
from torch import Tensor
from transformers import OPTForCausalLM

from rotcheck.bases.haar import haar
from rotcheck.bases.hadamard import base_order, hadamard
from rotcheck.bases.pca import principal_basis
from rotcheck.bases.structured import (
    block_diagonal,
    dct,
    householder,
    near_symmetric,
    permutation,
    skew_symmetric,
)
from rotcheck.convention import Convention, formula
from rotcheck.errors import RotcheckError
from rotcheck.models.adversarial import adversarial_opt
from rotcheck.slicing.plan import Grouping, Plan, random_plan
from rotcheck.slicing.schedule import Schedule
from rotcheck.subjects.rotation import Rotation
from rotcheck.witness import Witness

KINDS = ("haar", "permutation", "householder", "identity", "block-diagonal", "dct", "near-symmetric")
"""Kinds of basis of every size. ``householder`` and ``identity`` are symmetric: no check can tell such a basis from
its transpose. ``near-symmetric`` is that far from it in some dtypes and not in others."""

KINDS_OF_SOME_SIZES = ("skew-symmetric", "hadamard", "signed-hadamard")
"""Kinds of basis that not every size has: even ones, and those of `rotcheck.bases.hadamard`. See `kinds`."""

SPECTRA = ("power law", "geometric", "flat", "two-level", "spiked")


def seeds() -> SearchStrategy[int]:
    """Seeds of generators and witnesses: 0 to 2**63 - 1."""
    return st.integers(0, 2**63 - 1)


def witnesses() -> SearchStrategy[Witness]:
    """A `Witness` with any seed and 2 to 64 rows."""
    return st.builds(Witness, seed=seeds(), rows=st.integers(2, 64))


def widths(minimum: int = 2, maximum: int = 16) -> SearchStrategy[int]:
    """Sizes of vectors, powers of two among them."""
    return st.integers(minimum, maximum)


def dtypes() -> SearchStrategy[torch.dtype]:
    """The four dtypes that have a tolerance."""
    return st.sampled_from([torch.float64, torch.float32, torch.bfloat16, torch.float16])


def bases(kind: str | None = None, *, minimum: int = 2, maximum: int = 16) -> SearchStrategy[Tensor]:
    """Orthogonal (d, d) float64 matrices.

    Parameters
    ----------
    kind : str, optional
        One of `KINDS` or `KINDS_OF_SOME_SIZES`; any that the drawn size has when left out.
    minimum, maximum : int
        Range of d. Sizes that the kind does not have are not drawn.

    Raises
    ------
    RotcheckError
        For another kind, and for a range in which the kind has no size.
    """
    if kind is None:
        return widths(minimum, maximum).flatmap(
            lambda d: st.builds(basis, st.sampled_from(kinds(d)), st.just(d), seeds())
        )
    _known(kind)
    sizes = [d for d in range(minimum, maximum + 1) if kind in kinds(d)]
    if not sizes:
        raise RotcheckError(f"no basis of kind {kind!r} has a size from {minimum} to {maximum}: widen the range")
    return st.builds(basis, st.just(kind), st.sampled_from(sizes), seeds())


def kinds(d: int) -> tuple[str, ...]:
    """The kinds of basis that there are of size d: all `KINDS`, and those of `KINDS_OF_SOME_SIZES` that it has."""
    skew, *hadamards = KINDS_OF_SOME_SIZES
    return (*KINDS, *([skew] if d % 2 == 0 else []), *(hadamards if base_order(d) else []))


def basis(kind: str, d: int, seed: int) -> Tensor:
    """The (d, d) basis of a kind for a seed: what `bases` builds.

    The ``near-symmetric`` one is ``2 ** -1`` to ``2 ** -52`` away from its transpose: further than rounding in
    every dtype, in some, or in none.

    Raises
    ------
    RotcheckError
        For another kind, and for a size that the kind does not have.
    """
    _known(kind)
    generator = torch.Generator().manual_seed(seed)
    first = 1 + seed % (d - 1) if d > 1 else 1
    makers = {
        "haar": lambda: haar(d, seed=generator),
        "permutation": lambda: permutation(d, generator),
        "householder": lambda: householder(d, generator),
        "identity": lambda: torch.eye(d, dtype=torch.float64),
        "block-diagonal": lambda: block_diagonal([size for size in (first, d - first) if size], generator),
        "dct": lambda: dct(d),
        "near-symmetric": lambda: near_symmetric(d, 2.0 ** -(1 + seed % 52) if d > 1 else 0.0, generator),
        "skew-symmetric": lambda: skew_symmetric(d, generator),
        "hadamard": lambda: hadamard(d),
        "signed-hadamard": lambda: hadamard(d, signs=generator),
    }
    return makers[kind]()


def spectra(kind: str | None = None, *, minimum: int = 2, maximum: int = 16) -> SearchStrategy[Tensor]:
    """Positive eigenvalues (d,) float64, largest first, of mean one.

    ``power law`` ``i ** -a`` with a from 1/4 to 5/2, ``geometric`` ``r ** i`` with r from 1/2 to 15/16, ``flat``,
    ``two-level``, where the leading half is 2 to 1024 times the rest, and ``spiked``, where one to three unequal values
    are up to 1025 times the rest, which are all equal.
    """
    if kind is not None and kind not in SPECTRA:
        raise RotcheckError(f"no spectrum of kind {kind!r}: use one of {', '.join(SPECTRA)}")
    drawn = st.sampled_from(SPECTRA) if kind is None else st.just(kind)
    return st.builds(_spectrum, drawn, widths(minimum, maximum), st.integers(1, 10))


def covariances(kind: str | None = None, *, minimum: int = 2, maximum: int = 16) -> SearchStrategy[Tensor]:
    """Symmetric positive definite (d, d) float64 matrices: one of the `spectra` on Haar axes."""
    return st.builds(_covariance, spectra(kind, minimum=minimum, maximum=maximum), seeds())


@st.composite
def rotations(draw: st.DrawFn, *, minimum: int = 2, maximum: int = 16) -> Rotation:
    """`Rotation` subjects that do what they declare: no check may fail on them.

    Drawn: the kind of basis or the principal axes of a covariance, the dtype, the claim ``x @ basis`` or
    ``x @ basis.T``, and whether the same code is offered for another basis (``make``) and for the way back.
    """
    d, seed, dtype = draw(widths(minimum, maximum)), draw(seeds()), draw(dtypes())
    calibrated = draw(st.booleans())
    covariance = draw(covariances(minimum=d, maximum=d)) if calibrated else None
    free = basis(draw(st.sampled_from(kinds(d))), d, seed)
    exact = free if covariance is None else principal_basis(covariance)[0]
    claim = draw(st.sampled_from(["x @ basis", "x @ basis.T"]))
    stored = (exact if claim == "x @ basis" else exact.T.contiguous()).to(dtype)
    apply = formula(claim).apply
    return Rotation(
        lambda x: apply(x, stored),
        basis=stored,
        unrotate=(lambda y: apply(y, stored.T)) if draw(st.booleans()) else None,
        covariance=covariance,
        make=(lambda other: lambda x: apply(x, other)) if draw(st.booleans()) else None,
        convention=Convention(claim=claim),
        name=f"right d={d}",
    )


@st.composite
def schedules(draw: st.DrawFn, hidden_size: int, n_sites: int) -> Schedule:
    """Constant, linear and explicit schedules that keep a column at every site."""
    kind = draw(st.sampled_from(["constant", "linear", "explicit"]))
    if kind == "explicit":
        return Schedule.explicit(draw(st.lists(st.integers(1, hidden_size), min_size=n_sites, max_size=n_sites)))
    round_to = draw(st.integers(1, min(8, hidden_size)))
    most = 1 - round_to / hidden_size  # beyond it, rounding down would leave nothing
    sparsity = st.integers(0, 16).map(lambda step: most * step / 16)
    head = draw(st.booleans())
    if kind == "constant":
        return Schedule.constant(draw(sparsity), round_to=round_to, head_sliced=head)
    return Schedule.linear(draw(sparsity), draw(sparsity), round_to=round_to, head_sliced=head)


def groupings(n_layers: int) -> SearchStrategy[Grouping]:
    """Per-layer, global, and every K-block that a model of ``n_layers`` takes."""
    blocks = st.builds(Grouping, kind=st.just("k-block"), k=st.integers(1, n_layers))
    return st.sampled_from([Grouping(kind="per-layer"), Grouping(kind="global")]) | blocks


@st.composite
def plans(draw: st.DrawFn, hidden_size: int, n_layers: int, *, branches: int = 2, sliced: bool = True) -> Plan:
    """Plans of independent Haar bases; of full width with ``sliced=False``.

    Drawn: the grouping, where a block's basis begins, the schedule and the seed.
    """
    n_sites = branches * n_layers + 1
    schedule = draw(schedules(hidden_size, n_sites)) if sliced else Schedule.constant(0.0)
    change = draw(st.sampled_from(["mlp", "attention"] if branches == 2 else ["mlp"]))
    grouping = draw(groupings(n_layers))
    return random_plan(hidden_size, n_layers, grouping, schedule, draw(seeds()), change=change, branches=branches)


@st.composite
def adversarial_models(draw: st.DrawFn, *, max_layers: int = 2, dtype: torch.dtype = torch.float64) -> OPTForCausalLM:
    """Small random OPTs on which every known defect shows: see `rotcheck.models.adversarial`.

    Drawn: the seed, 1 to ``max_layers`` layers, 2 or 3 heads of 4 or 6, tied or untied embeddings of the
    stream's width or a narrower one, and whether linear layers have biases.
    """
    heads, size = draw(st.integers(2, 3)), draw(st.sampled_from([4, 6]))
    return adversarial_opt(
        seed=draw(seeds()),
        layers=draw(st.integers(1, max_layers)),
        hidden_size=heads * size,
        heads=heads,
        ffn_dim=heads * size + 5,
        vocab_size=29,
        max_positions=24,
        tied=draw(st.booleans()),
        word_embed_proj_dim=draw(st.sampled_from([None, heads * size - 3])),
        enable_bias=draw(st.booleans()),
        dtype=dtype,
    )


def _known(kind: str) -> None:
    if kind not in (*KINDS, *KINDS_OF_SOME_SIZES):
        raise RotcheckError(f"no basis of kind {kind!r}: use one of {', '.join((*KINDS, *KINDS_OF_SOME_SIZES))}")


def _spectrum(kind: str, d: int, step: int) -> Tensor:
    index = torch.arange(d, dtype=torch.float64)
    if kind == "power law":
        values = (index + 1) ** (-step / 4)
    elif kind == "geometric":
        values = (0.5 + 0.4375 * (step - 1) / 9) ** index
    elif kind == "two-level":
        values = torch.where(index < max(1, d // 2), 2.0**step, 1.0).double()
    elif kind == "spiked":
        few = min(1 + step % 3, max(1, d // 3))
        values = torch.where(index < few, 1 + 2.0**step / (index + 1), 1.0).double()
    else:
        values = torch.ones(d, dtype=torch.float64)
    return values / values.mean()


def _covariance(spectrum: Tensor, seed: int) -> Tensor:
    axes = haar(len(spectrum), seed=seed)
    matrix = axes @ torch.diag(spectrum) @ axes.T
    return (matrix + matrix.T) / 2
