"""Every architecture, sliced and with rotations that act while it runs, comes back from disk bit by bit."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import rotcheck
from rotcheck.models import architecture_of
from rotcheck.models.tiny import SMALL
from rotcheck.slicing import Schedule, inner_plan, load, random_plan, rotate_and_slice, save

POST_NORM = ("gemma2", "gemma3_text")

SCRIPT = """
import sys
import torch
from transformers import AutoModelForCausalLM
import rotcheck.slicing

folder, *names = sys.argv[1:]
torch.set_num_threads(1)
for name in names:
    batch = torch.load(f"{folder}/{name}.ids", weights_only=True)
    readers = (rotcheck.slicing.load, AutoModelForCausalLM.from_pretrained)
    with torch.no_grad():
        logits = [reader(f"{folder}/{name}")(**batch).logits for reader in readers]
    torch.save(logits, f"{folder}/{name}.logits")
"""


def sliced(model):
    plan = None
    if model.config.model_type not in POST_NORM:
        branches = len(architecture_of(model).branches)
        plan = random_plan(48, 3, "k-block:2", Schedule.constant(0.25, round_to=1), 3, branches=branches)
    return rotate_and_slice(model, plan, inner=inner_plan(model, seed=4))


def answers(model, batch):
    with torch.no_grad():
        return model(**batch).logits


@pytest.mark.parametrize(
    ("model_type", "tied"), [*((model_type, False) for model_type in SMALL), ("opt", True), ("gemma2", True)]
)
def test_in_this_process(model_type, tied, subject, tmp_path):
    made = subject(model_type, tied=tied, dtype=torch.float32)
    model = sliced(made.model)
    save(model, tmp_path / "model")
    back = load(tmp_path / "model")
    assert not back.training
    before, after = model.state_dict(), back.state_dict()
    assert list(before) == list(after)
    assert all(torch.equal(before[name], after[name]) for name in before)
    online = [name for name in after if ".rotation." in name]
    sites = 6 if model_type != "qwen2_moe" else 9
    assert sum(name.endswith(".bases") for name in online) == 3
    assert sum(name.endswith((".signs", ".factor_0")) for name in online) == 2 * (sites - 3)
    assert torch.equal(answers(back, made.batch), answers(model, made.batch))


def test_in_another_process_by_both_ways_in(subject, tmp_path):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        expected = {}
        for model_type, dtype in (*((model_type, torch.bfloat16) for model_type in SMALL), ("opt", torch.float64)):
            made, name = subject(model_type, dtype=dtype), f"{model_type}-{dtype}"
            model = sliced(made.model)
            save(model, tmp_path / name)
            torch.save(made.batch, tmp_path / f"{name}.ids")
            expected[name] = answers(model, made.batch)
    finally:
        torch.set_num_threads(threads)
    root = str(Path(rotcheck.__file__).parents[1])
    environment = {**os.environ, "PYTHONPATH": root, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-c", SCRIPT, str(tmp_path), *expected]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    for name, logits in expected.items():
        for found in torch.load(tmp_path / f"{name}.logits", weights_only=True):
            assert found.dtype == logits.dtype
            assert torch.equal(found, logits), name
