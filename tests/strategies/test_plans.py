"""Drawn schedules, groupings and plans fit the model they are drawn for."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from rotcheck import strategies as rst


@given(st.data(), st.integers(1, 24), st.integers(2, 9))
def test_schedules_keep_a_column_at_every_site(data, hidden_size, n_sites):
    widths = data.draw(rst.schedules(hidden_size, n_sites)).widths(hidden_size, n_sites)
    assert len(widths) == n_sites
    assert all(1 <= width <= hidden_size for width in widths)


@given(st.data(), st.integers(1, 6))
def test_groupings_fit_the_layers(data, n_layers):
    groups = data.draw(rst.groupings(n_layers)).groups(n_layers)
    assert len(groups) == 2 * n_layers + 1
    assert groups[0] == 0


@given(st.data(), st.integers(2, 10), st.integers(1, 3))
def test_plans_have_every_site(data, hidden_size, n_layers):
    plan = data.draw(rst.plans(hidden_size, n_layers))
    assert plan.n_sites == 2 * n_layers + 1
    assert plan.hidden_size == hidden_size


@given(rst.plans(6, 2, sliced=False))
def test_unsliced_plans_have_full_width(plan):
    assert set(plan.widths) == {6}


@given(rst.plans(6, 3, branches=1))
def test_parallel_blocks_have_one_site_per_layer(plan):
    assert plan.n_sites == 4
