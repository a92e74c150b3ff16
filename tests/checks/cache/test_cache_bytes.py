"""cache_bytes: what a token takes, counted from what the cache holds."""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass, replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers.cache_utils import DynamicCache, StaticCache

from rotcheck import CacheRotation
from rotcheck.checks.cache_bytes import held_bytes
from rotcheck.defects import _spectral as planted
from rotcheck.spectral import Settings
from rotcheck.spectral.cache import SpectralLayer


def test_our_own_cache_takes_what_it_says(judge, right):
    verdict = judge("cache_bytes", right)
    assert verdict.headline == "planted takes per token 96 bytes"
    assert verdict.witness == "7, 10, 14 tokens, batch of 3"
    assert dict(verdict.facts) == {"bytes per token held": 96.0, "bytes per token declared": 96.0}


@pytest.mark.parametrize(
    "settings",
    [
        Settings(bits=2.0, codebook="gaussian"),
        Settings(bits=3.0, normalize=True, codebook="gaussian"),
        Settings(allocation="4/2", codebook="minmax"),
        Settings(bits=3.0, sketch=16, codebook="gaussian"),
    ],
    ids=str,
)
def test_all_side_information_of_our_own_cache_is_counted(judge, settings):
    found = planted.bench(0, settings=settings)
    assert judge("cache_bytes", planted.subject(found)).outcome.value == "passed"
    assert judge(
        "cache_bytes", planted.subject(found, bytes_per_token=found.codec.bytes_per_token - 1)
    ).outcome.value == ("failed")


@pytest.mark.parametrize(("declared", "outcome"), [(95, "failed"), (96, "passed"), (97, "failed"), (960, "failed")])
def test_every_byte_counts(judge, right, declared, outcome):
    verdict = judge("cache_bytes", replace(right, bytes_per_token=declared))
    assert verdict.outcome.value == outcome
    if outcome == "failed":
        assert verdict.headline == f"planted takes per token 96 bytes, declared {declared} bytes"


def test_a_cache_without_compression_is_named(judge, found):
    subject = CacheRotation.from_hf(
        found.model, lambda: DynamicCache(config=found.model.config), inputs=found.batch, bytes_per_token=96
    )
    assert judge("cache_bytes", subject).matched == "960 bytes, what an uncompressed cache takes"
    assert judge("cache_bytes", replace(subject, bytes_per_token=960)).outcome.value == "passed"


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_an_uncompressed_cache_takes_what_the_dtype_takes(judge, make_model, dtype):
    model = make_model("llama", 1, dtype)
    size = 3 * 2 * 2 * 20 * dtype.itemsize
    make = lambda: DynamicCache(config=model.config)  # noqa: E731
    subject = CacheRotation.from_hf(model, make, inputs=planted.tokens(1), bytes_per_token=size)
    assert judge("cache_bytes", subject).outcome.value == "passed"


def keeping(found, keep, **changes) -> CacheRotation:
    """The right cache that also keeps ``keep(what it holds, key states)``."""

    class Keeping(SpectralLayer):
        held = None

        def update(self, key_states, value_states, *args, **kwargs):
            self.held = keep(self.held, key_states)
            return super().update(key_states, value_states)

    return planted.subject(found, layer=Keeping, name="subject", **changes)


@dataclass(slots=True)
class Slotted:
    values: torch.Tensor


@pytest.mark.parametrize(
    ("keep", "more"),
    [
        (lambda held, x: x.clone(), 480),
        (lambda held, x: [*(held or []), x.half()], 240),
        (lambda held, x: {"norms": x.norm(dim=-1)}, 24),
        (lambda held, x: (x[..., :1].double().numpy().copy(),), 48),
        (lambda held, x: Slotted(x.norm(dim=-1)), 24),
        (lambda held, x: SimpleNamespace(deep=[{"a": (x.norm(dim=-1),)}]), 24),
        (lambda held, x: {x.norm(dim=-1)}, 24),
        (lambda held, x: x.norm(dim=-1)[:, :, :1], 24),  # a view keeps all of it
        (lambda held, x: torch.zeros(1000), 0),  # a table does not grow
        (lambda held, x: held, 0),
    ],
)
def test_what_is_kept_beside_the_codes_is_found(judge, found, keep, more):
    verdict = judge("cache_bytes", keeping(found, keep))
    assert dict(verdict.facts)["bytes per token held"] == 96 + more
    assert verdict.outcome.value == ("failed" if more else "passed")


