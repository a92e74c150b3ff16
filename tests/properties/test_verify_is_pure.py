"""A verdict is a function of the subject and the seed: not of the other checks, nor of what ran before."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

import rotcheck
from rotcheck.registry import builtin_checks
from rotcheck.slicing import Schedule, make_plan, random_plan, rotate_and_slice
from rotcheck.strategies import basis


@pytest.fixture(scope="module")
def subjects(model, batch, calibration):
    """One subject of each kind, all right."""
    matrix = basis("haar", 12, 5)
    plan = make_plan(calibration, "k-block:2", Schedule.constant(0.25, round_to=3))
    return {
        "Rotation": rotcheck.Rotation(lambda x: x @ matrix, basis=matrix, name="right"),
        "ModelPair": rotcheck.ModelPair(
            model, rotate_and_slice(model, random_plan(12, 3, "per-layer")), inputs=batch, name="right"
        ),
        "SlicedModel": rotcheck.SlicedModel(
            rotate_and_slice(model, plan),
            inputs=batch,
            original=model,
            plan=plan,
            calibration=calibration,
            name="right",
        ),
    }


def state(subject):
    """A digest of every tensor that the subject was given."""
    models = [getattr(subject, name, None) for name in ("before", "after", "model", "original")]
    digest = hashlib.sha256()
    for model in models:
        if hasattr(model, "state_dict"):
            for name, tensor in model.state_dict().items():
                digest.update(name.encode() + tensor.numpy().tobytes() + str(model.training).encode())
    for batch in getattr(subject, "batches", ()):
        for tensor in batch.values():
            digest.update(tensor.numpy().tobytes())
    if getattr(subject, "basis", None) is not None:
        digest.update(subject.basis.numpy().tobytes())
    return digest.hexdigest()


def assert_same(one, two):
    assert repr(one) == repr(two)  # every digit; repr, because NaN is not equal to itself


@pytest.mark.parametrize("kind", ["Rotation", "ModelPair", "SlicedModel"])
@settings(deadline=None, max_examples=2, phases=[Phase.explicit, Phase.generate])  # an example takes a second or more
@given(seed=st.integers(0, 2**62), data=st.data())
def test_same_report_alone_together_and_again(kind, seed, data, subjects):
    """``verify(x, A u B; seed) = verify(x, A; seed) u verify(x, B; seed)``, each time anew; x stays as it was."""
    subject = subjects[kind]
    before = state(subject)
    whole, again = rotcheck.verify(subject, seed=seed), rotcheck.verify(subject, seed=seed)
    assert len(whole) == len(again) > 3
    for one, two in zip(whole, again, strict=True):
        assert_same(one, two)
    verdicts = {verdict.check: verdict for verdict in whole}
    table = [check for check in builtin_checks() if check.name in verdicts]
    for check in data.draw(st.permutations(table)):
        assert_same(rotcheck.verify(subject, checks=[check], seed=seed).verdicts[0], verdicts[check.name])
    assert state(subject) == before
