"""Error rates of `leading_energy` at the rows that it asks for: below 1e-3 with 95 % confidence, in every cell.

The simulation is that of ``benchmarks/power.py``, whose figures are in ``benchmarks/results/power.json``.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FIGURES = ROOT / "benchmarks" / "results" / "power.json"


def load():
    spec = importlib.util.spec_from_file_location("rotcheck_power_benchmark", ROOT / "benchmarks" / "power.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


power = load()


@pytest.mark.power
@pytest.mark.parametrize("d", [16, 64])
@pytest.mark.parametrize("law", ["gaussian", "t3"])
@pytest.mark.parametrize("spectrum", power.SPECTRA)
def test_both_error_rates_are_below_one_in_a_thousand(spectrum, law, d):
    """Seeds are not those of the committed figures."""
    cell = power.simulate(spectrum, law, d, trials=3000, seed=5_000_000)
    if cell.false_alarms or cell.missed:
        cell = power.simulate(spectrum, law, d, trials=6300, seed=7_000_000)
    assert cell.false_alarm_bound <= power.WANTED, cell
    assert cell.missed_bound <= power.WANTED, cell
    assert cell.undecided_right == cell.undecided_wrong == 0


def test_300_trials_of_one_cell_have_no_error():
    cell = power.simulate("power law", "t3", 16, trials=300, seed=9_000_000)
    assert (cell.false_alarms, cell.missed, cell.undecided_right, cell.undecided_wrong) == (0, 0, 0, 0)


def test_half_the_rows_would_not_do():
    """The rows that are asked for are not idle: a share of them is refused, so that no error can be made with them."""
    generator = power.torch.Generator().manual_seed(1)
    basis = power.haar(16, seed=generator)
    values = power.eigenvalues("geometric", 16)
    covariance = (basis * values) @ basis.T
    verdict = power.judge(power.draw("gaussian", 40, values, generator), basis, covariance)
    assert verdict.outcome is power.Outcome.UNDECIDED


@pytest.mark.parametrize(
    ("errors", "trials", "within"), [(0, 3000, True), (1, 3000, False), (2, 6300, True), (3, 6300, False)]
)
def test_the_bounds_are_those_of_clopper_and_pearson(errors, trials, within):
    assert (power.upper_bound(errors, trials) <= power.WANTED) is within


def test_a_bound_on_nothing_but_errors_is_one():
    assert power.upper_bound(5, 5) == 1.0


@pytest.fixture(scope="module")
def figures():
    return json.loads(FIGURES.read_text(encoding="utf-8"))


def test_the_committed_figures_hold_every_cell(figures):
    cells = {(c["spectrum"], c["law"], c["d"]) for c in figures["cells"] if not c["estimated"]}
    assert cells == {(s, law, d) for s in power.SPECTRA for law in power.LAWS for d in power.SIZES}


def test_the_committed_figures_are_within_the_bounds(figures):
    for found in (c for c in figures["cells"] if not c["estimated"]):
        assert found["trials"] >= 3000
        for kind in ("false_alarms", "missed"):
            bound = power.upper_bound(found[kind], found["trials"])
            assert bound == pytest.approx(found[f"{kind.removesuffix('s')}_bound"])
            assert bound <= figures["wanted"] == power.WANTED, found
        assert found["undecided_right"] + found["undecided_wrong"] <= 0.001 * found["trials"]


def test_the_committed_figures_say_where_they_were_made(figures):
    assert {"python", "torch", "scipy", "rotcheck", "platform", "cores"} <= set(figures["environment"])


def test_the_table_has_a_line_for_each_cell():
    cell = power.simulate("spiked", "gaussian", 16, trials=2)
    lines = power.table([cell, cell]).splitlines()
    assert len(lines) == 4
    assert lines[2].startswith("| spiked | gaussian | 16 |")
    assert len({line.count("|") for line in lines}) == 1


def test_what_is_written_can_be_read_and_continued(tmp_path, monkeypatch, capsys):
    """An interrupted run keeps its cells, and runs the others only."""
    path, asked = tmp_path / "power.json", []
    original = power.simulate

    def simulate(spectrum, law, d, *, trials, known):
        asked.append((spectrum, law, d, known))
        return original(spectrum, law, d, trials=min(trials, 2), known=known)

    monkeypatch.setattr(power, "simulate", simulate)
    monkeypatch.setattr(power, "SIZES", (16,))
    monkeypatch.setattr(power, "LAWS", ("gaussian",))
    monkeypatch.setattr("sys.argv", ["power.py", "--out", str(path), "--trials", "20"])
    power.main()
    first = list(asked)
    assert first == [(s, "gaussian", 16, known) for known in (True, False) for s in power.SPECTRA]
    stored = json.loads(path.read_text(encoding="utf-8"))
    stored["cells"] = stored["cells"][:4]
    path.write_text(json.dumps(stored), encoding="utf-8")
    kept = power.read(path)
    power.main()
    assert asked[len(first) :] == first[4:]
    assert power.read(path)[:4] == kept
    assert capsys.readouterr().out.count("| geometric | gaussian, estimated | 16 |") == 2
