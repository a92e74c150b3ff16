"""What the checks on a `SlicedModel` share: its shortcuts, and its tensors as formulas of the original."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from rotcheck.models.architecture import Architecture
from rotcheck.models.sites import Site, sites
from rotcheck.subjects.sliced import SlicedModel


def shortcut_matrices(subject: SlicedModel) -> list[tuple[int, str, Tensor]]:
    """Index of the site before, parameter name and matrix of every stored shortcut."""
    architecture, found = subject.architecture, []
    for site in sites(architecture, subject.model.config):
        if site.layer is None:
            continue
        branch = next(b for b in architecture.branches if b.name == site.branch)
        name = f"{architecture.layers}.{site.layer}.{branch.shortcut}"
        matrix = dict(subject.model.named_parameters()).get(name)
        if matrix is not None:
            found.append((site.index, name, matrix.detach().to("cpu", torch.float64)))
    return found


@dataclass(frozen=True, kw_only=True, eq=False)
class Part:
    """One linear part of the original model at a site, folded and centred but not rotated, in float64.

    Attributes
    ----------
    name : str
        Path of the module.
    role : str
        ``reader``, ``writer`` or ``embedding``.
    site : Site
    weight : Tensor
        (out, d) for a reader, (d, in) for a writer, (rows, d) for an embedding: with the gain folded in, or centred.
    plain : Tensor
        The same before folding or centring.
    bias, plain_bias : Tensor or None
        Bias with the norm's bias folded in (reader) or centred (writer), None where there is neither, and as it was.
    """

    name: str
    role: str
    site: Site
    weight: Tensor
    plain: Tensor
    bias: Tensor | None = None
    plain_bias: Tensor | None = None


def parts(original: nn.Module, architecture: Architecture) -> Iterator[Part]:
    """Every module of ``original`` that reads or writes the stream, in the order of the sites.

    This derives what rotate-and-slice should have stored a second time, from the definitions: ``LN(x) W.T =
    n(x) (W diag(g)).T + W b`` and a mean-free writer ``(I - 11'/d) W``.
    """
    centre = architecture.norm == "layernorm"
    for site in sites(architecture, original.config):
        for name in site.writers:
            module = original.get_submodule(name)
            weight, bias = _double(module.weight), _double(getattr(module, "bias", None))
            role = "embedding" if isinstance(module, nn.Embedding) else "writer"
            axis = 1 if role == "embedding" else 0
            free = weight - weight.mean(dim=axis, keepdim=True) if centre else weight
            free_bias = bias - bias.mean() if centre and bias is not None else bias
            yield Part(name=name, role=role, site=site, weight=free, plain=weight, bias=free_bias, plain_bias=bias)
        norm = original.get_submodule(site.norm)
        gain, shift = _double(getattr(norm, "weight", None)), _double(getattr(norm, "bias", None))
        for name in site.readers:
            module = original.get_submodule(name)
            weight, bias = _double(module.weight), _double(module.bias)
            folded = weight if gain is None else weight @ torch.diag(gain + architecture.gain_offset)
            plain_bias = torch.zeros(weight.shape[0], dtype=torch.float64) if bias is None else bias
            moved = plain_bias if shift is None else plain_bias + weight @ shift
            if bias is None and shift is None:
                moved = None
            yield Part(
                name=name, role="reader", site=site, weight=folded, plain=weight, bias=moved, plain_bias=plain_bias
            )


def _double(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.detach().to("cpu", torch.float64)
