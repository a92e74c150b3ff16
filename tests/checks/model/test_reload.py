"""``reload`` saves, loads and demands the same bits, dtype and mode."""

from __future__ import annotations

import tempfile
from dataclasses import replace

import pytest
import torch

from rotcheck.defects.running import _online_rotation_not_saved, _shortcut_not_saved
from rotcheck.slicing import fuse


def test_silent_on_right_models(right_pair, passes):
    verdict = passes("reload", right_pair)
    assert verdict.claim.error == 0.0
    assert dict(verdict.facts)["tensors not restored"] == 0.0


def test_silent_on_sliced_models(right_sliced, passes):
    passes("reload", right_sliced)


def test_silent_in_bfloat16(coarse_pair, passes):
    passes("reload", coarse_pair)


def test_silent_on_sliced_models_in_bfloat16(coarse_sliced, passes):
    passes("reload", coarse_sliced)


def test_silent_on_the_original(build, passes):
    subject = build.pair()
    passes("reload", replace(subject, after=subject.before))


def test_a_shortcut_outside_the_state_dict(fails):
    verdict = fails("reload", _shortcut_not_saved(1))
    assert "model.decoder.layers.0.attention_shortcut" in str(verdict)


def test_an_online_rotation_that_is_a_hook(fails, passes):
    subject = _online_rotation_not_saved(1)
    passes("equivalence", subject)
    verdict = fails("reload", subject)
    assert verdict.claim.error > 0.01
    assert verdict.hint == "compare the two state dictionaries tensor by tensor"


def test_a_head_that_is_tied_on_loading(build, fails):
    subject = build.pair()
    after = fuse(subject.before)
    after.config.tie_word_embeddings = True
    fails("reload", replace(subject, after=after))


def test_one_changed_bit_is_seen(build, fails, monkeypatch):
    subject = build.pair()
    kind = type(subject.after)
    load = kind.from_pretrained

    def changed(directory, **options):
        model, info = load(directory, **options)
        weight = model.lm_head.weight.data
        weight[0] = torch.nextafter(weight[0], torch.full_like(weight[0], float("inf")))
        return model, info

    monkeypatch.setattr(kind, "from_pretrained", changed)
    assert 0 < fails("reload", subject).claim.error < 1e-13


def test_a_tensor_that_is_made_anew_is_named(build, fails, monkeypatch):
    subject = build.pair()
    stock = replace(subject, after=subject.before)
    save = type(stock.after).save_pretrained

    def lossy(model, directory, **options):
        kept = {n: t for n, t in model.state_dict().items() if n != "model.decoder.layers.1.fc1.weight"}
        save(model, directory, state_dict=kept, **options)

    monkeypatch.setattr(type(stock.after), "save_pretrained", lossy)
    verdict = fails("reload", stock)
    assert verdict.hint == "not restored: model.decoder.layers.1.fc1.weight"
    assert dict(verdict.facts)["tensors not restored"] == 1.0


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda model: model.to(torch.float16), "comes back in another dtype: saved float64, loaded float16"),
        (lambda model: model.train(), "comes back in train mode: dropout would be active"),
    ],
    ids=["dtype", "mode"],
)
def test_what_comes_back_must_be_the_same_kind_of_model(spoil, said, build, fails, monkeypatch):
    subject = build.pair()
    kind = type(subject.after)
    load = kind.from_pretrained

    def changed(directory, **options):
        model, info = load(directory, **options)
        return spoil(model), info

    monkeypatch.setattr(kind, "from_pretrained", changed)
    assert fails("reload", subject).headline == f"subject {said}"


def test_saving_that_raises_is_a_failure(build, fails, monkeypatch):
    subject = build.pair()

    def refuse(self, directory):
        raise NotImplementedError("not today")

    monkeypatch.setattr(type(subject.after), "save_pretrained", refuse)
    assert "save_pretrained of subject raised NotImplementedError: not today" in fails("reload", subject).headline


def test_nothing_is_left_on_the_disk(build, passes, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    passes("reload", build.pair(layers=1, grouping="global"))
    assert not list(tmp_path.iterdir())


def test_functions_cannot_be_saved(callables, lacks):
    lacks("reload", callables, "module")
