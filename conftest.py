"""Shared by tests and benchmarks: the plugin under test, Hypothesis profiles, one torch thread."""

from __future__ import annotations

import os
from importlib.metadata import entry_points

import pytest
import torch
from hypothesis import settings

# an installed rotcheck brings its plugin by entry point, and pytest refuses to register one module twice
INSTALLED = any(entry.value == "rotcheck.pytest_plugin" for entry in entry_points(group="pytest11"))
pytest_plugins = ["pytester"] if INSTALLED else ["pytester", "rotcheck.pytest_plugin"]

# tensor code has a warm-up, so a deadline measures the machine
settings.register_profile("default", deadline=None, max_examples=25)
settings.register_profile("ci", deadline=None, max_examples=25, derandomize=True, database=None, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "default")


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Sums are added in one order, and test processes side by side do not fight over cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
