"""The models that the cache defects are planted in: adversarial, seeded, and theirs alone."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rotcheck.defects import _spectral as planted
from rotcheck.models.caching import with_cache


@pytest.mark.parametrize("make", [planted.llama, planted.phi])
def test_the_same_seed_gives_the_same_model_and_another_seed_another(make):
    one, two, other = (dict(make(seed).named_parameters()) for seed in (3, 3, 4))
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not any(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("make", [planted.llama, planted.phi])
def test_the_global_random_state_is_left_alone(make):
    before = torch.random.get_rng_state()
    make(0)
    planted.bench(5)
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("make", [planted.llama, planted.phi])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_in_every_dtype_the_frequencies_of_rope_are_as_they_are_computed(make, dtype):
    model = make(1, dtype)
    assert {parameter.dtype for parameter in model.parameters()} == {dtype}
    frequencies = model.model.rotary_emb.inv_freq
    assert frequencies.dtype is torch.float32
    width = 2 * len(frequencies)
    expected = 10000.0 ** (-torch.arange(0, width, 2).double() / width)
    torch.testing.assert_close(frequencies.double(), expected, rtol=1e-6, atol=0)


def test_sizes_differ_so_that_nothing_fits_by_accident():
    config = planted.llama(0).config
    sizes = [config.hidden_size, config.head_dim, config.intermediate_size, config.vocab_size]
    sizes += [config.head_dim * heads for heads in (config.num_attention_heads, config.num_key_value_heads)]
    assert len(set(sizes)) == len(sizes)
    assert all(size & (size - 1) for size in sizes)
    assert config.head_dim != config.hidden_size // config.num_attention_heads
    assert config.num_attention_heads // config.num_key_value_heads == 2


def test_rope_turns_a_part_of_phi_and_all_of_llama():
    assert 2 * len(planted.phi(0).model.rotary_emb.inv_freq) == 12 < 20
    assert 2 * len(planted.llama(0).model.rotary_emb.inv_freq) == 20
    assert {path.axes.rotary for path in planted.bench(0, "phi").codec.keys} == {12}
    assert {path.axes.rotary for path in planted.bench(0).codec.keys} == {0}


@pytest.mark.parametrize("make", [planted.llama, planted.phi])
def test_gains_and_biases_are_not_those_of_initialisation(make):
    for name, parameter in make(2).named_parameters():
        if "norm" in name and name.endswith("weight"):
            assert (parameter - 1).abs().mean() > 0.1
        if name.endswith("bias"):
            assert parameter.abs().mean() > 0.1


@settings(max_examples=6)
@given(seed=st.integers(0, 2**31))
def test_keys_and_values_have_few_principal_axes_that_are_no_coordinates(seed):
    model = planted.llama(seed)
    weight = model.model.layers[1].self_attn.k_proj.weight.detach().double().unflatten(0, (2, 20))
    spectra = torch.linalg.svdvals(weight)
    assert (spectra[:, 0] / spectra[:, -1] > 5).all()
    for head in weight:
        gram = head @ head.T
        off = gram - torch.diag(gram.diagonal())
        assert off.norm() > 0.2 * gram.norm()


@pytest.mark.parametrize("kind", ["llama", "phi"])
def test_bases_of_heads_and_layers_and_of_keys_and_values_are_far_apart(kind):
    codec = planted.bench(0, kind).codec
    bases = torch.cat([path.axes.basis for bank in (codec.keys, codec.values) for path in bank])
    for i, one in enumerate(bases):
        assert (one - one.T).norm() / one.norm() > 0.5
        for other in bases[i + 1 :]:
            assert (one - other).norm() / one.norm() > 0.5


@given(seed=st.integers(0, 2**31), rows=st.integers(1, 6), length=st.integers(3, 20))
def test_tokens_are_left_padded_by_another_length_in_each_row(seed, rows, length):
    batch = planted.tokens(seed, rows, length)
    mask = batch["attention_mask"]
    assert mask[0].all()
    assert (mask.sum(1) >= 2).all()
    assert (mask[:, 1:] >= mask[:, :-1]).all()
    assert (batch["input_ids"][mask == 0] == 0).all()
    assert (batch["input_ids"][mask == 1] >= 3).all()
    gaps = (length - mask.sum(1)).tolist()
    assert all(a < b or b == length - 2 for a, b in pairwise(gaps))
    assert planted.tokens(seed, rows, length, padded=False)["attention_mask"].all()


def test_a_bench_is_made_once():
    assert planted.bench(0) is planted.bench(0)
    assert planted.bench(0) is not planted.bench(7)
    assert planted.bench(0, "phi") is not planted.bench(0)


def test_its_cache_has_layers_of_the_class_that_is_asked_for():
    found = planted.bench(0)

    class Other(planted.SpectralLayer):
        pass

    made = found.cache(found.codec, Other)
    assert {type(layer) for layer in made.layers} == {Other}
    with torch.no_grad():
        found.model(**found.batch, use_cache=True, **with_cache(found.model, made))
    assert made.calls == (1, 1, 1)
    assert made.stored_bytes == found.codec.bytes_per_token * 3 * 14
    assert found.cache(found.codec).stored_bytes == 0


def test_what_is_declared_is_replaced_by_name():
    found = planted.bench(0)
    made = planted.subject(found, bytes_per_token=7, name="mine", rotary=4)
    assert (made.bytes_per_token, str(made), made.rotary) == (7, "mine", 4)
    assert planted.right(0).bytes_per_token == found.codec.bytes_per_token


def test_what_is_used_and_what_is_claimed_are_kept_apart():
    found = planted.bench(0)
    flipped = planted.with_paths(found.codec, keys=lambda path: planted.with_bases(path, lambda basis: basis.flip(-1)))
    x = torch.eye(20, dtype=torch.float64)
    wrong = planted.subject(found, flipped).heads[0, 1, "keys"]
    honest = planted.subject(found, flipped, claimed=flipped).heads[0, 1, "keys"]
    torch.testing.assert_close(wrong.apply(x), honest.apply(x))
    torch.testing.assert_close(wrong.basis, found.codec.keys[0].axes.basis[1])
    torch.testing.assert_close(honest.basis, wrong.basis.flip(-1))


def test_paths_of_another_class_keep_axes_and_codes():
    path = planted.bench(0).codec.values[1]

    class Other(planted.TensorPath):
        pass

    made = planted.as_a(Other)(path)
    assert type(made) is Other
    assert made.axes is path.axes
    assert made.codec is path.codec
