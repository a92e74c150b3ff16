"""Generated tests are named after their checks and carry a registered marker."""

from __future__ import annotations


def test_ids_are_check_names(run):
    result = run("--collect-only", "-q")
    result.stdout.fnmatch_lines(["*::test_toy[[]fits]", "*::test_toy[[]zeroth]", "*::test_toy[[]noted]"])


def test_keyword_selects_one_check(run):
    result = run("-k", "zeroth")
    result.assert_outcomes(passed=1, deselected=2)


def test_marker_is_registered_and_selects(run):
    source = "def test_plain():\n    pass\n" + "import rotcheck, toys\n"
    source += "@rotcheck.parametrize_with_checks(toys.Toy, checks=toys.CHECKS)\ndef test_toy(check):\n"
    source += "    check(toys.Toy())\n"
    result = run("--strict-markers", "-m", "rotcheck", source=source)
    result.assert_outcomes(passed=3, deselected=1)


def test_marker_is_listed(run):
    run("--markers").stdout.fnmatch_lines(["@pytest.mark.rotcheck: *parametrize_with_checks*"])


def test_options_are_in_one_group(run):
    text = run("--help").stdout.str()
    group = text[text.index("rotation-correctness checks:") :]
    for name in ("select", "ignore", "seed", "mode", "undecided", "report"):
        assert f"--rotcheck-{name}" in group
        assert f"rotcheck_{name}" in text  # the ini twin
