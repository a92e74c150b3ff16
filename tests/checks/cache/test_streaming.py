"""streaming: however a cache is filled, the same comes back."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from transformers.cache_utils import DynamicCache, StaticCache

from rotcheck import CacheRotation
from rotcheck.checks.streaming import MOST
from rotcheck.defects import _spectral as planted
from rotcheck.spectral.cache import SpectralLayer

WAYS = (
    "token by token",
    "in pieces of 1, 3, 10",
    "one row at a time",
    "with rows reordered before the last token",
    "after 2 other tokens were cropped",
)


def filled(found, layer, **changes) -> CacheRotation:
    """The right cache with layers of another class."""
    return planted.subject(found, layer=layer, name="subject", **changes)


def changing(condition, factor: float = 2.0, part=slice(None)):
    """A layer whose decoded values are multiplied where ``condition(layer, keys given)`` holds."""

    class Changing(SpectralLayer):
        def update(self, key_states, value_states, *args, **kwargs):
            keys, values = super().update(key_states, value_states)
            if condition(self, key_states):
                values = values.clone()
                values[part] = values[part] * factor
            return keys, values

    return Changing


def test_the_right_cache_gives_back_the_same_bits(judge, right):
    verdict = judge("streaming", right)
    assert verdict.outcome.value == "passed"
    assert verdict.claim.error == 0.0
    assert verdict.allowed.value == MOST
    assert "a quarter of the vectors; rounding flips 20 * 2^8 * sqrt(20) u" in verdict.allowed.derivation
    assert verdict.place == ""


@pytest.mark.parametrize(
    ("condition", "way"),
    [
        (lambda layer, keys: keys.shape[2] == 1, WAYS[0]),
        (lambda layer, keys: keys.shape[2] == 10, WAYS[1]),
        (lambda layer, keys: keys.shape[0] == 1, WAYS[2]),
        (lambda layer, keys: getattr(layer, "reordered", False), WAYS[3]),
        (lambda layer, keys: getattr(layer, "cropped", False), WAYS[4]),
    ],
)
def test_each_way_is_tried_and_named(judge, found, condition, way):
    class Layer(changing(condition)):
        def reorder_cache(self, beam_idx):
            super().reorder_cache(beam_idx)
            self.reordered = True

        def crop(self, tokens_to_remove):
            super().crop(tokens_to_remove)
            self.cropped = True

    verdict = judge("streaming", filled(found, Layer))
    assert verdict.headline == (
        f"subject does not match what comes back when filled at once at layer 0 head 0 values, filled {way} "
        "(relative error 1.00e+00, allowed 2.50e-01); matches none of the same tokens one step late"
    )
    assert verdict.witness == f"keys and values of the model's 35 tokens, batch of 3, filled {way}"


def test_one_head_of_one_layer_is_not_lost_among_the_others(judge, found):
    built = []

    def layer(keys, values):
        built.append(None)
        wrong = len(built) % 3 == 0  # the last of three layers
        condition = lambda layer, given: wrong and given.shape[2] == 1  # noqa: E731
        return changing(condition, part=(slice(None), 1))(keys, values)

    verdict = judge("streaming", filled(found, layer))
    assert verdict.place == "layer 2 head 1 values, filled token by token"
    assert verdict.claim.error == 1.0


def test_one_token_is_not_lost_among_the_others(judge, found):
    class LastWrong(SpectralLayer):
        """Of tokens given one by one, the ninth is lost in all heads."""

        def update(self, key_states, value_states, *args, **kwargs):
            gone = key_states.shape[2] == 1 and self.get_seq_length() == 8
            return super().update(*(x * 0 if gone else x for x in (key_states, value_states)))

    verdict = judge("streaming", filled(found, LastWrong))
    assert verdict.place == "token 8 of row 0, filled token by token"


def test_what_happens_to_padding_is_no_matter(judge, found):
    padding = planted.tokens(0)["attention_mask"] == 0

    class PaddingWrong(SpectralLayer):
        def update(self, key_states, value_states, *args, **kwargs):
            start, length = self.get_seq_length(), key_states.shape[2]
            if length == 1 and len(key_states) == 3 and not getattr(self, "moved", False):
                here = padding[:, start : start + 1, None].unsqueeze(1)
                value_states = value_states.masked_fill(here, 5.0)
            return super().update(key_states, value_states)

        def reorder_cache(self, beam_idx):
            super().reorder_cache(beam_idx)
            self.moved = True

    assert judge("streaming", filled(found, PaddingWrong)).outcome.value == "passed"


@pytest.mark.parametrize(("share", "outcome"), [(0.01, "passed"), (0.6, "failed")])
def test_a_few_flipped_codes_are_rounding(judge, found, share, outcome):
    """Codes of a stranger's float32 flip at thresholds, here and there and never in the same place."""
    generator = torch.Generator().manual_seed(0)

    class Flipping(SpectralLayer):
        def update(self, key_states, value_states, *args, **kwargs):
            keys, values = super().update(key_states, value_states)
            flipped = torch.rand(values.shape[:3], generator=generator) < share
            return keys, values * (1 + 0.2 * flipped.unsqueeze(-1))

    assert judge("streaming", filled(found, Flipping)).outcome.value == outcome


def test_what_comes_back_late_is_named(judge, found):
    class Late(SpectralLayer):
        def update(self, key_states, value_states, *args, **kwargs):
            back = super().update(key_states, value_states)
            return back if key_states.shape[2] > 1 else tuple(x.roll(1, 2) for x in back)

    verdict = judge("streaming", filled(found, Late))
    assert verdict.matched == "the same tokens one step late"


