"""Perplexity is over tokens, window by window, in float32 at least."""

from __future__ import annotations

import math
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rotcheck.errors import RotcheckError
from rotcheck.measures.perplexity import Perplexity, perplexity

VOCABULARY = 17


def table_model(seed, scale=1.0, dtype=torch.float64):
    """Logits that depend on the last token only: a bigram table."""
    generator = torch.Generator().manual_seed(seed)
    table = (scale * torch.randn(VOCABULARY, VOCABULARY, generator=generator, dtype=torch.float64)).to(dtype)
    return lambda ids: table[ids]


@settings(deadline=None, max_examples=20)
@given(
    seed=st.integers(0, 2**31), shapes=st.lists(st.tuples(st.integers(1, 4), st.integers(2, 9)), min_size=1, max_size=4)
)
def test_against_the_definition(seed, shapes):
    generator = torch.Generator().manual_seed(seed)
    windows = [torch.randint(VOCABULARY, shape, generator=generator) for shape in shapes]
    model = table_model(seed)
    total = count = 0.0
    for batch in windows:
        for row in batch.tolist():
            for now, following in pairwise(row):
                logits = model(torch.tensor([now]))[0]
                total -= (logits[following] - torch.logsumexp(logits, 0)).item()
                count += 1
    found = perplexity(model, windows)
    assert found.perplexity == pytest.approx(math.exp(total / count), rel=1e-12)
    assert found.tokens.tolist() == [length - 1 for rows, length in shapes for _ in range(rows)]


def test_uniform_logits_give_the_size_of_the_vocabulary():
    windows = [torch.randint(VOCABULARY, (3, 8), generator=torch.Generator().manual_seed(0))]
    assert perplexity(lambda ids: torch.zeros(*ids.shape, VOCABULARY), windows).perplexity == pytest.approx(VOCABULARY)


def test_a_model_that_knows_the_text_has_perplexity_one():
    ids = torch.arange(8).unsqueeze(0)
    model = lambda batch: 1e4 * torch.nn.functional.one_hot((batch + 1) % VOCABULARY, VOCABULARY).double()  # noqa: E731
    assert perplexity(model, [ids]).perplexity == 1.0


def test_windows_of_unlike_length_are_weighted_by_tokens():
    measured = Perplexity(losses=np.array([2.0, 30.0]), tokens=np.array([1, 9]))
    assert measured.perplexity == pytest.approx(math.exp(3.2))
    assert measured.perplexity != pytest.approx(math.exp((2 + 30 / 9) / 2))


def test_the_first_token_is_not_scored():
    model = table_model(3)
    first, second = torch.tensor([[4, 5, 6]]), torch.tensor([[5, 6]])
    whole, tail = perplexity(model, [first]), perplexity(model, [second])
    assert whole.tokens.tolist() == [2]
    start = model(torch.tensor([4]))[0]
    assert (whole.losses - tail.losses).item() == pytest.approx((torch.logsumexp(start, 0) - start[5]).item())


def test_answers_with_logits_are_read():
    model = table_model(1)
    windows = [torch.arange(10).view(2, 5)]
    wrapped = perplexity(lambda ids: SimpleNamespace(logits=model(ids)), windows)
    assert wrapped.perplexity == perplexity(model, windows).perplexity


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_logits_are_widened(dtype):
    """In 16 bits the sum of the exponentials alone is wrong by a percent."""
    coarse = table_model(5, dtype=dtype)
    windows = [torch.randint(VOCABULARY, (4, 30), generator=torch.Generator().manual_seed(1))]
    exact = perplexity(lambda ids: coarse(ids).double(), windows).perplexity
    assert perplexity(coarse, windows).perplexity == pytest.approx(exact, rel=1e-5)


def test_float64_logits_are_not_narrowed():
    model = table_model(5)
    windows = [torch.randint(VOCABULARY, (4, 30), generator=torch.Generator().manual_seed(1))]
    moved = perplexity(lambda ids: model(ids) * (1 + 1e-11), windows).perplexity
    assert 0 < abs(moved / perplexity(model, windows).perplexity - 1) < 1e-9


def test_no_windows():
    with pytest.raises(RotcheckError, match=r"^perplexity of no windows: give at least one batch of token ids$"):
        perplexity(table_model(0), [])


def test_a_loss_that_is_not_finite_is_named_by_its_window():
    model = table_model(0)

    def spoiled(ids):
        logits = model(ids).clone()
        logits[ids == 16] = float("nan")
        return logits

    windows = [torch.zeros(2, 4, dtype=torch.long), torch.tensor([[1, 2, 3, 4], [1, 16, 2, 3]])]
    with pytest.raises(RotcheckError, match=r"^window 3 has a loss that is not finite$"):
        perplexity(spoiled, windows)


def test_a_loss_beyond_the_range_of_a_float_is_infinite():
    ids = torch.zeros(1, 5, dtype=torch.long)
    logits = torch.tensor([0.0, 2000.0], dtype=torch.float64)
    measured = perplexity(lambda batch: logits.expand(*batch.shape, 2), [ids])
    assert measured.losses[0] == pytest.approx(8000)
    assert measured.perplexity == math.inf


def test_no_gradient_is_kept_and_progress_sees_every_batch():
    weight = torch.nn.Parameter(torch.zeros(VOCABULARY, VOCABULARY))
    seen = []

    def progress(windows):
        for window in windows:
            seen.append(tuple(window.shape))
            yield window

    measured = perplexity(
        lambda ids: weight[ids], [torch.zeros(2, 3).long(), torch.zeros(1, 4).long()], progress=progress
    )
    assert seen == [(2, 3), (1, 4)]
    assert weight.grad is None
    assert isinstance(measured.losses, np.ndarray)


def test_repr_says_what_was_measured():
    measured = Perplexity(losses=np.array([math.log(4.0) * 6]), tokens=np.array([6]))
    assert repr(measured) == "Perplexity(4.000, 1 windows, 6 tokens)"
