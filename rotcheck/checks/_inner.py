"""What an inner plan makes of the weights of heads and feed-forward dimensions, derived a second time."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from rotcheck.bases.factored import Factored
from rotcheck.models.architecture import Architecture
from rotcheck.models.sites import HeadSite, head_sites, hidden_sites
from rotcheck.slicing.inner import InnerPlan


@dataclass(frozen=True, kw_only=True, eq=False)
class InnerBases:
    """The matrices that stand left or right of the weights of a model, by the path of the linear map.

    With B the block-diagonal matrix of the bases of the value heads, ``v @ B`` needs ``B.T @ W_v`` and ``B.T @ b_v``.
    Query head q reads value head ``q // (H / H_kv)``, so the output projection needs ``W_o @ B'`` with each block of B
    repeated H / H_kv times. A down projection behind ``a @ U`` needs ``W @ U``.

    Attributes
    ----------
    values, outputs : dict of str to (HeadSite, Tensor)
        Value and output projections, with U (H_kv, D, D).
    hidden : dict of str to Factored
        Down projections.
    """

    values: dict[str, tuple[HeadSite, Tensor]] = field(default_factory=dict)
    outputs: dict[str, tuple[HeadSite, Tensor]] = field(default_factory=dict)
    hidden: dict[str, Factored] = field(default_factory=dict)

    def weight(self, path: str, weight: Tensor) -> Tensor:
        """The weight of that path with its inner side turned, float64; itself where the plan does not touch it."""
        if path in self.values:
            return _on_values(*self.values[path], weight.shape[0]) @ weight
        if path in self.outputs:
            site, bases = self.outputs[path]
            blocks = [bases[head] for head in range(site.heads) for _ in range(site.group)]
            return weight @ torch.block_diag(*blocks)
        return weight @ self.hidden[path].matrix() if path in self.hidden else weight

    def bias(self, path: str, bias: Tensor | None) -> Tensor | None:
        """The bias of that path: only value projections have it on the turned side."""
        if bias is None or path not in self.values:
            return bias
        return _on_values(*self.values[path], len(bias)) @ bias


def _on_values(site: HeadSite, bases: Tensor, rows: int) -> Tensor:
    """(rows, rows): the bases transposed on the rows of the values, and ones on those that share their layer."""
    first = site.rows("value").start
    after = rows - first - site.heads * site.width
    eyes = (torch.eye(count, dtype=torch.float64) for count in (first, after))
    return torch.block_diag(next(eyes), *bases.mT, next(eyes))


def inner_bases(architecture: Architecture, config: object, plan: InnerPlan | None) -> InnerBases:
    """The matrices of a plan; none of ``None``."""
    if plan is None:
        return InnerBases()
    values, outputs, hidden = {}, {}, {}
    if plan.values is not None:
        for site in head_sites(architecture, config):
            values[site.value] = outputs[site.output] = (site, plan.values[site.layer].cpu())
    if plan.hidden is not None:
        hidden = {site.writer: plan.hidden[site.index] for site in hidden_sites(architecture, config)}
    return InnerBases(values=values, outputs=outputs, hidden=hidden)
