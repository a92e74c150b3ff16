"""``rotcheck quantize-kv`` prints what a cache costs, beside other rotations, and writes a cache that loads."""

from __future__ import annotations

import io
import json
import re
import shutil

import pytest
import torch

from rotcheck.cli.quantize_kv import BITS
from rotcheck.models.adversarial import adversarial_opt
from rotcheck.models.bundled import model_directory
from rotcheck.models.caching import with_cache
from rotcheck.models.loading import load_model
from rotcheck.reporting.caches import show_table, spectra, summary, table
from rotcheck.slicing import load as load_sliced
from rotcheck.spectral import Settings, SpectralCache, SpectrumRow, load_cache_codec
from rotcheck.spectral.evaluate import Evaluation, Row


class Output:
    """Labelled facts, then rows of the table by name."""

    def __init__(self, text: str) -> None:
        facts, _, rows = text.partition("\n\n")
        self.text = text
        self.facts = {line[:12].strip(): line[13:] for line in facts.splitlines()}
        self.rows = {}
        if rows:
            head, *body = rows.splitlines()
            names = re.split(r"\s{2,}", head)
            starts = [head.index(name) for name in names]
            for line in body:
                cells = [line[a:b].strip() for a, b in zip(starts, [*starts[1:], None], strict=True)]
                self.rows[cells[0]] = dict(zip(names[1:], cells[1:], strict=True))


@pytest.fixture
def quantized(call, tiny_model, small_text):
    """Run it on the tiny model; gives the printed facts and rows."""

    def invoke(*arguments: str, model: str | None = None) -> Output:
        common = ["--text", str(small_text), "--tokens", "512", "--context", "32", "--eval-text", str(small_text)]
        result = call("quantize-kv", model or str(tiny_model), *common, "--windows", "5", *arguments)
        assert result.exit_code == 0, result.output
        assert result.stderr == ""
        return Output(result.stdout)

    return invoke


def test_the_facts_come_first(quantized):
    found = quantized()
    assert list(found.facts) == [
        "cache",
        "perplexity",
        "attention",
        "bytes",
        "levels used",
        "d_eff keys",
        "d_eff values",
    ]
    assert found.facts["cache"] == (f"spectral water-filling {BITS:g} bits, coordinate; opt, 2 layers, 5 KV heads of 8")
    assert found.facts["perplexity"].endswith("on small.txt, 5 windows")
    # 2 layers, keys and values, 5 heads, 8 coordinates of 3 bits
    assert found.facts["bytes"].startswith("60 per token, ")
    assert found.facts["bytes"].endswith("times smaller than 16 bits at 4096 tokens")


def test_the_table_has_every_rotation_at_the_same_bytes(quantized):
    rows = quantized().rows
    assert list(rows) == ["full precision", "spectral", "none, sorted", "haar, sorted", "hadamard, sorted"]
    full = rows.pop("full precision")
    assert (full["bytes per token"], full["ratio"], full["smaller"], full["attention error"]) == (
        "320",
        "1",
        "1.00",
        "0",
    )
    assert {row["bytes per token"] for row in rows.values()} == {"60"}
    assert {row["payload bits"] for row in rows.values()} == {"3.00"}
    errors = {name: float(row["attention error"]) for name, row in rows.items()}
    assert min(errors, key=errors.__getitem__) == "spectral"


def test_rows_and_facts_agree(quantized):
    found = quantized()
    row = found.rows["spectral"]
    assert f"-> {row['perplexity']} (x {row['ratio']}, {row['95 % interval']})" in found.facts["perplexity"]
    assert found.facts["attention"].startswith(f"relative error {float(row['attention error']):.3g}"[:20])
    assert "none, sorted " in found.facts["attention"]


@pytest.mark.parametrize("allocation", ["4/2", "two-regimes"])
def test_regimes_are_also_compared_with_coordinates_as_they_are(quantized, allocation):
    found = quantized("--allocation", allocation, "--codebook", "minmax")
    assert list(found.rows)[-1] == "none, as it is"
    assert all(float(row["side bits"]) >= 4 for name, row in found.rows.items() if name != "full precision")


@pytest.mark.parametrize("allocation", ["3/1", "4/2"])
def test_bits_of_regimes_need_no_budget(quantized, allocation):
    assert quantized("--allocation", allocation).facts["cache"].startswith(f"spectral {allocation}, coordinate; ")


