"""``rotcheck slice --rotate``: R1 to R4 at full width, alone or beside a plan, with a manifest of the bases."""

from __future__ import annotations

import shutil

import pytest
import torch

from rotcheck.models.adversarial import adversarial_opt
from rotcheck.models.bundled import model_directory
from rotcheck.models.tiny import adversarial_model
from rotcheck.slicing import load, parameter_counts, read_manifest, verify_manifest


@pytest.fixture(scope="session")
def tiny_llama(tmp_path_factory):
    """Tiny models by type, on disk with the bundled tokenizer."""
    made = {}

    def directory(model_type, **options):
        key = (model_type, *sorted(options.items()))
        if key not in made:
            made[key] = tmp_path_factory.mktemp("models") / model_type
            model = adversarial_model(model_type, seed=1, layers=2, dtype=torch.float32, vocab_size=1024, **options)
            model.save_pretrained(made[key])
            for path in model_directory().glob("tokenizer*"):
                shutil.copy(path, made[key])
        return str(made[key])

    return directory


@pytest.fixture
def rotated(call, small_text, tmp_path):
    """Run the command; gives the printed facts and the model that was written."""

    def invoke(model, *arguments: str, out: str = "out"):
        common = ["--context", "16", "--eval-text", str(small_text)]
        result = call("slice", model, "--out", out, *common, *arguments)
        assert result.exit_code == 0, result.output
        assert result.stderr == ""
        facts = {line.split()[0]: line.split(maxsplit=1)[1] for line in result.stdout.splitlines()}
        assert verify_manifest(tmp_path / out) == ()
        return facts, load(tmp_path / out)

    return invoke


def test_one_command_rotates_everything_and_slices_nothing(rotated, tiny_llama, tmp_path):
    facts, model = rotated(tiny_llama("llama"), "--rotate", "R1,R2,R3,R4")
    assert facts["rotations"] == "R1 R2 R3 R4, random-hadamard, seed 0"
    assert facts["plan"] == "random-hadamard global seed 0, 1 basis at 5 sites"
    assert facts["widths"] == "48 at 5 sites, of 48"
    assert facts["manifest"] == "bases.json, bases.safetensors"
    assert "(x 1.000)" in facts["perplexity"]
    assert model.config.online_queries is True
    assert model.config.online_hidden == [[112]] * 2
    manifest = read_manifest(tmp_path / "out")
    assert sorted({basis.role for basis in manifest.facts.bases}) == ["R1", "R2", "R3", "R4"]
    by_id = {basis.id: manifest.factored(basis).matrix() for basis in manifest.facts.bases}
    for basis in by_id.values():  # Hadamard: entries of one size
        torch.testing.assert_close(basis.abs(), torch.full_like(basis, len(basis) ** -0.5))
    assert not torch.equal(by_id["R1.0"], by_id["R1.0"].T)


@pytest.mark.parametrize(
    ("kinds", "seen"),
    [("R1", []), ("R2", []), ("R3", ["queries"]), ("R4", ["hidden"]), ("R4,R3", ["hidden", "queries"])],
)
def test_some_of_them(rotated, tiny_llama, kinds, seen):
    facts, model = rotated(tiny_llama("llama"), "--rotate", kinds, "--basis", "haar")
    online = {"queries": model.config.online_queries, "hidden": model.config.online_hidden is not None}
    assert sorted(name for name, there in online.items() if there) == seen
    assert ("plan" in facts) == (kinds == "R1")
    assert "(x 1.000)" in facts["perplexity"]


def test_a_plan_with_rotations_beside_it(rotated, tiny_model, small_text):
    options = ["--plan", "per-layer", "--sparsity", "0.25", "--text", str(small_text), "--tokens", "256"]
    facts, model = rotated(str(tiny_model), *options, "--rotate", "R2,R4", "--basis", "haar")
    assert facts["plan"].startswith("per-layer raw pca, 5 bases at 5 sites")
    assert facts["rotations"] == "R2 R4, haar, seed 0"
    assert parameter_counts(model)["shortcuts"] == 4
    assert model.config.online_hidden == [[8, 9]] * 2


