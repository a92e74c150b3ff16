"""What no energy shows changes nothing that leading_energy measures: signs, and a common rotation of data and basis."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rotcheck.bases import haar
from rotcheck.outcome import Outcome
from rotcheck.registry import find
from rotcheck.strategies import seeds
from rotcheck.subjects import Rotation
from rotcheck.witness import Witness


@settings(max_examples=15)
@given(d=st.integers(5, 16), seed=seeds(), transposed=st.booleans(), scale=st.integers(-9, 9))
def test_signs_scale_and_a_common_rotation(d, seed, transposed, scale):
    """Each row may have a length and a sign of its own, each axis a sign, and the whole space other axes."""
    witness = Witness(seed=seed)
    basis, common = (haar(d, seed=witness.generator(label)) for label in ("basis", "common"))
    values = 2.0 ** -torch.arange(d, dtype=torch.float64)
    samples = witness.normal("rows", 400, d) * values.sqrt() @ basis.T
    signs = torch.where(witness.normal("signs", d) > 0, 1.0, -1.0).double()
    lengths = witness.normal("lengths", 400, 1).exp() * 2.0**scale
    applied = basis.T if transposed else basis
    covariance = (basis * values) @ basis.T

    def verdict(matrix, axes, moment, rows):
        subject = Rotation(
            lambda x: x @ matrix, basis=axes, covariance=moment, samples=rows, effective_samples=400, name="f"
        )
        return find("leading_energy").run(subject)

    plain = verdict(applied, basis, covariance, samples)
    facts = dict(plain.facts)
    for other in (
        verdict(applied * signs, basis, covariance, samples),
        verdict(applied, basis, covariance * 4.0**scale, samples * lengths),
    ):
        assert other.outcome is plain.outcome
        for name, value in other.facts:
            assert abs(value - facts[name]) <= 1e-6 * max(1, abs(value)), name
    if not transposed:  # transposed, the basis of turned axes is another matrix, and may be harder or easier to tell
        turned = verdict(common.T @ basis, common.T @ basis, common.T @ covariance @ common, samples @ common)
        assert Outcome.FAILED not in (plain.outcome, turned.outcome)
        for name, value in turned.facts:
            if name.startswith("energy in") and name in facts:
                assert abs(value - facts[name]) <= 1e-6
