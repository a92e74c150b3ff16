"""Text into windows: consecutive ones predict every token once, random ones are seeded."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rotcheck.errors import RotcheckError
from rotcheck.models import text as module
from rotcheck.models.text import read_text, token_windows


def numbers(text, **options):
    """A tokenizer: each word is a number."""
    assert options == {"add_special_tokens": False, "verbose": False}
    return {"input_ids": [int(word) for word in text.split()]}


def counted(n):
    return " ".join(map(str, range(n)))


@settings(deadline=None, max_examples=40)
@given(n=st.integers(2, 200), context=st.integers(2, 20), batch=st.integers(1, 9))
def test_consecutive_windows_predict_every_token_but_the_first_once(n, context, batch):
    if n < context:
        return
    found = token_windows(numbers, counted(n), context=context, batch=batch)
    rows = torch.cat(found)
    predicted = rows[:, 1:].flatten().tolist()
    assert predicted == list(range(1, len(predicted) + 1))
    assert n - 1 - len(predicted) < context - 1
    assert (rows[1:, 0] == rows[:-1, -1]).all()
    assert all(len(part) == batch for part in found[:-1])
    assert rows.dtype is torch.long


@settings(deadline=None, max_examples=30)
@given(n=st.integers(10, 200), context=st.integers(2, 9), windows=st.integers(1, 12), seed=st.integers(0, 2**31))
def test_random_windows_are_runs_of_the_text(n, context, windows, seed):
    rows = torch.cat(token_windows(numbers, counted(n), context=context, windows=windows, seed=seed))
    assert rows.shape == (windows, context)
    assert (rows.diff(dim=1) == 1).all()
    assert 0 <= rows.min() <= rows.max() < n
    again = torch.cat(token_windows(numbers, counted(n), context=context, windows=windows, seed=seed))
    assert torch.equal(rows, again)


def test_another_seed_draws_other_windows():
    first, second = (torch.cat(token_windows(numbers, counted(500), context=8, windows=9, seed=s)) for s in (0, 1))
    assert not torch.equal(first, second)


def test_the_global_generator_is_left_alone():
    before = torch.get_rng_state()
    token_windows(numbers, counted(50), context=5, seed=3)
    assert torch.equal(before, torch.get_rng_state())


def test_all_that_fit_or_as_many_as_asked():
    assert len(torch.cat(token_windows(numbers, counted(41), context=5))) == 10
    assert len(torch.cat(token_windows(numbers, counted(40), context=5))) == 9
    assert len(torch.cat(token_windows(numbers, counted(41), context=5, windows=3))) == 3
    assert len(torch.cat(token_windows(numbers, counted(41), context=5, seed=0))) == 10


def test_a_text_of_exactly_one_window():
    assert token_windows(numbers, counted(5), context=5)[0].tolist() == [[0, 1, 2, 3, 4]]
    assert token_windows(numbers, counted(5), context=5, windows=1, seed=2)[0].tolist() == [[0, 1, 2, 3, 4]]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"context": 1}, "a context of 1 tokens predicts nothing: use at least 2"),
        ({"context": 11}, "the text has 10 tokens, 1 windows of 11 need 11: give a longer text"),
        ({"context": 4, "windows": 4}, "the text has 10 tokens, 4 windows of 4 need 13: give a longer text"),
        (
            {"context": 11, "windows": 2, "seed": 0},
            "the text has 10 tokens, 2 windows of 11 need 21: give a longer text",
        ),
        ({"context": 4, "windows": 0}, "0 windows measure nothing: use at least 1, or leave it out for all that fit"),
        ({"context": 4, "windows": -1, "seed": 0}, "-1 windows measure nothing: use at least 1"),
    ],
)
def test_what_cannot_be_cut(options, said):
    with pytest.raises(RotcheckError) as caught:
        token_windows(numbers, counted(10), **options)
    assert str(caught.value).startswith(said)
    assert "\n" not in str(caught.value)


def test_a_blank_text_has_no_windows():
    with pytest.raises(RotcheckError, match=r"^the text is empty: give a text with words in it$"):
        token_windows(numbers, " \n\t ", context=4)


def test_reading_keeps_the_text(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("äöü\n = words = \n", encoding="utf-8")
    assert read_text(path) == "äöü\n = words = \n"
    assert read_text(str(path)) == read_text(path)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "no text file at "),
        (b"", "is empty: give a text with words in it"),
        (b" \n ", "is empty: give a text with words in it"),
        (b"good \xff bad", "is not UTF-8 text: invalid start byte at byte 5"),
    ],
)
def test_files_that_cannot_be_read(content, said, tmp_path):
    path = tmp_path / "text.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(RotcheckError) as caught:
        read_text(path)
    assert said in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_directory_is_no_text(tmp_path):
    with pytest.raises(RotcheckError, match=r"no text file at"):
        read_text(tmp_path)


def test_large_files_are_refused_before_they_are_read(tmp_path, monkeypatch):
    path = tmp_path / "text.txt"
    path.write_text("word " * 30)
    monkeypatch.setattr(module, "LARGEST_TEXT", 100)
    with pytest.raises(RotcheckError, match=r"has 150 bytes, at most 100 are read: cut it"):
        read_text(path)


def test_the_tokenizer_is_asked_once():
    calls = []
    tokenizer = SimpleNamespace(ask=lambda text, **options: calls.append(text) or numbers(text, **options))
    token_windows(tokenizer.ask, counted(300), context=4)
    assert calls == [counted(300)]
