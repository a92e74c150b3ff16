"""``shard``: a model as tensor-parallel shards compute it, and what no shard can compute alone."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from rotcheck.bases.factored import Factored, blocks, dense
from rotcheck.bases.haar import haar
from rotcheck.bases.hadamard import hadamard
from rotcheck.errors import RotcheckError
from rotcheck.models import architecture_of
from rotcheck.models.adversarial import adversarial_batch
from rotcheck.models.caching import cache_of, with_cache
from rotcheck.models.tiny import SMALL, adversarial_model
from rotcheck.slicing import inner_plan, random_plan, rotate_and_slice
from rotcheck.slicing.online import HiddenRotation
from rotcheck.slicing.sharding import ColumnParallel, RowParallel, own_block, shard
from rotcheck.subjects.running import cast, logit_error, logits

DENSE = [kind for kind in SMALL if "mixtral" not in kind and "moe" not in kind]


def in_blocks(count):
    def basis(width, generator):
        signs = 2.0 * torch.randint(2, (width,), generator=generator).double() - 1.0
        return blocks(haar(width // count, seed=generator), count, signs=signs)

    return basis


def made(kind, seed, count=4, **options):
    model = adversarial_model(kind, seed=seed, layers=2, **options)
    architecture = architecture_of(model)
    plan = None
    if architecture.refuse(model.config) is None:
        plan = random_plan(48, 2, "per-layer", seed=seed, branches=len(architecture.branches))
    inner = inner_plan(model, hidden=in_blocks(count), seed=seed)
    return model, rotate_and_slice(model, plan, inner=inner), adversarial_batch(model, seed=seed + 1, length=8)


@pytest.mark.parametrize("kind", DENSE)
def test_shards_of_every_rotation_are_the_whole(kind):
    model, rotated, batch = made(kind, 3)
    whole = logits(cast(model, torch.float64), [batch], what="whole")
    for part in (shard(rotated, 2), shard(model, 2)):
        assert logit_error(logits(cast(part, torch.float64), [batch], what="shards"), whole) < 1e-13


@settings(deadline=None, max_examples=5)
@given(seed=st.integers(0, 2**31), ways=st.sampled_from([1, 2, 3, 6]))
def test_any_number_of_shards(seed, ways):
    """Six heads and 84 columns: blocks for six serve three and two as well."""
    model, rotated, batch = made("opt", seed, count=6, ffn_dim=84)
    whole = logits(model, [batch], what="whole")
    assert logit_error(logits(shard(rotated, ways), [batch], what="shards"), whole) < 1e-13


def test_every_shard_holds_its_share():
    _, rotated, _ = made("llama", 4)
    part = shard(rotated, 2).model.layers[1]
    for path in ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "mlp.gate_proj", "mlp.up_proj"):
        assert isinstance(part.get_submodule(path), ColumnParallel)
    for path in ("self_attn.o_proj", "mlp.down_proj"):
        assert isinstance(part.get_submodule(path), RowParallel)
    assert [tuple(weight.shape) for weight in part.mlp.gate_proj.weights] == [(56, 48)] * 2
    assert [tuple(weight.shape) for weight in part.mlp.down_proj.weights] == [(48, 56)] * 2
    assert [tuple(block.shape) for block in part.mlp.down_proj.blocks] == [(56, 56)] * 2
    assert part.self_attn.o_proj.blocks is None


def test_fused_layers_are_shared_out_by_their_parts():
    model, *_ = made("phi3", 5)
    heads = model.config.num_attention_heads * 8
    fused, part = model.model.layers[0].self_attn.qkv_proj, shard(model, 2).model.layers[0].self_attn.qkv_proj
    queries, keys, values = fused.weight.split([heads, 16, 16])
    expected = torch.cat([queries[heads // 2 :], keys[8:], values[8:]])
    assert part.weights[1].equal(expected)


@settings(deadline=None)
@given(seed=st.integers(0, 2**31), ways=st.integers(1, 5), biased=st.booleans())
def test_a_row_parallel_layer_is_the_layer(seed, ways, biased):
    generator = torch.Generator().manual_seed(seed)
    layer = nn.Linear(ways * 3, 7, bias=biased, dtype=torch.float64)
    for parameter in layer.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    x = torch.randn(2, 5, ways * 3, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(RowParallel(layer, None, ways)(x), layer(x))


@settings(deadline=None)
@given(seed=st.integers(0, 2**31), biased=st.booleans())
def test_a_column_parallel_layer_is_the_layer_in_its_order(seed, biased):
    generator = torch.Generator().manual_seed(seed)
    layer = nn.Linear(5, 11, bias=biased, dtype=torch.float64)
    for parameter in layer.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    rows = torch.randperm(11, generator=generator).split([4, 1, 6])
    x = torch.randn(3, 5, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(ColumnParallel(layer, rows)(x), layer(x))


def rotation(basis: Factored) -> HiddenRotation:
    module = HiddenRotation(basis.sizes, torch.float64)
    module.signs = basis.signs
    for index, factor in enumerate(basis.factors):
        setattr(module, f"factor_{index}", factor)
    return module


@settings(deadline=None)
@given(seed=st.integers(0, 2**31), ways=st.sampled_from([1, 2, 3, 6]))
def test_blocks_on_the_diagonal_are_the_matrix(seed, ways):
    basis = in_blocks(6)(30, torch.Generator().manual_seed(seed))
    found = [own_block(rotation(basis), index, ways) for index in range(ways)]
    assert torch.block_diag(*found).equal(basis.matrix())


@pytest.mark.parametrize(
    "basis",
    [
        dense(haar(24, seed=1)),
        dense(hadamard(24)),
        blocks(haar(8, seed=2), 3),
        Factored(factors=(haar(4, seed=3), haar(6, seed=4))),
        dense(torch.eye(24, dtype=torch.float64)[torch.arange(24).roll(1)]),
    ],
    ids=["haar", "hadamard", "three-blocks", "kronecker", "shift"],
)
def test_what_mixes_two_shards_is_refused(basis):
    with pytest.raises(RotcheckError, match="a rotation of 24 coordinates mixes the 2 shards: shard 0 would need"):
        own_block(rotation(basis), 0, 2)


def test_the_refusal_names_the_module_and_the_cure():
    model = adversarial_model("llama", seed=1, layers=1)
    rotated = rotate_and_slice(model, None, inner=inner_plan(model, rotations=["R4"]))
    cure = r"inner_plan\(hidden=lambda n, g: rotcheck.bases.factored.blocks\(block, 2\)\)"
    with pytest.raises(RotcheckError, match=rf"in front of model.layers.0.mlp.down_proj, a rotation of 112 .*{cure}"):
        shard(rotated, 2)


@pytest.mark.parametrize(
    ("kind", "ways", "options", "message"),
    [
        ("llama", 3, {}, "the layer 0 heads have 2 key and value heads, not a multiple of 3"),
        ("llama", 0, {}, "shard: 0 ways; pass the number of shards, at least 1"),
        ("opt", 3, {"ffn_dim": 80}, "the layer 0 feed-forward has 80 columns, not a multiple of 3"),
        ("mixtral", 2, {}, "shard: mixtral has experts, which are shared out whole"),
    ],
)
def test_what_cannot_be_shared_out(kind, ways, options, message):
    with pytest.raises(RotcheckError, match=message):
        shard(adversarial_model(kind, seed=1, layers=1, **options), ways)


def test_decoding_goes_through_the_cache():
    _, rotated, batch = made("llama", 6)
    part, ids = shard(rotated, 2), batch["input_ids"][:1]
    with torch.no_grad():
        past = cache_of(part(input_ids=ids[:, :5], use_cache=True))
        answer = part(input_ids=ids[:, 5:], use_cache=True, **with_cache(part, past)).logits
        torch.testing.assert_close(answer, rotated(input_ids=ids).logits[:, 5:], rtol=0, atol=1e-12)


def test_the_model_is_left_alone():
    _, rotated, _ = made("llama", 7)
    state = {name: tensor.clone() for name, tensor in rotated.state_dict().items()}
    part = shard(rotated, 2)
    for parameter in part.parameters():
        parameter.data.zero_()
    assert all(tensor.equal(state[name]) for name, tensor in rotated.state_dict().items())
