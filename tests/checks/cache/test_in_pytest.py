"""A cache under test in somebody's own test file."""

from __future__ import annotations

import pytest

import rotcheck
from rotcheck import CacheRotation, CheckFailed
from rotcheck.defects import defects
from rotcheck.registry import choose


def test_verify_collects_a_verdict_of_every_check(right):
    report = rotcheck.verify(right)
    assert [verdict.check for verdict in report] == [check.name for check in choose("CacheRotation")]
    assert report.exit_code == 0
    assert {verdict.subject for verdict in report} == {"planted"}


def test_checks_are_chosen_by_code(right):
    report = rotcheck.verify(right, select=["ROT5"], ignore=["ROT502", "streaming"])
    assert [verdict.code for verdict in report] == ["ROT501", "ROT504", "ROT505", "ROT506", "ROT507", "ROT508"]


def test_a_failure_raises_with_the_place(found):
    wrong = next(d for d in defects("CacheRotation") if d.name == "cache_basis_of_the_next_head").plant(0)
    with pytest.raises(CheckFailed) as caught:
        rotcheck.assert_verified(wrong, select=["side"])
    assert str(caught.value).splitlines()[0] == (
        "ROT103 side: planted computes x in the basis of layer 0 head 1 keys at layer 0 head 0 keys, declared x @ basis"
    )
    rotcheck.assert_verified(wrong, select=["side"], expected_failures={"side": "planted"})


def test_one_test_for_each_check_of_the_kind():
    mark = rotcheck.parametrize_with_checks(CacheRotation)
    names = [parameter.id for parameter in mark.args[1]]
    assert names == [check.name for check in choose("CacheRotation")]
    assert {"side", "coverage", "lossless_cache", "streaming", "cache_bytes"} <= set(names)


@rotcheck.parametrize_with_checks(CacheRotation, select=["side", "ROT504", "rotary_blocks"])
def test_the_right_cache(right, check):
    check(right)
