"""What an inner plan changes in a model: edits of its weights by name, and the buffers of its online rotations."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from rotcheck.errors import RotcheckError
from rotcheck.models.architecture import Architecture
from rotcheck.models.sites import HeadSite, head_sites, hidden_sites
from rotcheck.models.tensors import linear
from rotcheck.slicing.inner import InnerPlan
from rotcheck.slicing.inner_steps import InnerSteps

Edit = Callable[[Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class InnerEdits:
    """Edits to apply to the weights of those names, float64 in and out, and buffers to set."""

    weights: Mapping[str, Edit] = field(default_factory=dict)
    buffers: Mapping[str, Tensor] = field(default_factory=dict)

    def apply(self, name: str, tensor: Tensor) -> Tensor:
        """The tensor of that name as the rotated model holds it; itself where the plan does not touch it."""
        edit = self.weights.get(name)
        return tensor if edit is None else edit(tensor.to(torch.float64))


def inner_edits(model: nn.Module, architecture: Architecture, plan: InnerPlan | None, steps: InnerSteps) -> InnerEdits:
    """All edits of a plan. The residual plan works on the other sides of the same matrices, so their order is free.

    Raises
    ------
    RotcheckError
        The plan is for another model.
    """
    if plan is None:
        return InnerEdits()
    plan.check(architecture, model.config)
    weights: dict[str, Edit] = {}
    buffers: dict[str, Tensor] = {}
    for site in head_sites(architecture, model.config):
        if plan.values is not None:
            weights |= _values(model, site, plan.values[site.layer], steps)
        if plan.queries is not None:
            buffers[f"{site.module}.rotation.bases"] = steps.online_heads(plan.queries[site.layer])
    for site in hidden_sites(architecture, model.config):
        if plan.hidden is None:
            break
        basis, held = plan.hidden[site.index], linear(model, site.writer)
        weights[held.weight_name] = lambda weight, basis=basis: steps.hidden(weight, basis)
        owner = site.writer if held.module is not None else site.writer.rpartition(".")[0]
        online = steps.online_hidden(basis)
        buffers[f"{owner}.rotation.signs"] = online.signs
        buffers |= {f"{owner}.rotation.factor_{index}": factor for index, factor in enumerate(online.factors)}
    return InnerEdits(weights=weights, buffers=buffers)


def _values(model: nn.Module, site: HeadSite, bases: Tensor, steps: InnerSteps) -> dict[str, Edit]:
    rows, held, output = site.rows("value"), linear(model, site.value), linear(model, site.output)
    if held.weight.shape[0] < rows.stop or output.weight.shape[-1] != site.query_heads * site.width:
        raise RotcheckError(
            f"{site.name}: {site.value} has {held.weight.shape[0]} rows and {site.output} "
            f"{output.weight.shape[-1]} columns, which are not {site.query_heads} query and {site.heads} value heads "
            f"of width {site.width}; correct head_dim or num_key_value_heads in the configuration"
        )

    def of_values(weight: Tensor) -> Tensor:
        turned = weight.clone()
        heads = weight[rows].unflatten(0, (site.heads, site.width))
        turned[rows] = steps.value(heads, bases.to(weight.device)).flatten(0, 1)
        return turned

    def of_biases(bias: Tensor) -> Tensor:
        turned = bias.clone()
        heads = bias[rows].unflatten(0, (site.heads, site.width))
        turned[rows] = steps.value_bias(heads, bases.to(bias.device)).flatten()
        return turned

    def of_output(weight: Tensor) -> Tensor:
        read = [steps.key_head(head, site.group, site.heads) for head in range(site.query_heads)]
        columns = weight.unflatten(-1, (site.query_heads, site.width))
        return steps.output(columns, bases[read].to(weight.device)).flatten(-2, -1)

    return {held.weight_name: of_values, held.bias_name: of_biases, output.weight_name: of_output}
