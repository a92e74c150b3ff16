"""lossless_cache: rotating there and back leaves the logits alone, and mistakes on the way are named."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.cache_utils import DynamicCache

from rotcheck import CacheRotation, Rotation
from rotcheck.bases import haar
from rotcheck.checks._caches import short, stored_by
from rotcheck.checks._mistaken import mistaken_cache
from rotcheck.checks._mistakes import NAMED, NEEDED, turns
from rotcheck.defects import _spectral as planted
from rotcheck.spectral.cache import SpectralLayer
from rotcheck.subjects.cache import Head

MISTAKES = (*NEEDED, *NAMED)
TWINS = {"un-rotated by the basis of the head before": "un-rotated by the basis of the next head"}
"""With two heads the one before is the next one."""


def with_lossless(right, made) -> CacheRotation:
    return replace(right, lossless=made, name="subject")


def test_our_own_cache_passes_and_both_needed_rivals_are_told_apart(judge, right):
    verdict = judge("lossless_cache", right)
    assert verdict.outcome.value == "passed", str(verdict)
    assert [rival.name for rival in verdict.rivals] == [mistake.name for mistake in NEEDED]
    assert verdict.power > 1e3
    assert verdict.witness == "35 tokens, 4 of each row decoded one at a time"
    assert verdict.place == ""


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.name.replace(" ", "-"))
def test_every_mistake_is_named(judge, right, mistake):
    stored = stored_by(right, short(right.batches[0]))
    (_, made), *_ = turns(right, stored, (mistake,))
    verdict = judge("lossless_cache", with_lossless(right, lambda: mistaken_cache(right.model.config, made)))
    assert verdict.outcome.value == "failed"
    expected = mistake.name
    for long, shorter in TWINS.items():
        expected = expected.replace(long, shorter)
    assert verdict.matched == expected
    assert verdict.headline.startswith(f"subject without loss gives {expected} at layer 0 head 0 ")
    assert verdict.headline.endswith(", declared the logits of a plain cache")


@settings(max_examples=3)
@given(seed=st.integers(0, 2**31))
def test_an_unknown_matrix_fails_and_nothing_is_named(judge, right, seed):
    turn = haar(20, seed=seed)

    class Turned(SpectralLayer):
        def update(self, keys, values, *args, **kwargs):
            back, decoded = super().update(keys, values)
            return back, (decoded.double() @ turn).to(values.dtype)

    found = planted.bench(0)
    verdict = judge("lossless_cache", with_lossless(right, lambda: found.cache(found.codec.lossless(), Turned)))
    assert (verdict.outcome.value, verdict.matched) == ("failed", "")
    assert verdict.place == "layer 0 head 0 values"
    assert len(verdict.rivals) == len(NEEDED)  # the many others are not listed where none of them fits


def test_only_the_last_layer_is_wrong(judge, found, right):
    class Twice(type(found.codec.values[0])):
        def unrotate(self, y):
            return super().unrotate(y) * 2

    wrong = found.codec.lossless()
    wrong = replace(wrong, values=(*wrong.values[:-1], Twice(axes=wrong.values[-1].axes, codec=None)))
    verdict = judge("lossless_cache", with_lossless(right, lambda: found.cache(wrong)))
    assert (verdict.outcome.value, verdict.place) == ("failed", "layer 2 head 0 values")


def test_what_cancels_is_not_seen(judge, found):
    transposed = planted.with_paths(
        found.codec, keys=lambda path: planted.with_bases(path, lambda basis: basis.mT),
        values=lambda path: planted.with_bases(path, lambda basis: basis.mT),
    )  # fmt: skip
    assert judge("lossless_cache", planted.subject(found, transposed)).outcome.value == "passed"


def test_a_constant_on_all_keys_is_not_seen_and_one_on_values_is(judge, found, right):
    def cache(which):
        class Shifted(SpectralLayer):
            def update(self, keys, values, *args, **kwargs):
                back = list(super().update(keys, values))
                back[which] = back[which] + 1
                return tuple(back)

        return lambda: found.cache(found.codec.lossless(), Shifted)

    assert judge("lossless_cache", with_lossless(right, cache(0))).outcome.value == "passed"
    assert judge("lossless_cache", with_lossless(right, cache(1))).outcome.value == "failed"


def test_a_mistake_in_single_tokens_alone_is_seen(judge, found, right):
    class StepsDoubled(SpectralLayer):
        def update(self, keys, values, *args, **kwargs):
            return super().update(keys, values * 2 if values.shape[2] == 1 else values)

    verdict = judge("lossless_cache", with_lossless(right, lambda: found.cache(found.codec.lossless(), StepsDoubled)))
    assert (verdict.outcome.value, verdict.place) == ("failed", "layer 0 head 0 values")


def test_every_batch_is_judged(judge, found, right):
    inputs = [planted.tokens(1, rows=2, padded=False), planted.tokens(2, rows=4)]

    class FourRows(SpectralLayer):
        def update(self, keys, values, *args, **kwargs):
            back, decoded = super().update(keys, values)
            return back, decoded * 2 if len(values) == 4 else decoded

    subject = replace(right, inputs=inputs)
    assert judge("lossless_cache", subject).outcome.value == "passed"
    subject = replace(subject, lossless=lambda: found.cache(found.codec.lossless(), FourRows))
    assert judge("lossless_cache", subject).outcome.value == "failed"


@pytest.mark.parametrize(("rows", "length"), [(1, 2), (1, 14), (2, 3), (5, 30)])
def test_batches_of_every_size(judge, right, rows, length):
    verdict = judge("lossless_cache", replace(right, inputs=planted.tokens(4, rows=rows, length=length)))
    assert verdict.outcome.value == "passed", str(verdict)


def test_partial_rotary(judge, partial):
    verdict = judge("lossless_cache", planted.right_partial(0))
    assert verdict.outcome.value == "passed", str(verdict)
    assert verdict.power > 1e3


def test_sliding_windows(judge, strangers, sliding):
    verdict = judge("lossless_cache", strangers.subject(sliding, planted.tokens(3)))
    assert verdict.outcome.value == "passed", str(verdict)
    assert len(verdict.rivals) == len(NEEDED)


def test_a_rotation_that_is_the_identity_has_nothing_to_be_told_from(judge, strangers, found):
    eye = torch.eye(20)
    heads = {place: Rotation(lambda x: x, basis=eye) for place in strangers.heads()}
    plain = lambda: DynamicCache(config=found.model.config)  # noqa: E731
    verdict = judge("lossless_cache", strangers.subject(found.model, found.batch, heads=heads, lossless=plain))
    assert (verdict.outcome.value, verdict.rivals) == ("passed", ())


def test_one_basis_for_all_heads_is_no_mistake(judge, strangers, found):
    assert judge("lossless_cache", strangers.subject(found.model, found.batch)).outcome.value == "passed"


def test_a_model_that_ignores_its_values_cannot_tell(judge, strangers, found):
    model = copy.deepcopy(found.model)
    for layer in model.model.layers:
        layer.self_attn.o_proj.weight.data.zero_()
    verdict = judge("lossless_cache", strangers.subject(model, found.batch))
    assert verdict.outcome.value == "undecided"
    assert "cannot tell the logits of a plain cache from values that are still rotated" in verdict.headline
    assert verdict.needs == "a model whose logits depend on its keys and values"


@pytest.mark.parametrize(
    "heads",
    [
        {},
        {Head(0, 0, "keys"): Rotation(lambda x: x, basis=torch.eye(20))},
        {Head(0, head, "keys"): Rotation(lambda x: x, basis=haar(11, seed=0)) for head in range(2)},
        {Head(0, head, "keys"): Rotation(lambda x: x, covariance=torch.eye(20)) for head in range(2)},
        {Head(0, head, "keys"): Rotation(lambda x: x, basis=haar(20, seed=0)) for head in range(4)},
    ],
)
def test_without_the_bases_of_all_heads_of_a_layer_there_are_no_rivals(judge, right, heads):
    verdict = judge("lossless_cache", replace(right, heads=heads, queries=None, query_heads=None))
    assert (verdict.outcome.value, verdict.rivals) == ("passed", ())


def test_a_declared_transposition_is_followed(judge, strangers, found):
    """The same matrices, declared as ``x @ basis.T``, give the same rivals."""
    from rotcheck import Convention

    heads = {
        place: Rotation(part.rotate, basis=part.basis.T.contiguous(), convention=Convention(claim="x @ basis.T"))
        for place, part in strangers.heads().items()
    }
    one = judge("lossless_cache", strangers.subject(found.model, found.batch))
    two = judge("lossless_cache", strangers.subject(found.model, found.batch, heads=heads))
    assert [rival.separation for rival in one.rivals] == pytest.approx([rival.separation for rival in two.rivals])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_rotating_in_float32_is_no_loss_and_storing_in_bfloat16_is(
    judge, strangers, strangers_layer, make_model, dtype
):
    class Rounded(strangers_layer):
        def coded(self, x, basis):
            return super().coded(x, basis).bfloat16().float()

    model = make_model("llama", 5, dtype)
    right = strangers.subject(model, planted.tokens(5))
    verdict = judge("lossless_cache", right)
    assert verdict.outcome.value == "passed", str(verdict)
    wrong = judge("lossless_cache", replace(right, lossless=strangers.cache(None, Rounded)))
    assert wrong.outcome.value == "failed"
    assert 10 * wrong.allowed.value < wrong.claim.error < 0.1


def test_dropout_is_said_to_be_active(judge, strangers):
    model = planted.llama(3, attention_dropout=0.4).train()
    verdict = judge("lossless_cache", strangers.subject(model, planted.tokens(3)))
    assert verdict.headline == (
        "Cache cannot be run: the model with a plain cache gives other logits at a second call: "
        "it is in train mode, call eval() on it"
    )


def test_train_mode_without_dropout_is_no_reason(judge, strangers):
    assert (
        judge("lossless_cache", strangers.subject(planted.llama(3).train(), planted.tokens(3))).outcome.value
        == "passed"
    )


def test_logits_that_are_not_finite_fail(judge, right, found, strangers):
    class Spoilt(SpectralLayer):
        def update(self, keys, values, *args, **kwargs):
            back, decoded = super().update(keys, values)
            return back, decoded * float("nan")

    verdict = judge("lossless_cache", with_lossless(right, lambda: found.cache(found.codec.lossless(), Spoilt)))
    assert verdict.outcome.value == "failed"
    model = copy.deepcopy(found.model)
    model.lm_head.weight.data[0, 0] = float("inf")
    broken = judge("lossless_cache", strangers.subject(model, found.batch))
    assert "the model with a plain cache answered with logits that are not finite" in broken.headline


def test_a_cache_that_raises_is_named(judge, right):
    class Crashing(SpectralLayer):
        def update(self, keys, values, *args, **kwargs):
            raise RuntimeError("shape mismatch")

    found = planted.bench(0)
    verdict = judge("lossless_cache", with_lossless(right, lambda: found.cache(found.codec, Crashing)))
    assert verdict.headline == "subject cannot be run: subject without loss raised RuntimeError: shape mismatch"


def test_it_needs_a_lossless_cache(judge, right):
    verdict = judge("lossless_cache", replace(right, lossless=None))
    assert verdict.headline == "planted does not supply lossless"