@pytest.mark.parametrize("basis", ["hadamard", "haar", "random-hadamard"])
def test_families(rotated, tiny_llama, basis, tmp_path):
    rotated(tiny_llama("llama"), "--rotate", "R1,R4", "--basis", basis)
    stream, *inner = read_manifest(tmp_path / "out").facts.bases
    assert stream.sites == (0, 1, 2, 3, 4)
    assert all(part.factors == ((8, 14) if basis == "haar" else (112,)) for part in inner)


def test_the_seed_draws_other_bases(rotated, tiny_llama, tmp_path):
    for out, seed in (("one", "1"), ("again", "1"), ("two", "2")):
        rotated(tiny_llama("llama"), "--rotate", "R1,R3", "--seed", seed, out=out)
    one, again, two = ((tmp_path / out / "bases.safetensors").read_bytes() for out in ("one", "again", "two"))
    assert one == again != two


def test_private_bases(rotated, tiny_llama, tmp_path):
    facts, _ = rotated(tiny_llama("llama"), "--rotate", "R1,R2", "--private")
    assert facts["manifest"] == "bases.json (hashes only)"
    assert not (tmp_path / "out" / "bases.safetensors").exists()
    assert read_manifest(tmp_path / "out").private


@pytest.mark.parametrize("model_type", ["gemma2", "gemma3_text"])
def test_a_stream_that_cannot_be_rotated_keeps_the_others(rotated, tiny_llama, model_type):
    facts, model = rotated(tiny_llama(model_type, head_dim=20), "--rotate", "R2,R3,R4")
    assert "plan" not in facts
    assert model.config.site_widths is None
    assert "(x 1.000)" in facts["perplexity"]


@pytest.fixture
def refused_rotation(refused, tiny_llama, tmp_path):
    def invoke(*arguments: str, model: str | None = None) -> str:
        before = sorted(tmp_path.rglob("*"))
        message = refused("slice", model or tiny_llama("llama"), "--out", "out", "--context", "16", *arguments)
        assert [path for path in sorted(tmp_path.rglob("*")) if "__pycache__" not in path.parts] == before
        return message

    return invoke


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "nothing to do: give --plan and --sparsity, --rotate R1,R2,R3,R4, or both"),
        (["--plan", "global"], "--plan needs --sparsity: give both, or --rotate R1 for the stream at full width"),
        (["--sparsity", "0.25"], "nothing to do"),
        (["--rotate", ""], "--rotate : '' is not one of R1, R2, R3, R4"),
        (["--sparsity", "0.25", "--rotate", "R1"], "--sparsity needs --plan: give both"),
        (["--plan", "global", "--sparsity", "0", "--basis", "haar"], "--basis haar is for --rotate: leave it out"),
        (
            ["--plan", "global", "--sparsity", "0", "--rotate", "R1"],
            "--rotate R1 and --plan global both give the stream",
        ),
        (["--rotate", "R2,R3,R2"], "--rotate R2,R3,R2: R2 is named twice: name each rotation once"),
        (["--rotate", "R5"], "--rotate R5: 'R5' is not one of R1, R2, R3, R4"),
        (["--rotate", "r1"], "--rotate r1: 'r1' is not one of"),
        (["--rotate", "R1,,R2"], "--rotate R1,,R2: '' is not one of"),
        (["--rotate", "all"], "'all' is not one of R1, R2, R3, R4"),
        (["--rotate", "R1", "--text", "mine.py"], "--text is for --plan: leave it out, or give --plan and --sparsity"),
        (["--rotate", "R1", "--mode", "sequential"], "--mode is for --plan"),
        (["--rotate", "R1", "--statistic", "token-rms"], "--statistic is for --plan"),
        (["--rotate", "R1", "--orientation", "haar"], "--orientation is for --plan"),
        (["--rotate", "R1", "--slice-head"], "--slice-head is for --plan"),
        (["--rotate", "R1", "--change", "attention"], "--change is for --plan"),
        (["--rotate", "R1", "--seed", "9" * 30], "seed 99"),
    ],
)
def test_refusals(refused_rotation, arguments, says):
    assert says in refused_rotation(*arguments)


