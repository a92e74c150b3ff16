"""Which sites share a basis, for every K and both places where the basis may change."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rotcheck.errors import RotcheckError
from rotcheck.slicing import global_groups, k_block_groups, parse, per_layer_groups

layers_and_k = st.integers(1, 12).flatmap(lambda n: st.tuples(st.just(n), st.integers(1, n)))


@given(n=st.integers(1, 12))
def test_per_layer_has_one_basis_per_site_and_global_one_in_all(n):
    assert per_layer_groups(n) == tuple(range(2 * n + 1))
    assert global_groups(n) == (0,) * (2 * n + 1)


@given(case=layers_and_k, change=st.sampled_from(["mlp", "attention"]))
def test_k_blocks_cover_all_layers(case, change):
    n, k = case
    groups = k_block_groups(n, k, change)
    assert len(groups) == 2 * n + 1
    assert sorted(set(groups)) == list(range(-(-n // k)))
    assert list(groups) == sorted(groups)
    assert groups[-1] == groups[-2]


@given(case=layers_and_k)
def test_change_at_the_mlp_write_keeps_a_layer_in_one_basis(case):
    n, k = case
    groups = k_block_groups(n, k, "mlp")
    assert all(groups[2 * layer] == groups[2 * layer + 1] == layer // k for layer in range(n))


@given(case=layers_and_k)
def test_change_at_the_attention_write_delays_only_the_attention_input(case):
    n, k = case
    groups = k_block_groups(n, k, "attention")
    for layer in range(n):
        first_of_later_block = layer % k == 0 and layer > 0
        assert groups[2 * layer] == layer // k - first_of_later_block
        assert groups[2 * layer + 1] == layer // k


def test_an_uneven_last_block_is_shorter():
    assert k_block_groups(5, 2) == (0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2)


@given(n=st.integers(1, 12))
def test_k_of_all_layers_is_global_and_k_of_one_is_not_per_layer(n):
    assert k_block_groups(n, n) == global_groups(n)
    assert len(set(k_block_groups(n, 1))) == n


@pytest.mark.parametrize("k", [0, -1, 4, 2.0, True, None])
def test_k_outside_the_range_names_the_range(k):
    with pytest.raises(RotcheckError, match="from 1 to 3"):
        k_block_groups(3, k)


def test_an_unknown_change_is_an_error():
    with pytest.raises(RotcheckError, match="change is 'head'"):
        k_block_groups(3, 2, "head")


def test_a_parallel_block_has_one_site_per_layer():
    assert k_block_groups(4, 2, branches=1) == (0, 0, 1, 1, 1)
    with pytest.raises(RotcheckError, match="two branches"):
        k_block_groups(4, 2, "attention", branches=1)


@pytest.mark.parametrize("text", ["per-layer", "global", "k-block:1", "k-block:12"])
def test_what_is_parsed_is_printed_again(text):
    assert str(parse(text)) == text


@given(case=layers_and_k)
def test_a_parsed_k_block_gives_its_groups(case):
    n, k = case
    assert parse(f"k-block:{k}").groups(n) == k_block_groups(n, k)


@pytest.mark.parametrize("text", ["", "k-block", "k-block:", "k-block:0", "k-block:-1", "k-block:2.5", "k-block:x"])
def test_other_text_lists_the_choices(text):
    with pytest.raises(RotcheckError, match="per-layer, global, k-block:K"):
        parse(text)


@pytest.mark.parametrize("n", [0, -2, 1.5, True])
def test_a_model_has_at_least_one_layer(n):
    with pytest.raises(RotcheckError, match="number of layers"):
        per_layer_groups(n)
