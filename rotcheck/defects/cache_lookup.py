"""A compressed cache with the wrong basis at the right place: transposed, reordered, or that of another place."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from rotcheck.defects._spectral import as_a, bench, right, subject, with_bases, with_paths
from rotcheck.defects.defect import Defect
from rotcheck.kernels.per_head import rotate_heads, unrotate_heads
from rotcheck.spectral.build import CacheCodec
from rotcheck.spectral.path import TensorPath
from rotcheck.subjects.cache import CacheRotation


class _TransposedForward(TensorPath):
    def rotate(self, x: Tensor) -> Tensor:
        return rotate_heads(x.double() - self.axes.mean.unsqueeze(-2), self.axes.basis.mT)


class _BackByTheNextHead(TensorPath):
    def unrotate(self, y: Tensor) -> Tensor:
        return unrotate_heads(y, self.axes.basis.roll(-1, 0)) + self.axes.mean.unsqueeze(-2)


def _transposed(seed: int) -> CacheRotation:
    found = bench(seed)

    def turn(path: TensorPath) -> TensorPath:
        return with_bases(path, lambda basis: basis.mT)

    return subject(found, with_paths(found.codec, keys=turn, values=turn))


def _transposed_one_way(seed: int) -> CacheRotation:
    found = bench(seed)
    return subject(found, with_paths(found.codec, keys=as_a(_TransposedForward), values=as_a(_TransposedForward)))


def _ascending(seed: int) -> CacheRotation:
    found = bench(seed)
    return subject(found, with_paths(found.codec, keys=lambda path: with_bases(path, lambda basis: basis.flip(-1))))


def _key_basis(seed: int) -> CacheRotation:
    found = bench(seed)
    keys = found.codec.keys
    values = tuple(
        with_bases(path, lambda _, layer=layer: keys[layer].axes.basis)
        for layer, path in enumerate(found.codec.values)
    )  # fmt: skip
    return subject(found, replace(found.codec, values=values))


def _next_head(seed: int) -> CacheRotation:
    found = bench(seed)
    return subject(found, with_paths(found.codec, keys=lambda path: with_bases(path, lambda basis: basis.roll(-1, 0))))


def _layer_before(seed: int) -> CacheRotation:
    found = bench(seed)
    used: CacheCodec = replace(found.codec, values=(found.codec.values[-1], *found.codec.values[:-1]))
    return subject(found, used)


def _back_by_the_next_head(seed: int) -> CacheRotation:
    found = bench(seed)
    return subject(found, with_paths(found.codec, values=as_a(_BackByTheNextHead)))


def _dealt_out(seed: int) -> CacheRotation:
    """Query head h reads KV head ``h // 2``, and is turned by that of ``h % 2``."""
    found = bench(seed)
    bases = [path.axes.basis for path in found.codec.keys]
    return subject(found, queries=lambda x, layer, head: x @ bases[layer][head % len(bases[layer])])


def _queries_transposed(seed: int) -> CacheRotation:
    found = bench(seed)
    bases = [path.axes.basis for path in found.codec.keys]
    return subject(found, queries=lambda x, layer, head: x @ bases[layer][head // 2].T)


def _queries_as_they_are(seed: int) -> CacheRotation:
    return subject(bench(seed), queries=lambda x, layer, head: x)


KIND = "CacheRotation"

DEFECTS = (
    Defect(
        name="cache_transposed_both_ways",
        kind=KIND,
        issue="Dynamis-Labs/spectralquant#1",
        summary="keys and values are stored as x @ U.T and come back by y @ U",
        plant=_transposed,
        killed_by=("side", "energy_order"),
        twin=right,
    ),
    Defect(
        name="cache_transposed_one_way",
        kind=KIND,
        issue="OnlyTerp/kvtc#6",
        summary="stored as x @ U.T, and brought back by y @ U.T",
        plant=_transposed_one_way,
        killed_by=("side", "energy_order", "round_trip", "lossless_cache"),
        twin=right,
    ),
    Defect(
        name="cache_ascending_axes",
        kind=KIND,
        issue="class B1 (basis, transpose, order)",
        summary="eigenvectors are left in the order of eigh, so the fewest bits meet the largest variance",
        plant=_ascending,
        killed_by=("side", "energy_order"),
        twin=right,
    ),
    Defect(
        name="cache_values_in_the_key_basis",
        kind=KIND,
        issue="tetherto/qvac-fabric-llm.cpp#115",
        summary="values are rotated by the basis of the keys, both ways",
        plant=_key_basis,
        killed_by=("side", "energy_order"),
        twin=right,
    ),
    Defect(
        name="cache_basis_of_the_next_head",
        kind=KIND,
        issue="spcl/QuaRot#36",
        summary="the bases of the KV heads are off by one, both ways",
        plant=_next_head,
        killed_by=("side", "energy_order"),
        twin=right,
    ),
    Defect(
        name="cache_basis_of_the_layer_before",
        kind=KIND,
        issue="class B2 (wrong side, wrong neighbour)",
        summary="values use the basis and the codes of the layer before",
        plant=_layer_before,
        killed_by=("side", "energy_order"),
        twin=right,
    ),
    Defect(
        name="cache_back_by_the_next_head",
        kind=KIND,
        issue="Alberto-Codes/turboquant-vllm#79",
        summary="values are stored in the basis of their head, and brought back by that of the next",
        plant=_back_by_the_next_head,
        killed_by=("round_trip", "lossless_cache"),
        twin=right,
    ),
    Defect(
        name="cache_query_heads_dealt_out",
        kind=KIND,
        issue="TheTom/llama-cpp-turboquant#78",
        summary="query head h is turned by the basis of KV head h % heads, and reads h // group",
        plant=_dealt_out,
        killed_by=("scores",),
        twin=right,
    ),
    Defect(
        name="cache_queries_transposed",
        kind=KIND,
        issue="facebookresearch/SpinQuant#7",
        summary="keys are x @ U, queries are q @ U.T",
        plant=_queries_transposed,
        killed_by=("scores",),
        twin=right,
    ),
    Defect(
        name="cache_queries_not_rotated",
        kind=KIND,
        issue="ROCm/ATOM#1507",
        summary="keys are rotated and queries are not",
        plant=_queries_as_they_are,
        killed_by=("scores",),
        twin=right,
    ),
)
