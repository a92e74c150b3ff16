"""An evaluation's numbers are those of its parts, and fall where they must."""

from __future__ import annotations

import copy
import dataclasses
import json
from itertools import pairwise

import pytest
import torch

from rotcheck.errors import RotcheckError
from rotcheck.measures.perplexity import paired_ratio, perplexity
from rotcheck.models.caching import with_cache
from rotcheck.spectral import Settings, SpectralCache, attention_errors, build_codec
from rotcheck.spectral.evaluate import Evaluation, evaluate, evaluate_codecs, write_json

FAMILIES = ("opt", "llama", "phi")
BITS = (1.0, 2.0, 4.0, 7.0)


@pytest.fixture(scope="module")
def windows(batch_of, tiny):
    return [batch_of(tiny("opt"), seed=seed, rows=3, length=17, padded=False)["input_ids"] for seed in (50, 51)]


@pytest.fixture(scope="module")
def falling(tiny, calibrated, windows):
    """Families to evaluations over `BITS`."""
    wanted = {f"{bits:g} bits": Settings(bits=bits, codebook="gaussian") for bits in BITS}
    return {family: evaluate(tiny(family), calibrated(family), wanted, windows) for family in FAMILIES}


def test_rows_are_in_the_order_of_the_settings(falling):
    for evaluation in falling.values():
        assert [row.name for row in evaluation.rows] == ["1 bits", "2 bits", "4 bits", "7 bits"]
        assert [row.settings.bits for row in evaluation.rows] == list(BITS)


@pytest.mark.parametrize("family", FAMILIES)
def test_errors_fall_with_bits(family, falling):
    rows = falling[family].rows
    assert all(more.attention_error < less.attention_error for less, more in pairwise(rows))
    assert rows[-1].attention_error < 0.05 < rows[0].attention_error


@pytest.mark.parametrize("family", FAMILIES)
def test_perplexity_comes_back_with_bits(family, falling):
    """Seven bits move it less than one does: a cache that is not used would not move it at all."""
    first, *_, last = (abs(row.perplexity / falling[family].full - 1) for row in falling[family].rows)
    assert 0 < last < first / 5


@pytest.mark.parametrize("family", FAMILIES)
def test_bytes_are_those_of_the_codec(family, falling, calibrated):
    for row in falling[family].rows:
        codec = build_codec(calibrated(family), row.settings)
        for name in ("bytes_per_token", "fixed_bytes", "payload_bits", "side_bits"):
            assert getattr(row, name) == getattr(codec, name)
        assert row.compression == codec.ratio(4096)
        bits = 8 * row.bytes_per_token / codec.numbers_per_token
        assert row.payload_bits + row.side_bits == pytest.approx(bits)


def test_the_numbers_are_those_of_the_parts(tiny, calibrated, windows):
    model, codec = tiny("llama"), build_codec(calibrated("llama"), Settings(bits=2.0))
    evaluation = evaluate_codecs(model, {"it": codec}, windows, attention_windows=windows[1:], length=100)
    (row,) = evaluation.rows
    full = perplexity(model, windows)
    own = perplexity(lambda ids: model(ids, **with_cache(model, SpectralCache(codec, model.config))), windows)
    errors = attention_errors(model, {"it": codec}, windows[1:])["it"]
    # without a cache sdpa may take another kernel, which rounds otherwise
    assert evaluation.full == pytest.approx(full.perplexity, rel=1e-12)
    assert row.perplexity == pytest.approx(own.perplexity, rel=1e-12)
    ratio = paired_ratio(own, full)
    assert dataclasses.astuple(row.ratio) == pytest.approx(dataclasses.astuple(ratio), rel=1e-9)
    assert row.ratio.low <= row.ratio.value <= row.ratio.high
    assert row.layer_errors == tuple(errors.tolist())
    assert row.attention_error == errors.mean().item()
    assert row.compression == codec.ratio(100)
    assert (evaluation.windows, evaluation.tokens, evaluation.attention_tokens) == (6, 96, 51)
    assert evaluation.full_bytes_per_token == 2 * codec.numbers_per_token
    assert evaluation.length == 100


@pytest.mark.parametrize("family", FAMILIES)
def test_a_path_without_loss_changes_nothing(family, tiny, codec_of, windows):
    codec = codec_of(family, torch.float64, None).lossless()
    evaluation = evaluate_codecs(tiny(family), {"lossless": codec}, windows)
    (row,) = evaluation.rows
    assert row.attention_error < 1e-12
    assert row.perplexity == pytest.approx(evaluation.full, rel=1e-12)
    assert row.ratio.low == pytest.approx(1, abs=1e-12)
    assert row.payload_bits == 64


def test_each_batch_has_a_cache_of_its_own(tiny, codec_of, windows):
    """Windows one at a time, in batches, or twice: the same losses."""
    model, codecs = tiny("llama"), {"it": codec_of("llama", torch.float64, None)}
    together = evaluate_codecs(model, codecs, windows, attention_windows=windows)
    alone = evaluate_codecs(model, codecs, list(torch.cat(windows).split(1)), attention_windows=windows)
    twice = evaluate_codecs(model, codecs, [*windows, *windows], attention_windows=windows)
    for other in (alone, twice):
        assert other.rows[0].perplexity == pytest.approx(together.rows[0].perplexity, rel=1e-9)
        assert other.rows[0].attention_error == together.rows[0].attention_error


