from __future__ import annotations

import pytest

from rotcheck.outcome import Allowance, Distance, Outcome, Verdict
from rotcheck.report import Report

ALLOWED = Allowance(value=4.29e-06, derivation="8 (u_storage + sqrt(64) u_accumulate), float32")


def make(name: str, outcome: Outcome, **fields: object) -> Verdict:
    code = {"side": "ROT103", "isometry": "ROT102", "energy_order": "ROT104", "orthogonality": "ROT101"}[name]
    values = {"subject": "engine.rotate", "headline": f"engine.rotate, {outcome.value}", **fields}
    return Verdict(check=name, code=code, outcome=outcome, **values)


@pytest.fixture
def failed() -> Verdict:
    return make(
        "side",
        Outcome.FAILED,
        headline="engine.rotate computes x @ basis.T, declared x @ basis",
        claim=Distance(name="x @ basis", error=1.42),
        rivals=(
            Distance(name="x @ basis.T", error=1.44e-07, separation=1.42),
            Distance(name="x @ basis.flip(1)", error=1.43, separation=1.41),
        ),
        matched="x @ basis.T",
        allowed=ALLOWED,
        witness="x: (256, 64) float32, seed 0; |basis - basis.T| / |basis| = 1.4",
        hint="torch.linalg.eigh puts eigenvectors in columns, so row vectors are rotated by x @ V",
        reproduce="rotcheck run engine:subject --select side --seed 0",
    )


@pytest.fixture
def undecided() -> Verdict:
    return make(
        "side",
        Outcome.UNDECIDED,
        headline="engine.rotate: cannot tell x @ basis from x @ basis.T on this witness",
        claim=Distance(name="x @ basis", error=1e-7),
        rivals=(Distance(name="x @ basis.T", error=1e-7),),
        allowed=ALLOWED,
        needs="a basis that differs from its transpose",
    )


@pytest.fixture
def passed() -> Verdict:
    return make(
        "isometry", Outcome.PASSED, claim=Distance(name="|rotate(x)| = |x|", error=2.1e-07), allowed=ALLOWED, power=9.0
    )


@pytest.fixture
def missing() -> Verdict:
    return make("energy_order", Outcome.NOT_APPLICABLE, headline="engine.rotate does not supply covariance")


@pytest.fixture
def expected() -> Verdict:
    return make("orthogonality", Outcome.FAILED, expected="padded Hadamard, https://example.org/issues/7")


@pytest.fixture
def reports(failed, undecided, passed, missing, expected) -> dict[str, Report]:
    """Three subjects: one wrong, one undecided, one right."""

    def report(*verdicts: Verdict) -> Report:
        return Report(verdicts=verdicts, environment={"python": "3"})

    return {
        "opt per-layer": report(passed, failed, expected),
        "opt hadamard": report(passed, undecided),
        "opt global": report(passed, missing),
    }
