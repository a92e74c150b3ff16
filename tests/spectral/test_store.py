"""A saved codec comes back as the same operator: the same bytes for every vector, the same vector for all bytes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import rotcheck
from rotcheck.errors import RotcheckError
from rotcheck.models.caching import with_cache
from rotcheck.spectral import Settings, SpectralCache, load_cache_codec, save_cache_codec
from rotcheck.spectral.store import load, save

SETTINGS = (
    Settings(bits=3.0),
    Settings(bits=2.3, value_bits=1.1, codebook="gaussian", centred=False),
    Settings(allocation="4/2", codebook="minmax"),
    Settings(allocation="3/0", codebook="minmax", normalize=True, centred=False),
    Settings(bits=2.5, allocation="two-regimes", codebook="regime", normalize=True, sketch=24),
    Settings(bits=5.0, rotation="none", codebook="uniform", allocation="uniform"),
    Settings(bits=1.7, rotation="none", ordered=False),
    Settings(bits=2.0, rotation="haar", seed=7),
    Settings(bits=2.0, rotation="hadamard", codebook="minmax"),
)
FAMILIES = ("opt", "llama", "phi", "deepseek_v3")

SCRIPT = """
import sys
import torch
from rotcheck.spectral import load_cache_codec

folder, count = sys.argv[1], int(sys.argv[2])
torch.set_num_threads(1)
for number in range(count):
    codec = load_cache_codec(f"{folder}/{number}")
    given = torch.load(f"{folder}/{number}.pt", weights_only=True)
    paths = (*codec.keys, *codec.values)
    rows = [path.encode(x) for path, x in zip(paths, given, strict=True)]
    torch.save([rows, [path.decode(r) for path, r in zip(paths, rows)]], f"{folder}/{number}.out")