def test_hints_say_what_to_look_at(judge, found):
    rows = judge("streaming", filled(found, changing(lambda layer, keys: len(keys) == 1)))
    assert "states[0]" in rows.hint
    steps = judge("streaming", filled(found, changing(lambda layer, keys: keys.shape[2] == 1)))
    assert "code every token by itself" in steps.hint

    class Prompt(SpectralLayer):
        def update(self, key_states, value_states, *args, **kwargs):
            fresh = not self.is_initialized
            back = super().update(key_states, value_states)
            return (key_states, value_states) if fresh else back

    prompt = judge("streaming", filled(found, Prompt))
    assert prompt.hint.startswith("a prompt at once comes back as it was given")


def test_a_way_that_raises_is_a_failure_of_its_own(judge, found):
    class NoSteps(SpectralLayer):
        def crop(self, tokens_to_remove):
            raise IndexError("block 3 of 2")

    verdict = judge("streaming", filled(found, NoSteps))
    assert verdict.headline == (
        "subject cannot be filled after 2 other tokens were cropped: crop of subject raised IndexError: block 3 of 2"
    )
    assert "crop" in verdict.hint


class Bare:
    """A cache of somebody who knows `update` alone."""

    def __init__(self, found) -> None:
        self.inner = found.cache(found.codec)

    def update(self, keys, values, layer):
        return self.inner.update(keys, values, layer)


def test_what_a_cache_does_not_offer_is_not_asked(judge, found):
    assert judge("streaming", planted.subject(found, cache=lambda: Bare(found))).outcome.value == "passed"


def test_a_layer_that_says_it_cannot_be_cropped_is_not_cropped(judge, found):
    class Uncroppable(SpectralLayer):
        is_croppable = False

        def crop(self, tokens_to_remove):
            raise RuntimeError("no")

    assert judge("streaming", filled(found, Uncroppable)).outcome.value == "passed"


@pytest.mark.parametrize(
    "make", [lambda config: DynamicCache(config=config), lambda config: StaticCache(config=config, max_cache_len=40)]
)
def test_plain_caches_stream(judge, found, make):
    subject = CacheRotation.from_hf(found.model, lambda: make(found.model.config), inputs=found.batch)
    assert judge("streaming", subject).outcome.value == "passed"


def test_behind_a_sliding_window(judge, strangers, sliding):
    verdict = judge("streaming", strangers.subject(sliding, planted.tokens(3)))
    assert verdict.outcome.value == "passed", str(verdict)


@pytest.mark.parametrize(("rows", "length"), [(1, 14), (1, 2), (2, 3), (3, 4), (2, 5), (7, 40)])
def test_batches_of_every_size(judge, right, rows, length):
    verdict = judge("streaming", replace(right, inputs=planted.tokens(6, rows=rows, length=length)))
    assert verdict.outcome.value == "passed", str(verdict)


@pytest.mark.parametrize(
    "answer", [None, lambda k, v: k, lambda k, v: (k[0], v[0]), lambda k, v: (k, v, k), lambda k, v: {"keys": k}]
)
def test_an_answer_that_is_no_pair_of_tensors_fails(judge, right, answer):
    class Odd:
        def update(self, keys, values, layer):
            return answer(keys, values) if answer else None

    verdict = judge("streaming", replace(right, cache=Odd, name="odd"))
    assert verdict.headline == (
        "odd cannot be run: update of odd at layer 0 does not answer with keys and values (batch, heads, tokens, width)"
    )


def test_other_heads_in_the_answer_fail(judge, found):
    class Repeated(SpectralLayer):
        def update(self, key_states, value_states, *args, **kwargs):
            keys, values = super().update(key_states, value_states)
            return (keys.repeat_interleave(2, 1), values) if key_states.shape[2] == 1 else (keys, values)

    verdict = judge("streaming", filled(found, Repeated))
    assert (verdict.outcome.value, verdict.place) == ("failed", "layer 0 head 0 keys, filled token by token")


def test_numbers_that_are_not_finite_fail(judge, found):
    verdict = judge("streaming", filled(found, changing(lambda layer, keys: True, factor=float("nan"))))
    assert verdict.outcome.value == "failed"


def test_tokens_that_are_all_alike_decide_nothing(judge, found):
    class Constant(SpectralLayer):
        def update(self, key_states, value_states, *args, **kwargs):
            return tuple(torch.ones_like(x) for x in super().update(key_states, value_states))

    verdict = judge("streaming", filled(found, Constant))
    assert verdict.outcome.value == "undecided"
    assert verdict.needs == "inputs of more than a few tokens that differ from one another"


@pytest.mark.parametrize(("dtype", "size", "outcome"), [("float32", 1e-3, "failed"), ("float64", 1e-3, "failed"),
                                                        ("float64", 1e-7, "passed"), ("bfloat16", 1e-3, "passed"),
                                                        ("bfloat16", 0.2, "failed")])  # fmt: skip
def test_what_counts_as_rounding_depends_on_the_dtype(
    judge, strangers, strangers_layer, make_model, dtype, size, outcome
):
    class Off(strangers_layer):
        def update(self, keys, values, *args, **kwargs):
            back, decoded = super().update(keys, values)
            return back, (decoded.double() * (1 + size * (values.shape[2] == 1))).to(values.dtype)

    model = make_model("llama", 5, getattr(torch, dtype))
    subject = replace(strangers.subject(model, planted.tokens(5)), cache=strangers.cache(8, Off))
    assert judge("streaming", subject).outcome.value == outcome


def test_it_needs_a_cache(judge, right):
    assert judge("streaming", CacheRotation(right.heads, name="s")).headline == "s does not supply cache"
