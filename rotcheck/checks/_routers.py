"""Routers of a mixture of experts while it runs, and the tokens that rounding cannot send to other experts.

Which experts a token passes is a step function of its router logits: where the last that is chosen and the first that
is not are a rounding error apart, a right model in another basis may choose otherwise, and from there on it is another
function of the same tokens. Such a token, and those behind it in its row, say nothing about a rotation in that dtype.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from rotcheck.checks._models import floor_allowance, model_allowance, model_sites
from rotcheck.models.architecture import Architecture
from rotcheck.models.sites import Site
from rotcheck.models.streams import record
from rotcheck.outcome import Allowance
from rotcheck.subjects.running import Batch, cast, logit_error, logits
from rotcheck.tolerance import SAFETY


@dataclass(frozen=True, kw_only=True, eq=False)
class Router:
    """What one router saw and gave, without padding: (tokens, d) before and behind its norm, (tokens, experts)."""

    stream: Tensor
    normed: Tensor
    logits: Tensor
    chosen: Tensor

    def of(self, keep: Tensor) -> Router:
        """The same for some of the tokens."""
        return Router(**{field: tensor[keep] for field, tensor in vars(self).items()})


def router_sites(architecture: Architecture, model: nn.Module) -> list[Site]:
    """The sites that a router reads, one per layer; none in a dense model."""
    if architecture.experts is None:
        return []
    router = architecture.experts.router
    return [
        site for site in model_sites(architecture, model) if any(path.endswith(f".{router}") for path in site.readers)
    ]


def record_routers(model: Any, architecture: Architecture, batches: tuple[Batch, ...]) -> list[Router]:
    """One entry per layer, over all batches."""
    places = router_sites(architecture, model)
    found: list[dict[str, list[Tensor]]] = [{"stream": [], "normed": [], "logits": [], "chosen": []} for _ in places]
    for batch in batches:
        mask, handles = batch["attention_mask"].bool(), []

        def keep(kind: str, layer: int, rows: Tensor, mask: Tensor = mask) -> None:
            rows = rows.detach().cpu().reshape(*mask.shape, rows.shape[-1])
            found[layer][kind].append(rows[mask])

        def visit(index: int, stream: Tensor) -> None:
            for layer, site in enumerate(places):
                if site.index == index:
                    keep("stream", layer, stream.double())

        def hook(layer: int) -> Any:
            def after(module: nn.Module, args: tuple[Any, ...], answer: Any) -> None:
                keep("normed", layer, args[0].double())
                keep("logits", layer, answer[0].double())
                keep("chosen", layer, answer[-1])

            return after

        try:
            for layer, site in enumerate(places):
                path = f"{architecture.layers}.{site.layer}.{architecture.experts.router}"
                handles.append(model.get_submodule(path).register_forward_hook(hook(layer)))
            with record(model, architecture, visit):
                logits(model, [batch], what="the model")
        finally:
            for handle in handles:
                handle.remove()
    return [Router(**{kind: torch.cat(rows) for kind, rows in entry.items()}) for entry in found]


def settled(dense: Sequence[Router], noisy: Sequence[Router], batches: Sequence[Batch]) -> list[Tensor]:
    """For each router, and last for the logits, which tokens come to it through no choice within rounding: (tokens,).

    A choice is within rounding where the logits in float64, ``dense``, are no further apart than twice the safety
    factor times what those of the same model in a working dtype, ``noisy``, are off by.
    """
    rows, count = [], 0
    for batch in batches:
        mask = batch["attention_mask"].bool()
        rows.append(mask.nonzero()[:, 0] + count)
        count += len(mask)
    row = torch.cat(rows)  # numbered through all batches
    keep, found = torch.ones(len(row), dtype=torch.bool), []
    for exact, coarse in zip(dense, noisy, strict=True):
        found.append(keep)
        noise = (coarse.logits - exact.logits)[keep].abs().max().item() if keep.any() else 0.0
        near = keep & (margins(exact) <= 2 * SAFETY * noise)
        harmed = torch.zeros_like(keep)
        for index in row[near].unique().tolist():
            harmed |= (row == index) & (near & (row == index)).long().cumsum(0).bool()
        keep = keep & ~harmed
    return [*found, keep]


def margins(router: Router) -> Tensor:
    """Logit of the last expert that is chosen minus that of the first that is not, (tokens,); inf where all are."""
    count = router.chosen.shape[-1]
    if count >= router.logits.shape[-1]:
        return torch.full((len(router.logits),), torch.inf, dtype=torch.float64)
    ordered = router.logits.sort(dim=-1, descending=True).values
    return ordered[:, count - 1] - ordered[:, count]


def settled_tokens(
    exact: Any, original: Any, architecture: Architecture | None, batches: Sequence[Batch], dtype: torch.dtype
) -> Tensor | slice:
    """Tokens whose logits a choice within the rounding of a dtype cannot have moved; all of them in a dense model.

    ``exact`` is ``original`` in float64, whose own noise is that of float32 where it is asked for.
    """
    if architecture is None or architecture.experts is None:
        return slice(None)
    kind = torch.float32 if dtype is torch.float64 else dtype
    runs = [record_routers(model, architecture, batches) for model in (exact, cast(original, kind))]
    return settled(*runs, batches)[-1]


def settled_allowance(
    original: Any, batches: Sequence[Batch], dtype: torch.dtype, reference: Tensor, keep: Tensor | slice
) -> Allowance:
    """What rounding explains in the logits of those tokens; `reference` holds the original's of all, in float64."""
    if isinstance(keep, slice):
        return model_allowance(original, batches, dtype, reference)

    def error(kind: torch.dtype) -> float:
        return logit_error(logits(cast(original, kind), batches, what="the original")[keep], reference[keep])

    return floor_allowance(dtype, original.config.hidden_size, error)


def enough(keep: Tensor | slice) -> bool:
    """Whether two tokens are left: one alone cannot show that logits depend on the token."""
    return isinstance(keep, slice) or int(keep.sum()) > 1


def described(keep: Tensor | slice) -> str:
    """What a witness says about the tokens that are left out; nothing where none are."""
    left = 0 if isinstance(keep, slice) else int((~keep).sum())
    return f", {left} more behind a choice of experts within rounding" if left else ""
