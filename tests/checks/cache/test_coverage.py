"""coverage: every head that is stored has a rotation, of its width, and is really compressed."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.cache_utils import DynamicLayer

from rotcheck import CacheRotation, Rotation
from rotcheck.bases import haar
from rotcheck.defects._spectral import subject as planted_subject
from rotcheck.subjects.cache import Head


def declared(right, heads) -> CacheRotation:
    """The places alone, without a cache behind them."""
    return CacheRotation(heads, model=right.model, inputs=right.inputs, name="subject")


def test_all_heads_pass(judge, right):
    verdict = judge("coverage", declared(right, right.heads))
    assert verdict.outcome.value == "passed"
    assert verdict.headline == "subject declares rotations for all 12 heads that are stored"
    assert verdict.witness == "3 layers of LlamaForCausalLM"
    assert verdict.place == ""


@settings(max_examples=8)
@given(seed=st.integers(0, 2**31), dropped=st.integers(1, 11))
def test_every_subset_is_failed_and_measured(judge, right, seed, dropped):
    order = torch.randperm(12, generator=torch.Generator().manual_seed(seed)).tolist()
    gone = {sorted(right.heads)[i] for i in order[:dropped]}
    verdict = judge("coverage", declared(right, {p: r for p, r in right.heads.items() if p not in gone}))
    assert verdict.outcome.value == "failed"
    assert verdict.claim.error == dropped / 12
    assert verdict.place.startswith(str(min(gone)))
    assert verdict.matched
    assert verdict.place.count("layer") <= 3  # however many are missing


def test_one_forgotten_head(judge, right):
    heads = {place: part for place, part in right.heads.items() if place != Head(1, 1, "values")}
    verdict = judge("coverage", declared(right, heads))
    assert verdict.headline == (
        "subject declares rotations for 11 of 12 heads at layer 1 head 1 values, declared all 12 heads that are stored"
    )


def test_heads_that_are_not_stored_are_counted_apart(judge, right):
    extra = {Head(layer, 0, "keys"): right.heads[Head(0, 0, "keys")] for layer in (3, 4)}
    verdict = judge("coverage", declared(right, right.heads | extra))
    assert verdict.matched == "12 of 12 heads, and 2 that are not stored"
    assert verdict.place == "layer 3 head 0 keys, layer 4 head 0 keys"


@pytest.mark.parametrize(
    ("keep", "name"),
    [
        (lambda place: place.kind == "keys", "the keys alone"),
        (lambda place: place.head == 0, "the first head of each layer"),
        (lambda place: place.layer == 0, "the first layer alone"),
        (lambda place: place.kind == "values", "6 of 12 heads"),
        (lambda place: place.layer < 2, "8 of 12 heads"),
    ],
)
def test_what_is_passed_over_is_named(judge, right, keep, name):
    verdict = judge("coverage", declared(right, {place: part for place, part in right.heads.items() if keep(place)}))
    assert verdict.matched == name
    assert "go through all layers" in verdict.hint


def test_query_heads_are_named(judge, right):
    heads = {place._replace(head=2 * place.head + i): part for place, part in right.heads.items() for i in range(2)}
    assert judge("coverage", declared(right, heads)).matched == "4 query heads in each layer"


def test_a_model_without_shared_heads_has_no_such_rival(judge, right, partial):
    verdict = judge("coverage", declared(right, right.heads))
    assert "4 query heads in each layer" in [rival.name for rival in verdict.rivals]
    assert all(rival.separation > 0 for rival in verdict.rivals)


@pytest.mark.parametrize("width", [11, 24])
def test_a_width_that_was_derived(judge, right, width):
    basis = haar(width, seed=0)
    place = Head(2, 1, "values")
    wrong = right.heads | {place: Rotation(lambda x: x @ basis, basis=basis)}
    verdict = judge("coverage", declared(right, wrong))
    assert verdict.headline == f"subject declares a rotation of width {width} for vectors of width 20 at {place}"
    assert "hidden_size / heads" in verdict.hint
    assert verdict.place == str(place)


def test_without_heads_it_does_not_apply(judge, right):
    verdict = judge("coverage", CacheRotation(model=right.model, inputs=right.inputs, cache=right.cache, name="s"))
    assert verdict.headline == "s does not supply heads"
    assert judge("coverage", CacheRotation(right.heads)).headline.endswith("does not supply model")


def with_layers(found, change):
    """The right cache with some of its layers replaced, and everything declared as before."""

    def cache():
        made = found.cache(found.codec)
        change(made.layers)
        return made

    return planted_subject(found, cache=cache, name="subject")


def test_a_plain_layer_is_named(judge, found):
    def change(layers):
        layers[1] = DynamicLayer()

    verdict = judge("coverage", with_layers(found, change))
    assert verdict.headline == (
        "subject gives back compressed vectors in 8 of 12 heads at layer 1 head 0 keys, layer 1 head 0 values, "
        "layer 1 head 1 keys and 1 more, declared compressed vectors in all 12 heads that it declares"
    )
    assert "bit for bit" in verdict.hint


def test_one_head_of_the_values_that_passes_through(judge, found):
    class OneHead(type(found.cache(found.codec).layers[0])):
        def update(self, keys, values, *args, **kwargs):
            back, decoded = super().update(keys, values)
            return back, torch.cat([decoded[:, :1], values[:, 1:]], dim=1)

    verdict = judge("coverage", planted_subject(found, layer=OneHead))
    assert verdict.place == "layer 0 head 1 values, layer 1 head 1 values, layer 2 head 1 values"
    assert verdict.matched == "compressed vectors in 9 of 12 heads"


def test_recent_tokens_that_are_kept_as_they_are_are_no_failure(judge, found):
    class Recent(type(found.cache(found.codec).layers[0])):
        def update(self, keys, values, *args, **kwargs):
            back = super().update(keys, values)
            return tuple(
                torch.cat([x[:, :, :1], y[:, :, 1:]], dim=2) for x, y in zip(back, (keys, values), strict=True)
            )

    assert judge("coverage", planted_subject(found, layer=Recent)).outcome.value == "passed"


def test_a_cache_that_does_nothing(judge, right):
    from transformers.cache_utils import DynamicCache

    verdict = judge("coverage", replace(right, cache=lambda: DynamicCache(config=right.model.config)))
    assert verdict.matched == "compressed vectors in 0 of 12 heads"
    assert verdict.claim.error == 1.0


def test_places_of_layers_that_do_not_exist_are_no_crash(judge, right):
    extra = {Head(9, 7, "keys"): right.heads[Head(0, 0, "keys")], Head(0, 7, "keys"): right.heads[Head(0, 0, "keys")]}
    verdict = judge("coverage", replace(right, heads=right.heads | extra))
    assert verdict.matched == "12 of 12 heads, and 2 that are not stored"


def test_a_cache_that_raises_fails_with_its_words(judge, right):
    class Broken:
        def update(self, keys, values, layer):
            raise NotImplementedError("no kernel for width 20")

    verdict = judge("coverage", replace(right, cache=Broken))
    assert verdict.headline == "planted cannot be run: planted raised NotImplementedError: no kernel for width 20"


def test_behind_a_sliding_window_what_is_kept_is_compared(judge, strangers, sliding):
    from rotcheck.defects._spectral import tokens

    verdict = judge("coverage", strangers.subject(sliding, tokens(3)))
    assert verdict.outcome.value == "passed", str(verdict)
