"""What strangers write, made here from our own models and matrices."""

from __future__ import annotations

import re

import pytest
import torch

from rotcheck.errors import RotcheckError
from rotcheck.models.adversarial import adversarial_batch, adversarial_opt
from rotcheck.slicing import Schedule, random_plan, rotate_and_slice

THEIR_SHORTCUTS = {
    "attention_shortcut": "attn_shortcut_Q",
    "feed_forward_shortcut": "mlp_shortcut_Q",
    "parallel_shortcut": "attn_shortcut_Q",
}


@pytest.fixture(scope="session")
def refused():
    """That a call is refused in one line that says all of these."""

    def check(call, *says):
        with pytest.raises(RotcheckError) as raised:
            call()
        # The directory is named for the test, and would say what the message should.
        text = re.sub(r"\S*/pytest-\d+/[^/\s]+/", "", str(raised.value))
        assert "\n" not in text
        for part in says:
            assert part in text, text
        return text

    return check


@pytest.fixture(scope="session")
def said():
    """What a call says where it refuses, on one line; nothing where it answers."""

    def check(call):
        text = ""
        try:
            call()
        except RotcheckError as error:
            text = str(error)
        assert "\n" not in text
        assert len(text) < 500
        return text

    return check


@pytest.fixture(scope="session")
def base():
    """The stock model that was sliced; all sizes differ."""
    return adversarial_opt(
        seed=401, layers=2, hidden_size=24, heads=3, ffn_dim=19, vocab_size=31, max_positions=16, dtype=torch.float64
    )


@pytest.fixture(scope="session")
def batch(base):
    return adversarial_batch(base, seed=402, batch=2, length=7)


@pytest.fixture(scope="session")
def slice_as():
    """A sliced model in half precision, by grouping and widths."""

    def sliced(model, grouping, widths):
        plan = random_plan(model.config.hidden_size, 2, grouping, Schedule.explicit(widths), seed=403)
        return rotate_and_slice(model, plan).to(torch.float16)

    return sliced


@pytest.fixture(scope="session")
def their_names():
    """The state dict of a sliced model as SliceGPT names it."""

    def renamed(model):
        found = {}
        for name, tensor in model.state_dict().items():
            parent, _, leaf = name.rpartition(".")
            found[f"{parent}.{THEIR_SHORTCUTS.get(leaf, leaf)}"] = tensor
        return found

    return renamed


@pytest.fixture(scope="session")
def their_json():
    """A ``SlicingConfig`` as SliceGPT's scheduler fills it for sequential blocks."""

    def fields(model, *, head_sliced=False):
        widths = model.config.site_widths
        attention, feed_forward = widths[:-1:2], widths[1::2]
        return {
            "hidden_size": model.config.hidden_size,
            "layers_num": model.config.num_hidden_layers,
            "do_slice_head": head_sliced,
            "parallel_blocks": False,
            "embedding_dimensions": {"0": widths[0], "1": widths[0]},
            "attention_input_dimensions": {str(layer): width for layer, width in enumerate(attention)},
            "attention_output_dimensions": {str(layer): width for layer, width in enumerate(feed_forward)},
            "mlp_input_dimensions": {str(layer): width for layer, width in enumerate(feed_forward)},
            "mlp_output_dimensions": {str(layer): width for layer, width in enumerate(widths[2::2])},
            "head_dimension": widths[-1],
            "const_dimension": None,
        }

    return fields
