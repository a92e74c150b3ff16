"""Another process reads the directory back with bit-identical logits, by both ways in."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import torch

import rotcheck
from rotcheck.models.adversarial import adversarial_batch, adversarial_opt
from rotcheck.slicing import Schedule, random_plan, rotate_and_slice, save

SCRIPT = """
import sys
import torch
from transformers import AutoModelForCausalLM
import rotcheck.slicing

folder = sys.argv[1]
torch.set_num_threads(1)
for name in ("float64", "bfloat16"):
    ids = torch.load(f"{folder}/ids.pt", weights_only=True)
    readers = (rotcheck.slicing.load, AutoModelForCausalLM.from_pretrained)
    with torch.no_grad():
        logits = [reader(f"{folder}/{name}")(**ids).logits for reader in readers]
    torch.save(logits, f"{folder}/{name}.pt")
"""


def test_logits_are_bit_identical(tmp_path):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        expected = {}
        for name in ("float64", "bfloat16"):
            model = adversarial_opt(seed=141, dtype=getattr(torch, name))
            sliced = rotate_and_slice(model, random_plan(40, 3, "k-block:2", Schedule.constant(0.25), 142))
            batch = adversarial_batch(model, seed=143)
            save(sliced, tmp_path / name)
            torch.save(batch, tmp_path / "ids.pt")
            with torch.no_grad():
                expected[name] = sliced(**batch).logits
    finally:
        torch.set_num_threads(threads)
    root = str(Path(rotcheck.__file__).parents[1])
    environment = {**os.environ, "PYTHONPATH": root, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path)], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    for name, logits in expected.items():
        for found in torch.load(tmp_path / f"{name}.pt", weights_only=True):
            assert found.dtype == logits.dtype
            assert torch.equal(found, logits)