"""


def reloaded(codec, directory):
    save(codec, directory)
    return load(directory)


def paths(codec):
    return (*codec.keys, *codec.values)


def vectors(codec, seed, tokens=11):
    """Batches of two for every path, far beyond what it was calibrated on."""
    generator = torch.Generator().manual_seed(seed)
    shapes = [(2, path.heads, tokens, path.width) for path in paths(codec)]
    return [3 * torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]


def contents(directory):
    return {path.name: path.read_bytes() for path in sorted(directory.iterdir())}


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_the_same_bytes_and_the_same_vectors(tmp_path, settings, codec_of):
    family = "deepseek_v3" if settings.rotation == "spectral" else "opt"
    codec = codec_of(family, torch.float64, settings)
    again = reloaded(codec, tmp_path / "cache")
    for path, other, x in zip(paths(codec), paths(again), vectors(codec, seed=1), strict=True):
        rows = path.encode(x)
        assert torch.equal(other.encode(x), rows)
        assert torch.equal(other.decode(rows), path.decode(rows))


@pytest.mark.parametrize("family", FAMILIES)
def test_everything_that_is_said_of_it_is_the_same(tmp_path, family, codec_of):
    codec = codec_of(family, torch.float64, SETTINGS[0])
    again = reloaded(codec, tmp_path / "cache")
    assert again.settings == codec.settings
    assert again.model == codec.model
    assert repr(again) == repr(codec)
    for name in ("bytes_per_token", "fixed_bytes", "payload_bits", "side_bits"):
        assert getattr(again, name) == getattr(codec, name)
    for path, other in zip(paths(codec), paths(again), strict=True):
        assert torch.equal(other.axes.effective, path.axes.effective)
        assert (other.axes.splits, other.axes.gaps) == (path.axes.splits, path.axes.gaps)
        assert (other.axes.rotary, other.axes.rotation) == (path.axes.rotary, path.axes.rotation)
        assert torch.equal(other.axes.variances, path.axes.variances)


def test_partial_rotary_is_among_them(codec_of):
    assert {path.axes.rotary for path in codec_of("phi", torch.float64, SETTINGS[0]).keys} == {6}


def test_a_fresh_process_reads_the_same_operator(tmp_path, codec_of):
    chosen = [codec_of(family, torch.float64, settings) for family, settings in zip(FAMILIES, SETTINGS, strict=False)]
    expected = []
    for number, codec in enumerate(chosen):
        save(codec, tmp_path / str(number))
        given = vectors(codec, seed=number)
        torch.save(given, tmp_path / f"{number}.pt")
        rows = [path.encode(x) for path, x in zip(paths(codec), given, strict=True)]
        expected.append([rows, [path.decode(r) for path, r in zip(paths(codec), rows, strict=True)]])
    root = str(Path(rotcheck.__file__).parents[1])
    environment = {**os.environ, "PYTHONPATH": root, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path), str(len(chosen))],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    for number, answers in enumerate(expected):
        found = torch.load(tmp_path / f"{number}.out", weights_only=True)
        for own, other in zip(answers, found, strict=True):
            assert all(torch.equal(a, b) for a, b in zip(own, other, strict=True))


def test_a_model_runs_on_it_with_the_same_logits(tmp_path, tiny, codec_of, batch_of):
    model, codec = tiny("llama"), codec_of("llama", torch.float64, SETTINGS[0])
    batch = batch_of(model, seed=3)
    logits = []
    for own in (codec, reloaded(codec, tmp_path / "cache")):
        with torch.no_grad():
            logits.append(model(**batch, use_cache=True, **with_cache(model, SpectralCache(own, model.config))).logits)
    assert torch.equal(*logits)


def test_a_path_without_loss_is_kept_too(tmp_path, codec_of):
    codec = codec_of("phi", torch.float64, SETTINGS[0]).lossless()
    again = reloaded(codec, tmp_path / "cache")
    for path, other, x in zip(paths(codec), paths(again), vectors(codec, seed=2), strict=True):
        assert other.codec is None
        assert torch.equal(other.decode(other.encode(x)), path.decode(path.encode(x)))


@pytest.mark.parametrize("settings", SETTINGS[:5], ids=str)
def test_saving_again_gives_the_same_files(tmp_path, settings, codec_of):
    codec = codec_of("llama", torch.float64, settings)
    save(codec, tmp_path / "once")
    save(codec, tmp_path / "again")
    save(load(tmp_path / "once"), tmp_path / "twice")
    assert contents(tmp_path / "once") == contents(tmp_path / "again") == contents(tmp_path / "twice")
    assert sorted(contents(tmp_path / "once")) == ["spectral.json", "spectral.safetensors"]


@pytest.mark.parametrize("settings", [SETTINGS[0], SETTINGS[1], SETTINGS[4], SETTINGS[7]], ids=str)
def test_the_tensors_are_the_fixed_bytes(tmp_path, settings, codec_of):
    """What is on disk beyond the declared bytes is the spectra, and zeros for the mean of an uncentred path."""
    codec = codec_of("deepseek_v3" if settings.rotation == "spectral" else "opt", torch.float64, settings)
    save(codec, tmp_path / "cache")
    extra = ("variances", "spectrum") if settings.centred else ("variances", "spectrum", "mean")
    tensors = load_file(tmp_path / "cache" / "spectral.safetensors")
    kept = [tensor for name, tensor in tensors.items() if name.rpartition(".")[2] not in extra]
    assert sum(tensor.nbytes for tensor in kept) == codec.fixed_bytes


def test_the_json_says_what_it_is(tmp_path, codec_of):
    save(codec_of("phi", torch.float64, SETTINGS[0]), tmp_path / "cache")
    fields = json.loads((tmp_path / "cache" / "spectral.json").read_text())
    assert fields["schema_version"] == 1
    assert fields["model"]["model_type"] == "phi"
    assert fields["model"]["declared"]["num_key_value_heads"] == 2
    assert fields["settings"]["bits"] == 3.0
    assert len(fields["layers"]) == 3
    assert fields["layers"][2]["keys"] == {
        "heads": 2, "width": 12, "rotation": "spectral", "centred": True, "rotary": 6, "codec": "levels",
        "normalize": False, "sketch": 0,
    }  # fmt: skip
    assert fields["layers"][2]["values"]["rotary"] == 0


def test_what_was_read_shares_nothing_with_the_file(tmp_path, codec_of):
    again = reloaded(codec_of("opt", torch.float64, SETTINGS[0]), tmp_path / "cache")
    x = vectors(again, seed=4)[0]
    before = again.keys[0].decode(again.keys[0].encode(x))
    (tmp_path / "cache" / "spectral.safetensors").write_bytes(b"")
    assert torch.equal(again.keys[0].decode(again.keys[0].encode(x)), before)


def test_the_public_names(tmp_path, codec_of):
    codec = codec_of("opt", torch.float64, SETTINGS[0])
    save_cache_codec(codec, tmp_path / "cache")
    assert load_cache_codec(tmp_path / "cache").model == codec.model


@pytest.mark.parametrize("family", ["llama", "phi"])
def test_a_cache_of_another_model_is_refused(tmp_path, family, tiny, codec_of):
    again = reloaded(codec_of("opt", torch.float64, SETTINGS[0]), tmp_path / "cache")
    with pytest.raises(RotcheckError, match=f"another model: model type opt, this model has {family}"):
        SpectralCache(again, tiny(family).config)


@pytest.mark.parametrize(("field", "value"), [("num_attention_heads", 8), ("num_key_value_heads", 4), ("head_dim", 10)])
def test_a_model_of_other_heads_is_refused(tmp_path, field, value, tiny, codec_of):
    """Everything else in the configuration is the same, the width of the stream included."""
    again = reloaded(codec_of("llama", torch.float64, SETTINGS[0]), tmp_path / "cache")
    own = tiny("llama").config
    SpectralCache(again, own)
    config = type(own)(**{**own.to_dict(), field: value})
    with pytest.raises(RotcheckError, match=f"another model: {field}"):
        SpectralCache(again, config)


def test_a_directory_with_files_is_not_written_to(tmp_path, codec_of):
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "notes.txt").write_text("mine")
    with pytest.raises(RotcheckError, match="not empty"):
        save(codec_of("opt", torch.float64, SETTINGS[0]), tmp_path / "cache")
    assert [path.name for path in tmp_path.rglob("*")] == ["cache", "notes.txt"]


def test_an_empty_directory_and_missing_parents_are_fine(tmp_path, codec_of):
    codec = codec_of("opt", torch.float64, SETTINGS[0])
    (tmp_path / "empty").mkdir()
    save(codec, tmp_path / "empty")
    save(codec, tmp_path / "some" / "where" / "cache")
    assert load(tmp_path / "empty").model == load(tmp_path / "some/where/cache").model


@pytest.mark.parametrize("kind", ["file", "link"])
def test_a_path_that_is_no_directory_is_not_replaced(tmp_path, kind, codec_of):
    target = tmp_path / "cache"
    target.write_text("mine") if kind == "file" else target.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(RotcheckError, match="not a directory"):
        save(codec_of("opt", torch.float64, SETTINGS[0]), target)
    assert [path.name for path in tmp_path.iterdir()] == ["cache"]


def test_a_failure_leaves_nothing_behind(tmp_path, codec_of, monkeypatch):
    def full(tensors, path, metadata):
        Path(path).write_text("half")
        raise OSError("disk full")

    monkeypatch.setattr("rotcheck.spectral.store.save_file", full)
    with pytest.raises(OSError, match="disk full"):
        save(codec_of("opt", torch.float64, SETTINGS[0]), tmp_path / "cache")
    assert list(tmp_path.iterdir()) == []
