"""parametrize_with_checks: ids, marks, skips and strict expected failures, in a pytest of its own."""

from __future__ import annotations

import pytest

from rotcheck.errors import RotcheckError
from rotcheck.runner import parametrize_with_checks

SUBJECTS = """
    import pytest, rotcheck
    from rotcheck.bases import haar

    basis = haar(6, seed=1)
    right = rotcheck.Rotation(lambda x: x @ basis, basis=basis, name="right")
    wrong = rotcheck.Rotation(lambda x: x @ basis.T, basis=basis, name="wrong")
    hidden = rotcheck.Rotation(lambda x: x @ (basis @ basis.T), basis=basis @ basis.T, name="hidden")
"""


@pytest.fixture
def run(pytester, monkeypatch):
    monkeypatch.setenv("COLUMNS", "250")  # the summary line is cut to the width of the terminal

    def run(body: str, *args: str):
        pytester.makeini("[pytest]\nmarkers =\n    rotcheck: a check of rotcheck\n")
        pytester.makepyfile(SUBJECTS + body)
        return pytester.runpytest_inprocess("-p", "no:cacheprovider", "-rA", *args)

    return run


def test_ids_are_check_names_and_need_no_subject(run):
    body = """
    @rotcheck.parametrize_with_checks(rotcheck.Rotation)
    def test_rotation(check):
        raise RuntimeError("collection only")
    """
    result = run(body, "--collect-only", "-q")
    result.stdout.fnmatch_lines(["*::test_rotation[[]orthogonality[]]", "*::test_rotation[[]side[]]"])


def test_a_right_subject_passes_and_what_does_not_apply_is_skipped(run):
    body = """
    @rotcheck.parametrize_with_checks(rotcheck.Rotation, select=["side", "isometry", "round_trip"])
    def test_rotation(check):
        check(right)
    """
    result = run(body)
    result.assert_outcomes(passed=2, skipped=1)
    result.stdout.fnmatch_lines(["*ROT106 round_trip: right does not supply unrotate*"])


def test_a_wrong_subject_fails_with_the_diagnosis_in_the_summary(run):
    body = """
    @rotcheck.parametrize_with_checks(rotcheck.Rotation, select=["side"])
    def test_rotation(check):
        check(wrong)
    """
    result = run(body)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["FAILED *[[]side[]]*ROT103 side: wrong computes x @ basis.T*"])


def test_an_expected_failure_is_a_strict_xfail(run):
    body = """
    @rotcheck.parametrize_with_checks(rotcheck.Rotation, select=["side"], expected_failures={"side": "issue 12"})
    @pytest.mark.parametrize("subject", [wrong, right], ids=str)
    def test_rotation(subject, check):
        check(subject)
    """
    result = run(body)
    result.assert_outcomes(xfailed=1, failed=1)
    result.stdout.fnmatch_lines(["XFAIL *issue 12*"])


def test_an_expected_failure_that_is_undecided_fails(run):
    body = """
    @rotcheck.parametrize_with_checks(rotcheck.Rotation, select=["side"], expected_failures={"side": "issue 12"})
    def test_rotation(check):
        check(hidden)
    """
    result = run(body)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*expected to fail, but undecided*"])


@pytest.mark.parametrize(
    ("options", "outcomes"), [("", {"failed": 1}), (", allow_undecided={'side': 'I'}", {"passed": 1})]
)
def test_undecided_fails_unless_it_is_allowed(run, options, outcomes):
    body = f"""
    @rotcheck.parametrize_with_checks(rotcheck.Rotation, select=["side"]{options})
    def test_rotation(check):
        check(hidden)
    """
    run(body).assert_outcomes(**outcomes)


def test_every_seed_is_tried(run):
    body = """
    from rotcheck.runner import listening

    @rotcheck.parametrize_with_checks(rotcheck.Rotation, select=["side"], seeds=(3, 4))
    def test_rotation(check):
        heard = []
        with listening(heard.append):
            check(right)
        assert ["seed 3" in v.witness for v in heard] == [True, False]
        assert "seed 4" in heard[1].witness
    """
    run(body).assert_outcomes(passed=1)


def test_the_marker_selects(run):
    body = """
    @rotcheck.parametrize_with_checks(rotcheck.Rotation, select=["side"])
    def test_rotation(check):
        check(right)

    def test_other():
        pass
    """
    result = run(body, "-m", "rotcheck")
    result.assert_outcomes(passed=1, deselected=1)


def test_a_kind_may_be_named_and_repeated():
    mark = parametrize_with_checks("Rotation", "Rotation", select=["side", "isometry"])
    assert [parameter.id for parameter in mark.args[1]] == ["isometry", "side"]
    assert repr(mark.args[1][1].values[0]) == "ROT103 side"


@pytest.mark.parametrize("kinds", [(), (int,), ("NoSuchKind",)])
def test_an_empty_list_of_checks_is_an_error_and_no_skip(kinds):
    with pytest.raises(RotcheckError, match="no check is left"):
        parametrize_with_checks(*kinds)


@pytest.mark.parametrize("options", [{"select": ["sides"]}, {"expected_failures": {"side": " "}}])
def test_mistakes_show_at_collection(options):
    with pytest.raises(RotcheckError):
        parametrize_with_checks("Rotation", **options)