@pytest.mark.parametrize("codebook", ["regime", "gaussian", "uniform", "minmax"])
def test_codebooks(quantized, codebook):
    found = quantized("--codebook", codebook, "--bits", "2")
    assert f"2 bits, {codebook}; " in found.facts["cache"]
    assert found.rows["spectral"]["payload bits"] == "2.00"


def test_everything_else_that_can_be_set(quantized, tmp_path):
    arguments = ["--bits", "4", "--value-bits", "2", "--uncentred", "--normalize", "--sketch", "8", "--seed", "3"]
    found = quantized(*arguments, "--out", "out", "--length", "77")
    assert found.facts["cache"].startswith(
        "spectral water-filling 4 bits, values 2, coordinate, uncentred, norms apart, sketch of 8; "
    )
    assert found.facts["bytes"].endswith("at 77 tokens")
    assert found.facts["written"] == "out"
    codec = load_cache_codec(tmp_path / "out")
    assert codec.settings == Settings(bits=4, value_bits=2, centred=False, normalize=True, sketch=8, seed=3)


def test_the_saved_cache_runs_the_model(quantized, tiny_model, tmp_path):
    found = quantized("--bits", "6", "--out", "deep/er/cache")
    codec = load_cache_codec(tmp_path / "deep/er/cache")
    assert codec.settings == Settings(bits=6)
    assert f"{codec.bytes_per_token} per token, {codec.fixed_bytes} once" in found.facts["bytes"]
    model = load_model(tiny_model)
    ids = torch.arange(3, 20).unsqueeze(0)
    with torch.no_grad():
        exact = model(ids).logits
        coded = model(ids, use_cache=True, **with_cache(model, SpectralCache(codec, model.config))).logits
    error = (coded - exact).norm() / exact.norm()
    assert 0 < error < 0.1


def test_json(quantized, tmp_path):
    found = quantized("--json", "it.json")
    assert found.facts["written"] == "it.json"
    content = json.loads((tmp_path / "it.json").read_text(), parse_constant=pytest.fail)
    assert content["schema_version"] == 1
    assert content["settings"]["bits"] == BITS
    assert content["calibration_tokens"] == 512
    assert content["evaluation_text"] == "small.txt"
    assert len(content["spectrum"]) == 2 * 2 * 5
    rows = content["evaluation"]["rows"]
    assert [row["name"] for row in rows] == list(found.rows)[1:]
    assert f"{rows[0]['attention_error']:.4f}" == found.rows["spectral"]["attention error"]
    assert content["environment"]["torch"] == torch.__version__


def test_json_may_go_into_the_directory_of_the_cache(quantized, tmp_path):
    (tmp_path / "out").mkdir()
    quantized("--out", "out", "--json", "out/it.json")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "it.json", "spectral.json", "spectral.safetensors",
    ]  # fmt: skip


def test_the_same_command_gives_the_same_output(quantized, tmp_path):
    first, again = (quantized("--out", f"out{n}").text.replace(f"out{n}", "out") for n in (1, 2))
    assert first == again
    for name in ("spectral.json", "spectral.safetensors"):
        assert (tmp_path / "out1" / name).read_bytes() == (tmp_path / "out2" / name).read_bytes()


def test_the_seed_chooses_the_calibration(quantized):
    one, two = (quantized("--seed", seed).facts["d_eff keys"] for seed in ("0", "1"))
    assert one != two


def test_evaluation_can_be_left_out(quantized, tmp_path):
    found = quantized("--eval-text", "none", "--json", "it.json", "--out", "out")
    assert list(found.facts) == ["cache", "bytes", "levels used", "d_eff keys", "d_eff values", "written"]
    assert found.rows == {}
    content = json.loads((tmp_path / "it.json").read_text())
    assert content["evaluation"] is None
    assert {kind: len(shares) for kind, shares in content["levels_used"].items()}.keys() == {"keys", "values"}
    assert all(0 < share <= 1 for shares in content["levels_used"].values() for share in shares)
    assert content["bytes_per_token"] == load_cache_codec(tmp_path / "out").bytes_per_token == 60