def test_a_size_without_hadamard_matrix_is_named(refused_rotation, tiny_llama):
    model = tiny_llama("llama", intermediate_size=92)
    message = refused_rotation("--rotate", "R4", model=model)
    assert message.startswith("R4: layer 0 feed-forward has 92 coordinates, and no Sylvester or Paley matrix has that")
    assert message.endswith("use haar, or leave R4 out")
    model = tiny_llama("llama", hidden_size=60, head_dim=10)
    assert refused_rotation("--rotate", "R1,R2", model=model).startswith("R2: layer 0 heads has 10 coordinates")


@pytest.mark.parametrize("arguments", [["--rotate", "R1,R2"], ["--plan", "global", "--sparsity", "0"]])
def test_a_stream_that_cannot_be_rotated_is_refused(refused_rotation, tiny_llama, arguments):
    message = refused_rotation(*arguments, model=tiny_llama("gemma2", head_dim=20))
    assert "gemma2 has norms on the outputs of its branches" in message
    assert message.endswith("rotate heads and feed-forward dimensions (R2, R3, R4) only")


def test_an_undeclared_architecture_is_refused(refused_rotation, tmp_path):
    (tmp_path / "gpt").mkdir()
    (tmp_path / "gpt" / "config.json").write_text('{"model_type": "gpt2"}')
    assert refused_rotation("--rotate", "R2", model="./gpt").startswith("model type 'gpt2' is not declared")


def test_a_rotated_model_is_not_rotated_again(rotated, refused_rotation, tiny_llama):
    rotated(tiny_llama("llama"), "--rotate", "R3", out="once")
    assert "already sliced" in refused_rotation("--rotate", "R2", model="./once")


def test_without_windows_neither_tokenizer_nor_context_is_asked_for(call, tiny_llama, tmp_path):
    """A model of 64 positions, and the default context of 256: no text is read."""
    source = shutil.copytree(tiny_llama("llama"), tmp_path / "mute", ignore=shutil.ignore_patterns("tokenizer*"))
    arguments = ["--rotate", "R1,R2", "--eval-text", "none"]
    result = call("slice", str(source), "--out", "out", *arguments)
    assert result.exit_code == 0, result.output
    assert "tokenizer   not written: " in result.stdout
    assert verify_manifest(tmp_path / "out") == ()
    assert call("slice", tiny_llama("llama"), "--out", "spoken", *arguments).exit_code == 0
    assert (tmp_path / "spoken" / "tokenizer.json").is_file()


@pytest.mark.parametrize("more", [[], ["--eval-text", "none", "--plan", "global", "--sparsity", "0"]])
def test_where_windows_are_read_the_context_is_checked(refused, tiny_llama, more):
    named = ["--rotate", "R2", "--basis", "haar", *more]
    message = refused("slice", tiny_llama("llama"), "--out", "out", *named)
    assert message == "--context 256: the model takes 64 tokens: use at most that"


def test_post_norm_opt_has_its_inner_rotations(rotated, tmp_path):
    """OPT-350m: its gains stay on the stream."""
    directory = tmp_path / "post"
    model = adversarial_opt(seed=0, layers=2, vocab_size=1024, max_positions=64, dtype=torch.float32)
    model.config.do_layer_norm_before = False
    post = type(model)(model.config).eval()
    post.load_state_dict(model.state_dict(), strict=False)
    post.save_pretrained(directory)
    for path in model_directory().glob("tokenizer*"):
        shutil.copy(path, directory)
    facts, _ = rotated(str(directory), "--rotate", "R2,R3,R4")
    assert "(x 1.000)" in facts["perplexity"]
