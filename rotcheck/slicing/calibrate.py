"""Second moments of the residual stream, streamed batch by batch in float64."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from rotcheck.errors import RotcheckError
from rotcheck.models.declared import architecture_of
from rotcheck.models.sites import Site, sites
from rotcheck.models.streams import record
from rotcheck.slicing.batches import Batch, checked, kept
from rotcheck.slicing.plan import Plan

Statistic = Literal["raw", "unit_trace", "token_rms"]
STATISTICS: tuple[Statistic, ...] = ("raw", "unit_trace", "token_rms")


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Calibration:
    """Second moments per site of the fused stream: the stream after mean removal, where the norm is a LayerNorm.

    Parameters
    ----------
    sites
        The sites, in order.
    hidden_size
        d.
    tokens
        Number of tokens summed; padding is not among them.
    sums
        ``"raw"`` and ``"token_rms"``, those that were collected: one (d, d) float64 tensor per site.
    """

    sites: tuple[Site, ...]
    hidden_size: int
    tokens: int
    sums: Mapping[str, tuple[Tensor, ...]]

    @property
    def n_layers(self) -> int:
        """L."""
        return 1 + max(site.layer for site in self.sites if site.layer is not None)

    @property
    def branches(self) -> int:
        """Sites per layer."""
        return (len(self.sites) - 1) // self.n_layers

    def moments(self, statistic: Statistic = "raw") -> tuple[Tensor, ...]:
        """One statistic for every site, each (d, d) float64.

        ``raw``: sum of ``x x^T`` over tokens. ``unit_trace``: that divided by its trace. ``token_rms``: sum
        of ``x x^T / mean(x^2)``, every token at the same length; a token that is zero adds nothing.

        Raises
        ------
        RotcheckError
            The statistic is unknown or was not collected, or a stream without energy has no unit trace.
        """
        source = check_statistic(statistic)
        if source not in self.sums:
            raise RotcheckError(
                f"calibration holds {', '.join(self.sums)}, not {statistic}; "
                f"collect it with statistics=({statistic!r},)"
            )
        if statistic != "unit_trace":
            return self.sums[source]
        for site, moment in zip(self.sites, self.sums["raw"], strict=True):
            if not moment.trace() > 0:
                raise RotcheckError(f"unit_trace: the stream at {site.name} is zero; calibrate on other tokens")
        return tuple(moment / moment.trace() for moment in self.sums["raw"])

    def kept_energy(self, plan: Plan, statistic: Statistic = "raw") -> tuple[float, ...]:
        """Fraction of each site's energy inside its sliced basis, ``tr(U_w' C U_w) / tr(C)``; 1.0 at full width."""
        fractions = []
        for site, moment in enumerate(self.moments(statistic)):
            basis = plan.sliced_basis(site).to(moment.device)
            fractions.append(float(((moment @ basis) * basis).sum() / moment.trace()))
        return tuple(fractions)

    def __repr__(self) -> str:
        return (
            f"Calibration({len(self.sites)} sites, hidden size {self.hidden_size}, {self.tokens} tokens, "
            f"{', '.join(self.sums)})"
        )


def calibrate(
    model: PreTrainedModel,
    batches: Iterable[Batch],
    *,
    statistics: Sequence[Statistic] = ("raw",),
    progress: bool = False,
) -> Calibration:
    """Moments of the original model's stream, as a plan that shares bases among sites needs them.

    The model runs in its own dtype and in eval mode (each module's training flag is put back); activations
    are widened to float64 before the mean is removed and the outer products are summed. One batch is held at
    a time.

    Parameters
    ----------
    model
        Stock model, or one from :func:`rotcheck.slicing.fuse`.
    batches
        Mappings with ``input_ids`` and optionally ``attention_mask``, or integer tensors (batch, tokens).
        They are not written to. Masked tokens are excluded.
    statistics
        Which of ``"raw"``, ``"unit_trace"``, ``"token_rms"`` to collect.
    progress
        Show a bar on stderr, if that is a terminal.

    Raises
    ------
    RotcheckError
        No batch or no unmasked token, a malformed batch, an unknown statistic, a non-finite activation (the
        site and the module are named), or a model that is already sliced.
    """
    wanted = tuple(dict.fromkeys(check_statistic(statistic) for statistic in statistics))
    architecture = architecture_of(model)
    found = sites(architecture, model.config)
    hidden_size = model.config.hidden_size
    fused = require_unsliced(model, "calibrate")
    centred = architecture.norm == "layernorm" and not fused
    sums = MomentSums(found, hidden_size, wanted)

    with torch.no_grad(), evaluating(model):
        for number, batch in enumerate(checked(batches, model.config, progress=progress, title="calibrating")):
            tokens = kept(batch).to(model.device)

            def visit(site: int, stream: Tensor, number: int = number, tokens: Tensor = tokens) -> None:
                signal = finite_signal(stream, tokens, found[site], number)
                sums.add(site, signal - signal.mean(dim=-1, keepdim=True) if centred else signal)

            with record(model, architecture, visit):
                # The base model stops before the head, whose logits would be the largest tensor of all.
                model.base_model(**{key: value.to(model.device) for key, value in batch.items()}, use_cache=False)
    return sums.calibration()


class MomentSums:
    """Running sums of :func:`calibrate` and of sequential calibration; :meth:`calibration` freezes them."""

    def __init__(self, found: tuple[Site, ...], hidden_size: int, wanted: tuple[str, ...]) -> None:
        self.found, self.hidden_size, self.wanted = found, hidden_size, wanted
        self.sums: dict[str, list[Tensor | None]] = {name: [None] * len(found) for name in wanted}
        self.tokens = [0] * len(found)

    def add(self, site: int, signal: Tensor) -> None:
        """Add the tokens of a float64 (tokens, d) signal."""
        self.tokens[site] += signal.shape[0]
        for name in self.wanted:
            rows = signal if name == "raw" else _unit_rms(signal)
            held = self.sums[name][site]
            self.sums[name][site] = rows.T @ rows if held is None else held.addmm_(rows.T, rows)

    def calibration(self) -> Calibration:
        """The sums as an immutable value."""
        if not self.tokens[0]:
            raise RotcheckError("every token of every batch is masked; pass batches with unmasked tokens")
        sums = {name: tuple(t for t in held if t is not None) for name, held in self.sums.items()}
        frozen = MappingProxyType(sums)
        return Calibration(sites=self.found, hidden_size=self.hidden_size, tokens=self.tokens[0], sums=frozen)


def finite_signal(stream: Tensor, tokens: Tensor, site: Site, number: int) -> Tensor:
    """Unmasked tokens of a (batch, tokens, d) stream in float64, (n, d); an error if one is not finite."""
    signal = stream[tokens].to(torch.float64)
    if not torch.isfinite(signal).all():
        raise RotcheckError(
            f"batch {number}: non-finite activation at {site.name} (before {site.norm}); "
            "look for overflow in the modules before it, or run the model in float32"
        )
    return signal


def check_statistic(statistic: str) -> str:
    """The sum a statistic is derived from: ``"raw"`` or ``"token_rms"``."""
    if statistic not in STATISTICS:
        raise RotcheckError(f"statistic {statistic!r} is not one of {', '.join(STATISTICS)}")
    return "raw" if statistic == "unit_trace" else statistic


def require_unsliced(model: PreTrainedModel, caller: str) -> bool:
    """Whether the model is fused; an error if it is sliced, because its sites then have different axes."""
    widths = getattr(model.config, "site_widths", None)
    if widths is None:
        return False
    if set(widths) != {model.config.hidden_size} or len(set(model.config.site_bases)) > 1:
        raise RotcheckError(f"{caller}: the model is already rotated or sliced; pass the original, or fuse(original)")
    return True


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Eval mode inside the context, each module's own training flag afterwards."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


def _unit_rms(signal: Tensor) -> Tensor:
    rms = signal.square().mean(dim=-1, keepdim=True).sqrt()
    return signal / torch.where(rms > 0, rms, 1.0)
