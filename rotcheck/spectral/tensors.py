"""The tensors of one path: their names, shapes and dtypes, and what must hold before any of them is used."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from rotcheck.errors import RotcheckError
from rotcheck.quantize.codec import Codec
from rotcheck.quantize.levels import LevelQuantizer
from rotcheck.quantize.minmax import MinMaxQuantizer
from rotcheck.quantize.sketch import Sketch
from rotcheck.spectral.axes import HeadAxes
from rotcheck.spectral.manifest import PathFacts
from rotcheck.spectral.path import TensorPath
from rotcheck.tolerance import Tolerance

MOST_LEVELS = 256
"""Levels of a coordinate of 8 bits."""

PRODUCTS = 4
"""Products of length d behind each entry of an eigenvector: a reflector is applied twice, by two of them."""

Form = tuple[str, tuple[int, ...]]
"""The dtype as safetensors writes it, and the shape; -1 for a length that the bits decide."""


def forms(facts: PathFacts) -> dict[str, Form]:
    """The tensors that a path with these facts has."""
    bank, square = (facts.heads, facts.width), (facts.heads, facts.width, facts.width)
    found: dict[str, Form] = {"basis": ("F64", square)}
    found |= dict.fromkeys(("mean", "variances", "spectrum"), ("F64", bank))
    if facts.codec != "none":
        found["bits"] = ("U8", bank)
    if facts.codec == "levels":
        found["levels"] = ("F32", (-1,))
    if facts.codec == "minmax":
        found |= {"group": ("I16", bank), "centre": ("F32", bank)}
    if facts.sketch:
        found["projections"] = ("F32", (facts.heads, facts.sketch, facts.width))
    return found


def to_tensors(path: TensorPath) -> dict[str, Tensor]:
    """Everything that encoding and decoding use, bit for bit; levels without the infinite ones behind them.

    Tables hold float32 numbers, whatever their dtype in memory.
    """
    axes, codec = path.axes, path.codec
    found = {name: getattr(axes, name) for name in ("basis", "mean", "variances", "spectrum")}
    if codec is not None:
        found["bits"] = codec.bits.to(torch.uint8)
        if isinstance(codec.scalar, LevelQuantizer):
            found["levels"] = codec.scalar.levels[codec.scalar.levels.isfinite()].to(torch.float32)
        else:
            found |= {"group": codec.scalar.group.to(torch.int16), "centre": codec.scalar.centre.to(torch.float32)}
        if codec.sketch is not None:
            found["projections"] = codec.sketch.projections.to(torch.float32)
    return {name: tensor.cpu().contiguous() for name, tensor in found.items()}


def from_tensors(facts: PathFacts, tensors: Mapping[str, Tensor], where: Callable[[str], str]) -> TensorPath:
    """The path of these tensors, after looking at their values.

    Parameters
    ----------
    facts
    tensors
        Of the `forms` of the facts; the length of ``levels`` is checked here.
    where : callable
        Names a tensor of this path, for messages.

    Raises
    ------
    RotcheckError
        For entries that are not finite, a basis that is not orthogonal (``|U.T U - I|_F`` against a tolerance of its
        width), axes that are not of the kind declared, negative variances, bits above 8, or levels that do not fit.
    """
    tensors = {name: tensor.double() if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}
    for name, tensor in tensors.items():
        if not tensor.isfinite().all():
            raise RotcheckError(f"{where(name)} has NaN or infinite entries")
    for name in ("variances", "spectrum"):
        if (tensors[name] < 0).any():
            raise RotcheckError(f"{where(name)} has a negative entry, {tensors[name].min().item():.3g}")
    if (tensors["spectrum"].diff(dim=1) > 0).any():
        raise RotcheckError(f"{where('spectrum')} is not sorted, largest first")
    if not facts.centred and (tensors["mean"] != 0).any():
        raise RotcheckError(f"{where('mean')} is not zero, although the path is not centred")
    _check_basis(facts, tensors["basis"], where("basis"))
    axes = HeadAxes(
        **{name: tensors[name] for name in ("basis", "mean", "variances", "spectrum")},
        rotation=facts.rotation,
        centred=facts.centred,
        rotary=facts.rotary,
    )
    if facts.codec == "none":
        return TensorPath(axes=axes, codec=None)
    bits = tensors["bits"].long()
    if bits.max() > 8 or bits.max() < 1:
        raise RotcheckError(f"{where('bits')} reaches {int(bits.max())}: coordinates have 0 to 8 bits, one at least 1")
    scalar = _levels(bits, tensors, where) if facts.codec == "levels" else _minmax(bits, tensors, where)
    sketch = Sketch(projections=tensors["projections"]) if facts.sketch else None
    return TensorPath(axes=axes, codec=Codec(scalar=scalar, normalize=facts.normalize, sketch=sketch))


def orthogonality(width: int) -> Tolerance:
    """For ``|U.T U - I|_F`` in float64: at most ``sqrt(d)`` times the 2-norm, which does not grow with d."""
    return Tolerance(storage="float64", length=PRODUCTS * width, kappa=math.sqrt(width))


def _check_basis(facts: PathFacts, basis: Tensor, where: str) -> None:
    allowed = orthogonality(facts.width)
    error = (basis.mT @ basis - torch.eye(facts.width, dtype=torch.float64)).norm(dim=(1, 2))
    worst = int(error.argmax())
    if not error[worst] <= allowed.value:
        raise RotcheckError(
            f"{where}: the basis of head {worst} is not orthogonal, |U.T U - I| is {error[worst]:.2e}, "
            f"allowed {allowed.value:.2e} = {allowed.derivation}"
        )
    first, second = (part.any(1) for part in (basis[:, : facts.rotary] != 0, basis[:, facts.rotary :] != 0))
    if facts.rotary and (first & second).any():
        head = int((first & second).any(1).nonzero()[0])
        raise RotcheckError(f"{where}: axes of head {head} mix the {facts.rotary} rotary coordinates with the others")
    if facts.rotation == "none" and not ((basis == 0) | (basis == 1)).all():
        raise RotcheckError(f"{where}: the rotation is declared as none, but the basis turns")


def _levels(bits: Tensor, tensors: Mapping[str, Tensor], where: Callable[[str], str]) -> LevelQuantizer:
    flat, counts = tensors["levels"], 2**bits
    if len(flat) != int(counts.sum()):
        raise RotcheckError(f"{where('levels')} has {len(flat)} levels, {where('bits')} asks for {int(counts.sum())}")
    levels = torch.full((*bits.shape, int(counts.max())), torch.inf, dtype=torch.float64)
    levels[torch.arange(levels.shape[-1]) < counts.unsqueeze(-1)] = flat
    try:
        return LevelQuantizer(bits=bits, levels=levels)
    except RotcheckError as error:
        raise RotcheckError(f"{where('levels')}: {error}") from error


def _minmax(bits: Tensor, tensors: Mapping[str, Tensor], where: Callable[[str], str]) -> MinMaxQuantizer:
    group = tensors["group"].long()
    if group.min() < 0 or group.max() >= bits.shape[1]:
        bad = int(group.min()) if group.min() < 0 else int(group.max())
        raise RotcheckError(f"{where('group')} names group {bad}: {bits.shape[1]} coordinates have groups from 0")
    try:
        return MinMaxQuantizer(bits=bits, group=group, centre=tensors["centre"])
    except RotcheckError as error:
        raise RotcheckError(f"{where('group')}: {error}") from error
