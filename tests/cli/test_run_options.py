"""Options of ``rotcheck run`` do what they say, and wrong ones are refused before anything slow."""

from __future__ import annotations

import pytest

from rotcheck.report import Report


def names(result) -> list[str]:
    return [line.split()[0] for line in result.stdout.splitlines() if line.startswith("ROT")]


def test_verbose_has_one_line_per_check(call):
    lines = [line.split() for line in call("run", "mine:right", "-v").stdout.splitlines() if line.startswith("ROT")]
    assert {row[1]: row[2] for row in lines if row[2] == "passed"}.keys() >= {"side", "isometry", "orthogonality"}


@pytest.mark.parametrize("chosen", [["side"], ["ROT103"], ["side,isometry"], ["side", "--select", "isometry"]])
def test_select(call, chosen):
    result = call("run", "mine:right", "-v", "--select", *chosen)
    assert len(names(result)) == len(chosen[0].split(",")) + (len(chosen) > 1)


def test_ignore_wins(call):
    assert call("run", "mine:wrong", "--ignore", "ROT103").exit_code == 0


@pytest.mark.parametrize("option", ["--select", "--ignore"])
def test_unknown_check(refused, option):
    assert refused("run", "mine:right", option, "sdie") == "no check is called 'sdie': did you mean side?"


def test_seed_is_in_the_witness(call):
    assert "seed 12" in call("run", "mine:wrong", "--seed", "12").stdout


def test_seed_out_of_range(refused):
    assert refused("run", "mine:right", "--seed", str(2**63)).startswith(f"seed {2**63} is outside [0, 2**63)")


def test_threads_are_set_inside_and_restored_after(call):
    assert "threads 1" in call("run", "mine:counting").stdout
    assert "threads 2" in call("run", "mine:counting", "--threads", "2").stdout  # restored: see the fixture


def test_unknown_device(refused):
    assert refused("run", "mine:right", "--device", "abacus").startswith("--device 'abacus' is not a device")


@pytest.mark.parametrize("device", ["mps", "meta", "xla:0"])
def test_unsupported_device(refused, device):
    assert refused("run", "--device", device) == f"--device {device!r} is not supported: use cpu, cuda or cuda:0"


@pytest.mark.parametrize("option", ["--select", "--ignore"])
@pytest.mark.parametrize("given", ["", " ", "side,", ",side"])
def test_an_empty_name_is_not_everything(refused, option, given):
    assert refused("run", "mine:right", option, given).startswith(f"{option} {given!r} holds an empty name")


def test_report_holds_every_verdict(call, tmp_path):
    call("run", "mine:several", "--seed", "3", "--report", "r.json")
    report = Report.read(tmp_path / "r.json")
    assert report.seed == 3
    assert {verdict.subject for verdict in report} == {"right", "wrong"}
    assert report.counts()["failed"] == 1


@pytest.mark.parametrize(
    ("path", "text"), [(".", "--report . is a directory"), ("no/r.json", "--report no/r.json: the directory no does")]
)
def test_bad_report_path_is_found_before_the_run(refused, path, text):
    # the factory would be called by the run
    assert refused("run", "mine:raising", "--report", path).startswith(text)


def test_expectations_of_labelled_subjects_are_used(call):
    text = call("run", "mine:known").stdout
    line = next(line for line in text.splitlines() if line.startswith("expected failure [known bug] ROT103 side: "))
    assert line.endswith("computes x @ basis.T, declared x @ basis (issue 1)")
    assert call("run", "mine:healed").stdout.startswith("UNEXPECTED PASS [healed] ROT103 side")


def test_allowed_undecided_of_labelled_subjects(call):
    text = call("run", "mine:allowed").stdout
    line = next(line for line in text.splitlines() if line.startswith("allowed undecided [symmetric] ROT103 side: "))
    assert line.endswith("on this witness (symmetric)")
