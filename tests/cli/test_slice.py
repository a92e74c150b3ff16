"""``rotcheck slice`` writes a model that loads, and prints what it cost."""

from __future__ import annotations

import pytest

from rotcheck.slicing import load, parameter_counts


@pytest.fixture
def sliced(call, tiny_model, small_text, tmp_path):
    """Slice the tiny model; gives the printed facts and the model that was written."""

    def invoke(*arguments: str, out: str = "out"):
        common = ["--text", str(small_text), "--tokens", "256", "--context", "16", "--eval-text", str(small_text)]
        result = call("slice", str(tiny_model), "--out", out, *common, *arguments)
        assert result.exit_code == 0, result.output
        assert result.stderr == ""
        facts = {line.split()[0]: line.split(maxsplit=1)[1] for line in result.stdout.splitlines()}
        return facts, load(tmp_path / out)

    return invoke


@pytest.mark.parametrize(("plan", "shortcuts"), [("global", 0), ("k-block:1", 1), ("k-block:2", 0), ("per-layer", 4)])
def test_plans(sliced, plan, shortcuts):
    facts, model = sliced("--plan", plan, "--sparsity", "0.25")
    assert facts["shortcuts"].startswith(f"{shortcuts} matrices, ")
    assert parameter_counts(model)["shortcuts"] == shortcuts
    assert facts["plan"].startswith(f"{plan} raw pca")


def test_widths_are_rounded_and_the_head_is_whole(sliced):
    facts, model = sliced("--plan", "global", "--sparsity", "0.25")
    assert model.config.site_widths == [24, 24, 24, 24, 40]
    assert facts["widths"] == "24 at 4 sites, 40 at 1 site, of 40"


def test_round_to_and_slice_head(sliced):
    _, model = sliced("--plan", "global", "--sparsity", "0.25", "--round-to", "1", "--slice-head")
    assert model.config.site_widths == [30] * 5


def test_zero_sparsity_changes_nothing(sliced):
    facts, _ = sliced("--plan", "per-layer", "--sparsity", "0")
    assert "(x 1.000)" in facts["perplexity"]
    assert facts["perplexity"].endswith("on small.txt")


def test_perplexity_can_be_left_out(sliced):
    facts, _ = sliced("--plan", "global", "--sparsity", "0.25", "--eval-text", "none")
    assert "perplexity" not in facts


def test_parameters_are_counted(sliced):
    facts, model = sliced("--plan", "global", "--sparsity", "0.25")
    assert facts["parameters"].split()[2] == str(parameter_counts(model)["total"])


@pytest.mark.parametrize("statistic", ["unit-trace", "token-rms"])
def test_statistics(sliced, statistic):
    facts, _ = sliced("--plan", "global", "--sparsity", "0.25", "--statistic", statistic)
    assert statistic.replace("-", "_") in facts["plan"]


def test_sequential(sliced):
    facts, _ = sliced("--plan", "per-layer", "--sparsity", "0.25", "--mode", "sequential")
    assert "sequential" in facts["plan"]


def test_dtype(sliced):
    _, model = sliced("--plan", "global", "--sparsity", "0.25", "--dtype", "bfloat16")
    assert str(model.dtype) == "torch.bfloat16"


def test_the_seed_turns_the_haar_axes(sliced):
    options = ["--plan", "global", "--sparsity", "0.25", "--orientation", "haar", "--seed"]
    first, again, other = (sliced(*options, seed, out=f"out{n}")[1] for n, seed in enumerate(("1", "1", "2")))
    head = [model.lm_head.weight for model in (first, again, other)]
    embedding = [model.get_input_embeddings().weight for model in (first, again, other)]
    assert head[0].equal(head[1])
    assert embedding[0].equal(embedding[1])
    assert not embedding[0].equal(embedding[2])


def test_the_tokenizer_is_written_too(sliced, tmp_path):
    sliced("--plan", "global", "--sparsity", "0.25")
    assert (tmp_path / "out" / "tokenizer.json").is_file()


def test_an_empty_directory_is_used(sliced, tmp_path):
    (tmp_path / "out").mkdir()
    sliced("--plan", "global", "--sparsity", "0.25")
