"""Saving and loading are inverse to one another: no bit of a tensor, no field and no byte of a file changes."""

from __future__ import annotations

import copy
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from rotcheck.slicing import load, rotate_and_slice, save
from rotcheck.strategies import adversarial_models, dtypes, plans


def contents(directory):
    return {path.name: path.read_bytes() for path in sorted(directory.iterdir())}


@settings(deadline=None, max_examples=10)
@given(data=st.data(), model=adversarial_models(), dtype=dtypes())
def test_save_load_save_is_save(data, model, dtype, identical, tmp_path_factory):
    """``load(save(m)) = m`` in every tensor and field, and ``save(load(save(m))) = save(m)`` byte for byte."""
    plan = data.draw(plans(model.config.hidden_size, model.config.num_hidden_layers))
    sliced = rotate_and_slice(copy.deepcopy(model).to(dtype), plan)
    with tempfile.TemporaryDirectory(dir=tmp_path_factory.getbasetemp()) as place:
        once, again, twice = (Path(place) / name for name in ("once", "again", "twice"))
        save(sliced, once)
        save(sliced, again)
        loaded = load(once)
        save(loaded, twice)
        assert contents(once) == contents(again) == contents(twice)
    assert identical(sliced, loaded)
    assert {parameter.dtype for parameter in loaded.parameters()} == {dtype}
    before, after = sliced.config.to_dict(), loaded.config.to_dict()
    for name in ("architectures", "_name_or_path"):  # transformers writes the class's name, and where it came from
        del before[name], after[name]
    assert before == after
    assert (loaded.config.site_widths, loaded.config.site_bases) == (list(plan.widths), list(plan.site_basis))
