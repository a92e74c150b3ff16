"""One wrong head among many is found, named, and counted, wherever it is and whatever is wrong with it."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

import rotcheck
from rotcheck.bases import haar
from rotcheck.convention import FORMULAS
from rotcheck.strategies import seeds
from rotcheck.subjects.cache import KINDS

WRONG = [name for name in FORMULAS if name not in ("x @ basis", "x")]


@settings(deadline=None, max_examples=15)
@given(
    layers=st.integers(1, 3),
    heads=st.integers(1, 3),
    place=st.integers(0, 10**6),
    name=st.sampled_from(WRONG),
    seed=seeds(),
)
def test_it_is_placed_and_named(layers, heads, place, name, seed):
    places = [(layer, head, kind) for layer in range(layers) for head in range(heads) for kind in KINDS]
    bases = {where: haar(10, seed=seed + i) for i, where in enumerate(places)}
    wrong = places[place % len(places)]

    def rotate(x, *where):
        return FORMULAS[name if where == wrong else "x @ basis"].apply(x, bases[where])

    subject = rotcheck.CacheRotation.from_lookup(rotate, bases)
    (verdict,) = rotcheck.verify(subject, select=["side"]).verdicts
    layer, head, kind = wrong
    assert verdict.outcome is rotcheck.Outcome.FAILED
    assert verdict.place == f"layer {layer} head {head} {kind}"
    assert verdict.matched == name
    assert verdict.facts[-2:] == (("heads", float(len(places))), ("heads failed", 1.0))


@settings(deadline=None, max_examples=10)
@given(layers=st.integers(2, 3), heads=st.integers(2, 3), place=st.integers(0, 10**6), seed=seeds())
def test_the_head_whose_basis_it_took_is_named(layers, heads, place, seed):
    places = [(layer, head) for layer in range(layers) for head in range(heads)]
    bases = {where: haar(10, seed=seed + i) for i, where in enumerate(places)}
    layer, head = places[place % len(places)]
    other = (layer, (head + 1) % heads)

    def rotate(x, *where):
        return x @ bases[other if where == (layer, head) else where]

    (verdict,) = rotcheck.verify(rotcheck.CacheRotation.from_lookup(rotate, bases), select=["side"]).verdicts
    assert verdict.place == f"layer {layer} head {head} keys"
    assert verdict.matched == f"x in the basis of layer {other[0]} head {other[1]} keys"
