"""Expected failures are strict: they must fail, and only with the failure that was expected."""

from __future__ import annotations

EXPECT = "expected_failures={'fits': 'https://example.org/issues/1'}"


def test_expected_failure_is_an_xfail(run):
    result = run("-rx", subject="error=3.0", options=EXPECT)
    result.assert_outcomes(xfailed=1, passed=2)
    result.stdout.fnmatch_lines(["XFAIL *fits]*https://example.org/issues/1*"])


def test_a_pass_against_expectation_fails(run):
    result = run(options=EXPECT)
    result.assert_outcomes(failed=1, passed=2)
    result.stdout.fnmatch_lines(["*XPASS(strict)*"])


def test_an_undecided_one_is_not_the_expected_failure(run):
    result = run("--rotcheck-select=fits", subject="separation=0.0", options=EXPECT)
    result.assert_outcomes(failed=1, deselected=2)
    result.stdout.fnmatch_lines(["*expected to fail, but undecided*"])


def test_another_exception_is_not_the_expected_failure(run):
    result = run("--rotcheck-select=fits", subject="error='text'", options=EXPECT)
    result.assert_outcomes(failed=1, deselected=2)


def test_skipping_undecided_leaves_expected_failures_alone(run):
    run("--rotcheck-undecided=skip", subject="error=3.0", options=EXPECT).assert_outcomes(xfailed=1, passed=2)


def test_the_summary_shows_an_unexpected_pass(run):
    run(options=EXPECT).stdout.fnmatch_lines(["TOY01 fits*unexpected pass*test_toy[[]fits]"])


def test_the_summary_is_silent_about_expected_failures(run):
    run(subject="error=3.0", options=EXPECT).stdout.no_fnmatch_line("*= rotcheck =*")


def test_unknown_name_is_refused_at_collection(run):
    result = run(options="expected_failures={'fitz': 'reason'}")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*no check is called 'fitz': did you mean fits?"])