def test_a_width_without_hadamard_matrix_is_one_line(quantized, tmp_path):
    model = adversarial_opt(
        seed=0, layers=2, hidden_size=42, heads=6, vocab_size=1024, max_positions=64, dtype=torch.float32
    )
    model.save_pretrained(tmp_path / "seven")
    for path in model_directory().glob("tokenizer*"):
        shutil.copy(path, tmp_path / "seven")
    found = quantized(model="./seven")
    assert found.facts["skipped"].startswith("hadamard: ")
    assert "7" in found.facts["skipped"]
    assert list(found.rows) == ["full precision", "spectral", "none, sorted", "haar, sorted"]


def test_a_sliced_model_has_a_cache_too(call, quantized, tiny_model, small_text, tmp_path):
    sliced = ["slice", str(tiny_model), "--plan", "global", "--sparsity", "0.25", "--out", "sliced"]
    text = ["--text", str(small_text), "--tokens", "256", "--context", "16", "--eval-text", "none"]
    assert call(*sliced, *text).exit_code == 0
    found = quantized("--out", "cache", model="./sliced")
    assert "rotcheck_sliced_opt, 2 layers, 5 KV heads of 8" in found.facts["cache"]
    SpectralCache(load_cache_codec(tmp_path / "cache"), load_sliced(tmp_path / "sliced").config)


def test_help_is_plain(call):
    result = call("quantize-kv", "--help")
    assert result.exit_code == 0
    assert result.stdout.isascii()
    assert "Usage: rotcheck quantize-kv" in result.stdout


def test_dtype(quantized):
    assert float(quantized("--dtype", "bfloat16").rows["spectral"]["attention error"]) > 0


def row(name: str, error: float) -> Row:
    return Row(
        name=name, settings=Settings(), perplexity=41.5, ratio=None, attention_error=error, layer_errors=(error,),
        payload_bits=3.0, side_bits=0.25, bytes_per_token=60, fixed_bytes=100, compression=4.5,
    )  # fmt: skip


def evaluation(*rows: Row) -> Evaluation:
    return Evaluation(
        rows=rows, full=41.0, windows=1, tokens=31, attention_tokens=32, full_bytes_per_token=320, length=9
    )


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def on_terminal(shown: Evaluation, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "200")
    stream = Terminal()
    show_table(shown, stream=stream)
    return re.sub(r"\x1b\[[0-9;]*m", "", stream.getvalue())


def test_a_terminal_draws_the_errors(monkeypatch):
    text = on_terminal(evaluation(row("spectral", 0.1), row("none", 0.4)), monkeypatch)
    assert [line.count("█") for line in text.splitlines()] == [0, 0, 6, 24]
    words = [line.split("█")[0].split() for line in text.splitlines()]
    assert words == [line.split() for line in table(evaluation(row("spectral", 0.1), row("none", 0.4)))]


def test_errors_of_zero_draw_nothing(monkeypatch):
    assert "█" not in on_terminal(evaluation(row("lossless", 0.0)), monkeypatch)


@pytest.mark.parametrize("term", ["dumb", "xterm"])
def test_a_pipe_and_a_dumb_terminal_get_plain_lines(monkeypatch, term):
    monkeypatch.setenv("TERM", term)
    stream = Terminal() if term == "dumb" else io.StringIO()
    shown = evaluation(row("spectral", 0.1))
    show_table(shown, stream=stream)
    assert stream.getvalue().splitlines() == table(shown)
    assert stream.getvalue().isascii()


def test_one_window_is_shown_without_interval():
    shown = evaluation(row("spectral", 0.1234))
    facts = dict(summary(shown, "text.txt"))
    assert facts["perplexity"] == "41.000 -> 41.500 on text.txt, 1 windows"
    assert facts["attention"] == "relative error 0.123"
    assert table(shown)[2].split() == ["spectral", "41.500", "3.00", "0.25", "60", "4.50", "0.1234"]


def test_spectra_say_mean_and_range():
    common = {"layer": 0, "kind": "keys", "tokens": 9, "mean_share": 0.5, "centred_split": 2, "uncentred_split": 1}
    rows = [
        SpectrumRow(head=h, width=8, centred=c, centred_gap=g, uncentred=1.0, uncentred_gap=float("inf"), **common)
        for h, (c, g) in enumerate([(2.0, 1.5), (4.0, 2.5)])
    ]
    ((label, text),) = spectra(rows)
    assert label == "d_eff keys"
    assert text == "centred 3 (2 to 4), gap 2 (1.5 to 2.5); uncentred 1 (1 to 1), gap inf (inf to inf); of 8"