def test_attention_is_watched_on_the_first_batch_where_nothing_is_said(tiny, codec_of, windows):
    codecs = {"it": codec_of("opt", torch.float64, None)}
    evaluation = evaluate_codecs(tiny("opt"), codecs, windows)
    expected = attention_errors(tiny("opt"), codecs, windows[:1])["it"]
    assert evaluation.rows[0].layer_errors == tuple(expected.tolist())
    assert evaluation.attention_tokens == windows[0].numel()


def test_a_rotation_that_fits_is_better_than_none(tiny, calibrated, windows):
    """Also on a random model, whose keys have a spectrum of their own."""
    wanted = {name: Settings(bits=2.0, rotation=name, codebook="gaussian") for name in ("spectral", "none", "haar")}
    rows = evaluate(tiny("opt"), calibrated("opt"), wanted, windows, attention_windows=windows).rows
    spectral, none, haar = (row.attention_error for row in rows)
    assert spectral < min(none, haar)
    assert len({row.bytes_per_token for row in rows}) == 1


def test_one_window_has_no_interval(tiny, codec_of, windows):
    evaluation = evaluate_codecs(tiny("opt"), {"it": codec_of("opt", torch.float64, None)}, [windows[0][:1]])
    assert evaluation.windows == 1
    assert evaluation.rows[0].ratio is None


def test_the_model_is_left_as_it_was(tiny, codec_of, windows):
    model = copy.deepcopy(tiny("llama")).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    evaluate_codecs(model, {"it": codec_of("llama", torch.float64, None)}, windows)
    assert all(module.training for module in model.modules())
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_nothing_is_shown_without_being_asked(tiny, codec_of, windows, capfd):
    evaluate_codecs(tiny("opt"), {"it": codec_of("opt", torch.float64, None)}, windows, progress=True)
    assert capfd.readouterr() == ("", "")  # standard error is no terminal here


def test_results_do_not_change(falling):
    evaluation = falling["opt"]
    for value, field in ((evaluation, "full"), (evaluation.rows[0], "perplexity")):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(value, field, 1.0)


def test_no_codec(tiny, windows):
    with pytest.raises(RotcheckError, match="nothing to evaluate: pass at least one named setting"):
        evaluate_codecs(tiny("opt"), {}, windows)


def test_no_window(tiny, codec_of):
    with pytest.raises(RotcheckError, match="evaluation of no windows: give at least one batch"):
        evaluate_codecs(tiny("opt"), {"it": codec_of("opt", torch.float64, None)}, [])


@pytest.mark.parametrize("length", [0, -4])
def test_no_length(tiny, codec_of, windows, length):
    with pytest.raises(RotcheckError, match=f"a compression ratio at {length} tokens: use at least 1"):
        evaluate_codecs(tiny("opt"), {"it": codec_of("opt", torch.float64, None)}, windows, length=length)


def test_a_codec_of_another_model(tiny, codec_of, windows):
    with pytest.raises(RotcheckError, match="another model: model type llama, this model has opt"):
        evaluate_codecs(tiny("opt"), {"it": codec_of("llama", torch.float64, None)}, windows)


def test_a_budget_that_is_too_small_is_named(tiny, calibrated, windows):
    with pytest.raises(RotcheckError, match="less than 1 bit in total"):
        evaluate(tiny("opt"), calibrated("opt"), {"none": Settings(bits=0.05)}, windows)


def test_json_in_plain_types(falling, tmp_path):
    evaluation = falling["opt"]
    write_json(tmp_path / "it.json", evaluation.to_dict())
    found = json.loads((tmp_path / "it.json").read_text())
    assert found["schema_version"] == 1
    assert set(found) == {field.name for field in dataclasses.fields(Evaluation)}
    row, own = found["rows"][1], evaluation.rows[1]
    assert row["ratio"] == dataclasses.asdict(own.ratio)
    assert row["settings"]["bits"] == 2.0
    assert row["layer_errors"] == list(own.layer_errors)
    assert [path.name for path in tmp_path.iterdir()] == ["it.json"]


def test_json_has_no_bare_infinities(tmp_path):
    write_json(tmp_path / "it.json", {"a": (1.5, float("inf")), "b": {"c": float("nan")}})
    text = (tmp_path / "it.json").read_text()
    assert json.loads(text, parse_constant=pytest.fail) == {"a": [1.5, "inf"], "b": {"c": "nan"}}


def test_a_file_that_cannot_be_written_leaves_nothing(tmp_path):
    with pytest.raises(OSError, match="directory"):
        write_json(tmp_path / "nowhere" / "it.json", {})
    (tmp_path / "taken").mkdir()
    with pytest.raises(OSError, match="directory"):
        write_json(tmp_path / "taken", {})
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]
