"""Putting other people's caches under test: by lookup, with numpy, and as a transformers cache."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.cache_utils import Cache, DynamicCache

from rotcheck import CacheRotation, Rotation, RotcheckError, verify
from rotcheck.bases import haar
from rotcheck.errors import SubjectError
from rotcheck.registry import choose
from rotcheck.spectral import Settings, SpectralCache
from rotcheck.subjects.cache import Head
from rotcheck.subjects.spectral import spectral_cache

WIDTH = 12


class Table:
    """A class that looks bases up by layer and head, as people write it."""

    def __init__(self, layers: int = 3, heads: int = 2) -> None:
        self.bases = {(i, j): haar(WIDTH, seed=10 * i + j) for i in range(layers) for j in range(heads)}

    def rotate(self, x, layer, head):
        return x @ self.bases[layer, head]

    def transposed(self, x, layer, head):
        return x @ self.bases[layer, head].T

    def unrotate(self, y, layer, head):
        return y @ self.bases[layer, head].T

    def next_head(self, x, layer, head):
        return x @ self.bases[layer, 1 - head]

    def layer_before(self, x, layer, head):
        return x @ self.bases[max(layer - 1, 0), head]


@pytest.fixture(scope="module")
def table():
    return Table()


def test_a_lookup_that_is_right(judge, table):
    subject = CacheRotation.from_lookup(table.rotate, table.bases, unrotate=table.unrotate)
    for check in ("orthogonality", "isometry", "side", "determinism", "round_trip"):
        verdict = judge(check, subject)
        assert verdict.outcome.value == "passed", str(verdict)
        assert verdict.facts[-2:] == (("heads", 6.0), ("heads passed", 6.0))


@pytest.mark.parametrize(
    ("method", "matched", "place", "alike"),
    [
        ("transposed", "x @ basis.T", "layer 0 head 0 keys", 6),
        ("next_head", "x in the basis of layer 0 head 1 keys", "layer 0 head 0 keys", 6),
        ("layer_before", "x in the basis of layer 0 head 0 keys", "layer 1 head 0 keys", 4),
    ],
)
def test_a_lookup_that_is_wrong_is_named(judge, table, method, matched, place, alike):
    verdict = judge("side", CacheRotation.from_lookup(getattr(table, method), table.bases))
    assert (verdict.matched, verdict.place) == (matched, place)
    assert verdict.headline == f"cache of 6 rotations computes {matched} at {place}, declared x @ basis"
    assert verdict.facts[-1] == ("heads failed", float(alike))


def test_an_inverse_with_the_same_mistake_is_found(judge, table):
    wrong = CacheRotation.from_lookup(table.rotate, table.bases, unrotate=table.rotate)
    assert judge("round_trip", wrong).matched == "rotate(rotate(x))"
    assert judge("round_trip", CacheRotation.from_lookup(table.rotate, table.bases)).outcome.value == "not applicable"


def test_the_kind_is_handed_over_where_keys_name_it(judge):
    bases = {(0, 0, kind): haar(WIDTH, seed=i) for i, kind in enumerate(("keys", "values"))}
    seen = []

    def rotate(x, layer, head, kind):
        seen.append((layer, head, kind))
        return x @ bases[layer, head, kind]

    assert judge("side", CacheRotation.from_lookup(rotate, bases)).outcome.value == "passed"
    assert set(seen) == set(bases)


def test_keys_for_values_are_named(judge):
    bases = {(0, 0, kind): haar(WIDTH, seed=i) for i, kind in enumerate(("keys", "values"))}
    subject = CacheRotation.from_lookup(lambda x, layer, head, kind: x @ bases[layer, head, "keys"], bases)
    verdict = judge("side", subject)
    assert verdict.matched == "x in the basis of layer 0 head 0 keys"
    assert verdict.place == "layer 0 head 0 values"


@settings(max_examples=10)
@given(seed=st.integers(0, 2**31), layers=st.integers(1, 3), heads=st.integers(1, 3), dtype=st.sampled_from("fd"))
def test_numpy_functions_get_numpy_arrays(seed, layers, heads, dtype):
    bases = {
        (i, j): haar(WIDTH, seed=seed + 7 * i + j).numpy().astype(dtype) for i in range(layers) for j in range(heads)
    }

    def rotate(x, layer, head):
        assert isinstance(x, np.ndarray)
        assert x.dtype == np.dtype(dtype)
        return np.einsum("nd,de->ne", x, bases[layer, head])

    subject = CacheRotation.from_lookup(rotate, bases)
    report = verify(subject, select=["side", "orthogonality"])
    assert report.exit_code == 0, str(next(iter(report)))
    wrong = CacheRotation.from_lookup(lambda x, layer, head: x @ bases[layer, head].T, bases)
    assert verify(wrong, select=["side"]).exit_code == 1


def test_more_can_be_declared_of_single_heads(judge, table):
    covariance = {key: (u * torch.logspace(0, -2, WIDTH).double()) @ u.T for key, u in table.bases.items()}
    declared = {key: {"covariance": c} for key, c in covariance.items() if key[0] == 1}
    right = CacheRotation.from_lookup(table.rotate, table.bases, declared=declared)
    verdict = judge("energy_order", right)
    assert verdict.outcome.value == "passed"
    assert verdict.facts[-2:] == (("heads", 6.0), ("heads passed", 2.0))
    wrong = CacheRotation.from_lookup(table.transposed, table.bases, declared=declared)
    assert judge("energy_order", wrong).place == "layer 1 head 0 keys"


def test_a_mean_of_a_single_head(judge, table):
    mean = torch.arange(WIDTH, dtype=torch.float64)
    declared = {(0, 1): {"mean": mean}}

    def rotate(x, layer, head):
        return table.rotate(x - mean if (layer, head) == (0, 1) else x, layer, head)

    assert judge("side", CacheRotation.from_lookup(rotate, table.bases, declared=declared)).outcome.value == "passed"
    verdict = judge("side", CacheRotation.from_lookup(table.rotate, table.bases, declared=declared))
    assert (verdict.outcome.value, verdict.place) == ("failed", "layer 0 head 1 keys")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bases": {3: haar(4, seed=0)}}, r"a head is \(layer, head, 'keys' or 'values'\), not 3"),
        ({"bases": {(0, "1"): haar(4, seed=0)}}, r"numbers from 0, not \(0, '1'\)"),
        (
            {"bases": {(0, 1): haar(4, seed=0)}, "declared": {(1, 1): {}}},
            r"declared=...\) names \(1, 1\), which has no",
        ),
        ({"bases": {(0, 1): torch.ones(3, 4)}}, r"basis has shape \(3, 4\)"),
        ({"bases": {}}, "needs heads="),
        ({"bases": {(0, 1): haar(4, seed=0)}, "declared": {(0, 1): {"mean": torch.ones(3)}}}, "mean has shape"),
    ],
)
def test_a_wrong_lookup_is_refused(options, message):
    with pytest.raises(RotcheckError, match=message):
        CacheRotation.from_lookup(lambda x, layer, head: x, **options)


def test_a_lookup_that_raises_is_named_with_its_place(judge, table):
    def rotate(x, layer, head):
        return x @ {(0, 0): table.bases[0, 0]}[layer, head]

    verdict = judge("side", CacheRotation.from_lookup(rotate, table.bases))
    assert verdict.headline.startswith("cache of 6 rotations at layer 0 head 1 keys cannot be run: ")
    assert "KeyError" in verdict.headline


def test_our_cache_declares_itself(outcomes, found, judge):
    subject = CacheRotation.from_hf(
        found.model, lambda: SpectralCache(found.codec, found.model.config), inputs=found.batch
    )
    assert str(subject) == "SpectralCache"
    assert len(subject.heads) == 12
    assert subject.bytes_per_token == found.codec.bytes_per_token
    assert set(outcomes(subject).values()) == {"passed"}
    assert {
        "side",
        "round_trip",
        "coverage",
        "lossless_cache",
        "streaming",
        "scores",
        "cache_used",
        "cache_bytes",
    } <= set(outcomes(subject))


def test_what_is_declared_beside_it_replaces_what_the_cache_says(judge, found):
    make = lambda: SpectralCache(found.codec, found.model.config)  # noqa: E731
    subject = CacheRotation.from_hf(found.model, make, inputs=found.batch, bytes_per_token=1, name="mine", heads={})
    assert (str(subject), subject.bytes_per_token, subject.parts) == ("mine", 1, {})
    assert judge("cache_bytes", subject).outcome.value == "failed"
    assert judge("side", subject).headline == "mine does not supply heads"


def test_a_strangers_cache(outcomes, strangers, found):
    subject = strangers.subject(found.model, found.batch)
    assert str(subject) == "Cache"
    said = outcomes(subject)
    assert set(said.values()) == {"passed"}, said
    assert {"lossless_cache", "streaming", "cache_used", "coverage", "cache_reload", "side"} <= set(said)


def test_without_declarations_a_strangers_cache_is_judged_by_what_it_does(outcomes, strangers, found):
    said = outcomes(CacheRotation.from_hf(found.model, strangers.cache(8), inputs=found.batch))
    assert said == {"streaming": "passed", "cache_used": "passed"}


@pytest.mark.parametrize("cache", [DynamicCache(), Cache(layers=[]), "a cache", None])
def test_one_cache_for_all_runs_is_refused(found, cache):
    with pytest.raises(RotcheckError, match=r"from_hf\(cache=\w+\) is one cache: pass lambda: MyCache"):
        CacheRotation.from_hf(found.model, cache, inputs=found.batch)


def test_a_cache_that_cannot_be_made_is_named(found):
    with pytest.raises(SubjectError, match="cache raised ZeroDivisionError"):
        CacheRotation.from_hf(found.model, lambda: 1 / 0, inputs=found.batch)


def test_every_check_of_rotations_runs_on_heads():
    names = {check.name for check in choose("CacheRotation") if check.each}
    assert {"orthogonality", "isometry", "side", "energy_order", "determinism", "round_trip"} <= names
    assert all(check.each == ("CacheRotation",) for check in choose("CacheRotation") if check.each)


@pytest.mark.parametrize("bits", [1.0, 3.0])
def test_our_cache_has_a_coarser_one_unless_it_is_the_coarsest(found, bits):
    subject = spectral_cache(
        found.model, found.calibration, Settings(bits=bits, codebook="gaussian"), inputs=found.batch
    )
    assert (subject.coarse is None) == (bits == 1.0)
    assert str(subject) == f"spectral cache, spectral water-filling {bits:g} bits, gaussian"
    assert str(spectral_cache(found.model, found.calibration, Settings(), inputs=found.batch, name="n")) == "n"


def test_heads_may_be_rotations_of_any_kind(judge):
    bases = [haar(WIDTH, seed=i) for i in range(2)]
    seen = []

    class Engine:
        def compress(self, x):
            self.quantise(x @ bases[0].T)

        def quantise(self, y):
            seen.append(y)

    engine = Engine()
    heads = {
        Head(0, 0, "keys"): Rotation.from_tap(engine.compress, engine, "quantise", basis=bases[0]),
        Head(0, 1, "keys"): Rotation(lambda x: x @ bases[1], basis=bases[1]),
    }
    verdict = judge("side", CacheRotation(heads))
    assert (verdict.matched, verdict.place) == ("x @ basis.T", "layer 0 head 0 keys")
    assert verdict.facts[-1] == ("heads failed", 1.0)