def test_a_model_that_the_cache_refers_to_is_not_its_own(judge, found):
    assert judge("cache_bytes", keeping(found, lambda held, x: found.model)).outcome.value == "passed"


def test_memory_that_is_taken_ahead_decides_nothing(judge, found):
    subject = CacheRotation.from_hf(
        found.model, lambda: StaticCache(config=found.model.config, max_cache_len=40), inputs=found.batch,
        bytes_per_token=96, name="s",
    )  # fmt: skip
    verdict = judge("cache_bytes", subject)
    assert verdict.outcome.value == "undecided"
    assert verdict.headline.endswith("bytes are held for 7, 10, 14 tokens: memory is taken ahead, not by the token")
    assert "leave bytes_per_token out" in verdict.needs


def test_memory_that_grows_in_steps_decides_nothing(judge, found):
    def in_blocks(held, x):
        return torch.zeros(*x.shape[:2], 8 * -(-x.shape[2] // 8), dtype=torch.uint8)

    assert judge("cache_bytes", keeping(found, in_blocks)).outcome.value == "undecided"


@pytest.mark.parametrize(("length", "outcome"), [(2, "undecided"), (3, "passed"), (5, "passed")])
def test_a_few_tokens_are_enough(judge, right, length, outcome):
    verdict = judge("cache_bytes", replace(right, inputs=planted.tokens(1, rows=2, length=length, padded=False)))
    assert verdict.outcome.value == outcome
    if outcome == "undecided":
        assert verdict.headline == f"planted: {length} tokens do not show what one takes"


def test_behind_a_sliding_window_only_what_it_keeps_is_weighed(judge, sliding):
    size = 3 * 2 * 2 * 20 * 4
    make = lambda: DynamicCache(config=sliding.config)  # noqa: E731
    subject = CacheRotation.from_hf(sliding, make, inputs=planted.tokens(3), bytes_per_token=size)
    verdict = judge("cache_bytes", subject)
    assert verdict.outcome.value == "passed", str(verdict)
    assert verdict.witness == "3, 5, 7 tokens, batch of 3"


def test_it_needs_what_is_declared(judge, right):
    assert (
        judge("cache_bytes", replace(right, bytes_per_token=None)).headline == "planted does not supply bytes_per_token"
    )


@given(sizes=st.lists(st.integers(0, 40), max_size=6), seed=st.integers(0, 2**31))
def test_distinct_storages_are_summed_once(sizes, seed):
    tensors = [torch.zeros(n, dtype=torch.float32) for n in sizes]
    arrays = [np.zeros(n, dtype=np.int16) for n in sizes]
    order = torch.randperm(len(sizes), generator=torch.Generator().manual_seed(seed)).tolist()
    holder = SimpleNamespace(
        a=tensors, b=tuple(tensors[i] for i in order), c={"x": arrays, "y": [array[::2] for array in arrays]},
        d=[tensor.view(-1)[: len(tensor) // 2] for tensor in tensors],
    )  # fmt: skip
    holder.itself = holder
    assert held_bytes(holder) == 6 * sum(sizes)


def test_what_cannot_be_looked_into_counts_nothing():
    holder = SimpleNamespace(a=None, b="text", c=3.5, d=torch.nn.Linear(3, 4), e=int, f=lambda: torch.ones(9))
    assert held_bytes(holder) == 0


def test_mappings_of_every_kind_are_looked_into():
    holder = SimpleNamespace(a=OrderedDict(x=torch.zeros(5, dtype=torch.uint8)), b=frozenset({torch.zeros(2)}))
    assert held_bytes(holder) == 13
    assert held_bytes(SimpleNamespace(a=deque([torch.zeros(3)]))) == 12
