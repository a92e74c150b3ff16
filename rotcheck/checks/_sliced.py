"""What the checks on a `SlicedModel` share: its shortcuts, and its tensors as formulas of the original."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from rotcheck.checking import Broken, Finding, Measurement, Missing, decide
from rotcheck.checks._inner import InnerBases
from rotcheck.models.architecture import Architecture
from rotcheck.models.sites import Site, sites
from rotcheck.models.tensors import linear
from rotcheck.outcome import Distance, Outcome
from rotcheck.subjects.calling import relative
from rotcheck.subjects.sliced import SlicedModel
from rotcheck.tolerance import Tolerance

UNTOUCHED = InnerBases()


def shortcut_matrices(subject: SlicedModel) -> list[tuple[int, str, Tensor]]:
    """Index of the site before, parameter name and matrix of every stored shortcut."""
    architecture, found = subject.architecture, []
    stored = dict(subject.model.named_parameters())
    for site in subject.sites:
        if site.layer is None:
            continue
        branch = next(b for b in architecture.branches if b.name == site.branch)
        name = f"{architecture.layers}.{site.layer}.{branch.shortcut}"
        if name in stored:
            found.append((site.index, name, double(stored[name])))
    return found


def undeclared(subject: SlicedModel) -> Missing | None:
    """What the subject does not declare of the rotations that its model has; None where nothing is missing."""
    config = subject.model.config
    if subject.sites and subject.plan is None:
        return Missing(argument="plan")
    if subject.inner is None and (config.online_queries or config.online_hidden is not None):
        return Missing(argument="inner", reason="the model rotates heads or feed-forward dimensions while it runs")
    if subject.plan is None and subject.inner is None:
        return Missing(argument="plan", reason="the model's stream was left alone, and no inner plan is declared")
    return None


@dataclass(frozen=True, kw_only=True, eq=False)
class Part:
    """One linear part of the original model at a site, folded and centred but not rotated, in float64.

    Attributes
    ----------
    name : str
        Path of the module, or of the parameter that holds one matrix per expert.
    weight_name, bias_name : str
        Names in the state dict.
    role : str
        ``reader``, ``writer`` or ``embedding``.
    site : Site
    weight : Tensor
        (..., out, d) for a reader, (..., d, in) for a writer, (rows, d) for an embedding: with the gain folded in, or
        centred, and turned on the side of its heads or feed-forward dimension.
    plain : Tensor
        The same before folding or centring.
    unturned : Tensor
        As ``weight``, before heads and feed-forward dimension are turned.
    bias, plain_bias, unturned_bias : Tensor or None
        Bias with the norm's bias folded in (reader) or centred (writer), None where there is neither; as it was; and
        as ``bias`` before its heads are turned.
    """

    name: str
    weight_name: str
    bias_name: str
    role: str
    site: Site
    weight: Tensor
    plain: Tensor
    unturned: Tensor
    bias: Tensor | None = None
    plain_bias: Tensor | None = None
    unturned_bias: Tensor | None = None

    def put(self, weight: Tensor, basis: Tensor) -> Tensor:
        """A weight of this part on a stream in that basis: ``basis.T @ W`` of a writer, else ``W @ basis``."""
        return basis.T @ weight if self.role == "writer" else weight @ basis

    def put_bias(self, bias: Tensor, basis: Tensor) -> Tensor:
        """A bias likewise: that of a reader does not touch the stream."""
        return bias if self.role == "reader" else bias @ basis


def parts(original: nn.Module, architecture: Architecture, inner: InnerBases = UNTOUCHED) -> Iterator[Part]:
    """Everything in ``original`` that reads or writes the stream, in the order of the sites.

    This derives what rotate-and-slice should have stored a second time, from the definitions: ``LN(x) W.T =
    n(x) (W diag(g)).T + W b`` and a mean-free writer ``(I - 11'/d) W``; and the turned heads and feed-forward
    dimensions of `inner`.
    """
    centre = architecture.norm == "layernorm"
    for site in sites(architecture, original.config):
        for name in site.writers:
            held = linear(original, name)
            weight, bias = double(held.weight), double(held.bias)
            axis = -1 if held.embedding else -2
            free = weight - weight.mean(dim=axis, keepdim=True) if centre else weight
            free_bias = bias - bias.mean() if centre and bias is not None else bias
            yield Part(
                name=name, weight_name=held.weight_name, bias_name=held.bias_name, site=site,
                role="embedding" if held.embedding else "writer",
                weight=inner.weight(name, free), plain=inner.weight(name, weight), unturned=free,
                bias=free_bias, plain_bias=bias, unturned_bias=free_bias,
            )  # fmt: skip
        norm = original.get_submodule(site.norm)
        stored, shift = double(getattr(norm, "weight", None)), double(getattr(norm, "bias", None))
        gain = None if stored is None else stored + architecture.gain_offset
        for name in site.readers:
            held = linear(original, name)
            weight, bias = double(held.weight), double(held.bias)
            folded = weight if gain is None else weight * gain
            moved = bias
            if shift is not None:
                moved = weight @ shift if bias is None else bias + weight @ shift
            plain_bias = weight.new_zeros(weight.shape[0]) if bias is None else bias
            yield Part(
                name=name, weight_name=held.weight_name, bias_name=held.bias_name, site=site, role="reader",
                weight=inner.weight(name, folded), plain=inner.weight(name, weight), unturned=folded,
                bias=inner.bias(name, moved), plain_bias=inner.bias(name, plain_bias), unturned_bias=moved,
            )  # fmt: skip


Candidates = dict[str, Tensor]


def compare(
    actual: Tensor,
    candidates: Callable[[bool], Candidates],
    allowed: Tolerance,
    *,
    place: str,
    witness: str,
    hint: str,
    verb: str = "holds a tensor in",
) -> Finding:
    """A stored tensor against its claim, the first candidate, and the tensors that each mistake would store.

    ``candidates(False)`` are the usual mistakes, ``candidates(True)`` all of them, which are only made for a
    tensor that is wrong and that the usual ones do not explain.
    """
    found: Finding | None = None
    for every in (False, True):
        (claim, expected), *others = candidates(every).items()
        if actual.shape != expected.shape:
            what = f"has {place.split(' (')[0]} of shape {tuple(actual.shape)}, the plan gives {tuple(expected.shape)}"
            return Broken(what=what)
        rivals = []
        for rival, candidate in others:
            # A rival that is the same tensor here (unit gains, a bias of zero) cannot be confused with the claim.
            if (separation := relative(candidate, expected)) > 2 * allowed.value:
                rivals.append(Distance(name=rival, error=relative(actual, candidate), separation=separation))
        found = Measurement(
            claim=Distance(name=claim, error=relative(actual, expected)), rivals=tuple(rivals),
            allowed=allowed.allowance(), verb=verb, place=place, witness=witness, hint=hint,
        )  # fmt: skip
        outcome, matched, _ = decide(found)
        if outcome is not Outcome.FAILED or matched is not None:
            break
    return found  # type: ignore[return-value]


def double(tensor: Tensor | None) -> Tensor | None:
    """The tensor in float64 on the CPU."""
    return None if tensor is None else tensor.detach().to("cpu", torch.float64)
