"""The installed command: version, help, speed of import, errors without traceback."""

from __future__ import annotations

import subprocess
import sys

import pytest

import rotcheck
from rotcheck.cli import main


def test_version(call):
    result = call("--version")
    assert result.exit_code == 0
    assert result.stdout == f"rotcheck {rotcheck.__version__}\n"


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"], ["slice", "--help"], ["explain", "--help"]])
def test_help_is_plain(call, arguments):
    result = call(*arguments)
    assert result.exit_code == 0
    assert result.stdout.isascii()
    assert "Usage: rotcheck" in result.stdout


def test_exit_codes_are_in_the_help(call):
    assert "3 undecided and nothing failed" in " ".join(call("--help").stdout.split())


def test_main_exits_with_2_and_one_line(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["rotcheck", "explain", "sdie"])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 2
    assert capsys.readouterr().err == "rotcheck: no check is called 'sdie': did you mean side?\n"


def test_help_does_not_import_torch():
    code = "import sys\nfrom rotcheck.cli import app\ntry:\n    app(['--help'])\nexcept SystemExit:\n    pass\n"
    code += "print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"
