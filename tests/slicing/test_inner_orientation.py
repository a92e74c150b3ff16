"""Which side of which tensor an inner plan turns, and that it turns nothing else."""

from __future__ import annotations

import pytest
import torch

from rotcheck.models import architecture_of, head_sites, hidden_sites
from rotcheck.models.tensors import linear
from rotcheck.models.tiny import SMALL, adversarial_model
from rotcheck.slicing import inner_plan, rotate_and_slice


def close(found, expected):
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-14)


@pytest.fixture(scope="module", params=list(SMALL))
def case(request):
    model = adversarial_model(request.param, seed=1, layers=2)
    plan = inner_plan(model, seed=2)
    return model, plan, rotate_and_slice(model, None, inner=plan)


def touched(model, which):
    """Names of the tensors that R2 or R4 may change."""
    architecture, names = architecture_of(model), set()
    for site in head_sites(architecture, model.config) if which == "R2" else ():
        value, output = linear(model, site.value), linear(model, site.output)
        names |= {value.weight_name, output.weight_name} | ({value.bias_name} if value.bias is not None else set())
    for site in hidden_sites(architecture, model.config) if which == "R4" else ():
        names.add(linear(model, site.writer).weight_name)
    return names


@pytest.mark.parametrize("which", ["R2", "R3", "R4"])
def test_everything_else_is_the_same_to_the_bit(case, which):
    model = case[0]
    rotated = rotate_and_slice(model, None, inner=inner_plan(model, rotations=[which], seed=2))
    before, after = dict(model.named_parameters()), dict(rotated.named_parameters())
    assert list(before) == list(after)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == touched(model, which)


def test_values_by_rows_and_outputs_by_columns_of_their_key_head(case):
    model, plan, rotated = case
    for site in head_sites(architecture_of(model), model.config):
        bases, rows, width = plan.values[site.layer], site.rows("value"), site.width
        before, after = linear(model, site.value), linear(rotated, site.value)
        for head in range(site.heads):
            own = slice(rows.start + head * width, rows.start + (head + 1) * width)
            close(after.weight[own], bases[head].T @ before.weight[own])
            if before.bias is not None:
                close(after.bias[own], before.bias[own] @ bases[head])
        if rows.start:  # queries and keys of a fused projection
            assert torch.equal(after.weight[: rows.start], before.weight[: rows.start])
        before, after = linear(model, site.output).weight, linear(rotated, site.output).weight
        for head in range(site.query_heads):
            own = slice(head * width, (head + 1) * width)
            close(after[:, own], before[:, own] @ bases[head * site.heads // site.query_heads])


def test_down_projections_by_columns(case):
    model, plan, rotated = case
    for site in hidden_sites(architecture_of(model), model.config):
        before, after = (linear(each, site.writer).weight for each in (model, rotated))
        close(after, before @ plan.hidden[site.index].matrix())


def test_the_model_holds_the_bases_themselves(case):
    model, plan, rotated = case
    architecture = architecture_of(model)
    for site in head_sites(architecture, model.config):
        assert torch.equal(rotated.get_buffer(f"{site.module}.rotation.bases"), plan.queries[site.layer])
    for site in hidden_sites(architecture, model.config):
        owner = site.writer if linear(model, site.writer).module is not None else site.writer.rpartition(".")[0]
        assert torch.equal(rotated.get_buffer(f"{owner}.rotation.signs"), plan.hidden[site.index].signs)
        for index, factor in enumerate(plan.hidden[site.index].factors):
            assert torch.equal(rotated.get_buffer(f"{owner}.rotation.factor_{index}"), factor)


def test_the_original_is_left_alone(case):
    model, plan, rotated = case
    again = adversarial_model(model.config.model_type, seed=1, layers=2)
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), again.state_dict().values(), strict=True))
    own = {parameter.data_ptr() for parameter in rotated.parameters()}
    assert not own & {parameter.data_ptr() for parameter in model.parameters()}
    kept = {basis.data_ptr() for layer in (*plan.values, *plan.queries) for basis in layer}
    assert not kept & {buffer.data_ptr() for buffer in rotated.buffers()}
