"""`CacheRotation`: what it refuses, and the parts it is made of."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rotcheck import CacheRotation, Rotation, RotcheckError
from rotcheck.bases import haar
from rotcheck.defects import _spectral as planted
from rotcheck.subjects.cache import KINDS, Head

BASIS = haar(6, seed=1)


def rotation(seed: int = 1, width: int = 6, **changes: object) -> Rotation:
    basis = haar(width, seed=seed)
    return Rotation(lambda x: x @ basis, basis=basis, **changes)


def bank(layers: int, heads: int, kinds: tuple[str, ...] = KINDS, width: int = 6) -> dict[Head, Rotation]:
    places = [Head(layer, head, kind) for layer in range(layers) for head in range(heads) for kind in kinds]
    return {place: rotation(seed, width) for seed, place in enumerate(places)}


def cannot_be_made():
    raise RuntimeError


@pytest.fixture(scope="module")
def model():
    return planted.llama(3)


@pytest.fixture(scope="module")
def inputs():
    return planted.tokens(3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, r"needs heads=\{Head\(layer, head, kind\): Rotation\}, or model= and cache="),
        ({"heads": {}}, "needs heads="),
        ({"heads": [rotation()]}, r"CacheRotation\(heads=list\): pass a mapping of Head to Rotation"),
        ({"heads": {0: rotation()}}, r"a head is \(layer, head, 'keys' or 'values'\), not 0"),
        ({"heads": {"keys": rotation()}}, "a head is .*, not 'keys'"),
        ({"heads": {(0,): rotation()}}, r"a head is .*, not \(0,\)"),
        ({"heads": {(0, 1, "keys", 2): rotation()}}, "a head is "),
        ({"heads": {(0, -1): rotation()}}, r"with numbers from 0, not \(0, -1\)"),
        ({"heads": {(0.0, 1): rotation()}}, r"with numbers from 0, not \(0.0, 1\)"),
        ({"heads": {(True, 1): rotation()}}, r"with numbers from 0, not \(True, 1\)"),
        ({"heads": {(0, 1, "key"): rotation()}}, "with numbers from 0, not .*'key'"),
        ({"heads": {(0, 1): BASIS}}, r"\(0, 1\) is a Tensor: make a rotcheck.Rotation of it"),
        ({"heads": {(0, 1): rotation(), (0, 1, "keys"): rotation(2)}}, "2 keys mean layer 0 head 1 keys"),
        ({"queries": lambda x, layer, head: x}, r"queries=...\) needs query_heads=..., and the other way round"),
        ({"query_heads": 4}, r"queries=...\) needs query_heads=..., and the other way round"),
        ({"queries": 3, "query_heads": 4}, r"queries=3\) is not callable: pass a function of x, layer and head"),
        ({"queries": lambda x, layer, head: x, "query_heads": 0}, r"query_heads=0\): pass a whole number, 1 or more"),
        ({"queries": lambda x, layer, head: x, "query_heads": 2.0}, r"query_heads=2.0\): pass a whole number"),
        ({"bytes_per_token": 0}, r"bytes_per_token=0\): pass a whole number, 1 or more"),
        ({"bytes_per_token": 12.5}, r"bytes_per_token=12.5\): pass a whole number, 1 or more"),
        ({"rotary": -2}, r"rotary=-2\): pass a whole number, 0 or more"),
        ({"rotary": True}, r"rotary=True\): pass a whole number"),
        ({"rotary": 6}, r"rotary=6\) is not a part of keys of width 6: leave it out where RoPE turns the whole head"),
        ({"rotary": 7}, "is not a part of keys of width 6"),
        ({"cache": 3}, r"cache=3\) is not callable: pass lambda: MyCache"),
        ({"lossless": "no"}, r"lossless='no'\) is not callable"),
        ({"cache": lambda: None}, r"cache=...\) needs model=... and inputs=... to run it with"),
        ({"reload": lambda: None}, r"reload=...\) needs model=... and inputs=..."),
        ({"coarse": lambda: None, "inputs": torch.ones(2, 5).long()}, r"coarse=...\) needs model="),
        ({"model": torch.nn.Linear(3, 4)}, r"model=Linear\) is not a transformers model"),
        ({"inputs": torch.ones(2, 5)}, "inputs must be token ids of shape"),
        ({"inputs": torch.ones(3, 1).long()}, "every input has one token"),
    ],
)
def test_wrong_input_is_refused_in_one_line(options, message):
    given = options if "heads" in options or not options else {"heads": {(0, 1): rotation()}} | options
    with pytest.raises(RotcheckError, match=message) as caught:
        CacheRotation(given.pop("heads", {}), **given)
    assert "\n" not in str(caught.value)


def test_a_cache_alone_is_enough(model, inputs):
    subject = CacheRotation(model=model, inputs=inputs, cache=lambda: None)
    assert subject.parts == {}
    assert subject.kind == "CacheRotation"


def test_plain_tuples_become_heads():
    subject = CacheRotation({(0, 1): rotation(), (2, 0, "values"): rotation(2)})
    assert list(subject.heads) == [Head(0, 1, "keys"), Head(2, 0, "values")]
    assert list(map(str, subject.heads)) == ["layer 0 head 1 keys", "layer 2 head 0 values"]


def test_numbers_of_numpy_are_numbers():
    subject = CacheRotation({(np.int64(3), np.uint8(1)): rotation()})
    assert list(subject.heads) == [Head(3, 1, "keys")]
    assert type(next(iter(subject.heads)).layer) is int


def test_the_mapping_that_was_given_is_left_alone():
    given = {(0, 1): rotation()}
    CacheRotation(given)
    assert list(given) == [(0, 1)]


@given(layers=st.integers(1, 4), heads=st.integers(1, 4), seed=st.integers(0, 2**31))
def test_neighbours_are_the_heads_of_the_layer_and_the_same_head_of_the_next_layers(layers, heads, seed):
    made = bank(layers, heads)
    parts = CacheRotation(made).parts
    assert list(parts) == [str(place) for place in made]
    drawn = torch.randint(len(made), (1,), generator=torch.Generator().manual_seed(seed))
    place = list(made)[int(drawn)]
    same_layer = {other for other in made if other.layer == place.layer}
    around = {place._replace(layer=place.layer + step) for step in (-1, 1)} & set(made)
    expected = {str(other): made[other].basis for other in (same_layer | around) - {place}}
    found = parts[str(place)].neighbours
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert len(found) == 2 * heads - 1 + len(around)


def test_keys_have_values_for_neighbours_and_no_values_of_other_layers():
    found = CacheRotation(bank(3, 1)).parts["layer 1 head 0 keys"].neighbours
    assert set(found) == {"layer 1 head 0 values", "layer 0 head 0 keys", "layer 2 head 0 keys"}


def test_neighbours_of_another_width_are_left_out():
    made = bank(2, 1) | {Head(0, 1, "keys"): rotation(9, 8)}
    found = CacheRotation(made).parts
    assert "layer 0 head 1 keys" not in found["layer 0 head 0 keys"].neighbours
    assert found["layer 0 head 1 keys"].neighbours == {}


def test_declared_neighbours_stay():
    own = rotation(1, neighbours={"the twin": haar(6, seed=5)})
    found = CacheRotation({(0, 0): own, (0, 1): rotation(2)}).parts
    assert set(found["layer 0 head 0 keys"].neighbours) == {"the twin"}
    assert set(found["layer 0 head 1 keys"].neighbours) == {"layer 0 head 0 keys"}


def test_parts_without_a_basis_have_no_neighbours_and_are_none():
    bare = Rotation(lambda x: x, covariance=torch.eye(6).double())
    found = CacheRotation({(0, 0): bare, (0, 1): rotation(2)}).parts
    assert found["layer 0 head 0 keys"].neighbours == {}
    assert found["layer 0 head 1 keys"].neighbours == {}


def test_parts_are_otherwise_what_was_given():
    given = rotation(1, covariance=torch.eye(6).double(), mean=torch.ones(6).double(), tokens=7)
    part = CacheRotation({(0, 0): given, (0, 1): rotation(2)}).parts["layer 0 head 0 keys"]
    assert part.rotate is given.rotate
    assert part.covariance is given.covariance
    assert part.mean is given.mean
    assert part.tokens == 7
    assert given.neighbours == {}


def test_names(model, inputs):
    assert str(CacheRotation(bank(2, 2), name="engine")) == "engine"
    assert str(CacheRotation(bank(2, 2))) == "cache of 8 rotations"
    assert repr(CacheRotation(bank(2, 2), name="engine")) == "CacheRotation(engine)"
    # a name must not need a cache: it is asked for with every finding
    assert str(CacheRotation(model=model, inputs=inputs, cache=cannot_be_made)) == "test_cache_rotation.cannot_be_made"


def test_inputs_of_every_form_become_batches(model, inputs):
    ids = inputs["input_ids"]
    for form in (ids, {"input_ids": ids}, inputs, [ids, inputs]):
        subject = CacheRotation(model=model, inputs=form, cache=lambda: None)
        assert len(subject.batches) == (2 if isinstance(form, list) else 1)
        assert all(set(batch) == {"input_ids", "attention_mask"} for batch in subject.batches)
    assert CacheRotation(bank(1, 1)).batches == ()


def test_what_our_own_cache_declares():
    found = planted.bench(0)
    subject = planted.right(0)
    assert set(subject.heads) == {Head(layer, head, kind) for layer in range(3) for head in range(2) for kind in KINDS}
    assert (subject.query_heads, subject.rotary) == (4, 0)
    assert subject.bytes_per_token == found.codec.bytes_per_token
    part = subject.heads[Head(1, 1, "values")]
    axes, statistics = found.codec.values[1].axes, found.calibration.values[1]
    assert torch.equal(part.basis, axes.basis[1])
    assert torch.equal(part.mean, axes.mean[1])
    torch.testing.assert_close(part.covariance, statistics.moments.second(centred=True)[1])
    assert torch.equal(part.samples, statistics.rows[1].double())
    x = torch.ones(3, 20, dtype=torch.float64)
    torch.testing.assert_close(part.apply(x), (x - axes.mean[1]) @ axes.basis[1])
    torch.testing.assert_close(part.apply(part.apply(x), part.unrotate), x)


def test_under_partial_rotary_the_covariance_has_no_cross_terms():
    found = planted.bench(0, "phi")
    subject = planted.right_partial(0)
    assert subject.rotary == 12
    covariance = subject.heads[Head(0, 0, "keys")].covariance
    moment = found.calibration.keys[0].moments.second(centred=True)[0]
    assert not covariance[:12, 12:].any()
    assert moment[:12, 12:].abs().max() > 1e-3
    torch.testing.assert_close(covariance[:12, :12], moment[:12, :12])
    torch.testing.assert_close(covariance[12:, 12:], moment[12:, 12:])
    assert subject.heads[Head(0, 0, "keys")].samples is None
    values = subject.heads[Head(0, 0, "values")]
    torch.testing.assert_close(values.covariance, found.calibration.values[0].moments.second(centred=True)[0])
    assert values.samples is not None


@pytest.mark.parametrize("head", range(4))
def test_queries_of_our_own_cache_use_the_head_that_they_read(head):
    found, subject = planted.bench(0), planted.right(0)
    q = haar(20, seed=2)[:7]
    expected = q @ found.codec.keys[2].axes.basis[head // 2]
    torch.testing.assert_close(subject.queries(q, 2, head), expected)
