"""The messages as a whole: what is wrong, where, against what, how large, and what to do."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from rotcheck.defects import defects
from rotcheck.outcome import Outcome

NUMBER = re.compile(r"-?\d+(\.\d+)?e[-+]\d+|\d+\.\d{3,}")

MESSAGES = {
    ("cache_basis_of_the_next_head", "side"): """
ROT103 side: planted computes x in the basis of layer 0 head 1 keys at layer 0 head 0 keys, declared x @ basis
  declared  x @ basis                           relative error N
  rival     x @ basis.T                         relative error N
  rival     x @ basis.flip(1)                   relative error N
  rival     x @ basis.flip(0)                   relative error N
  rival     x @ basis.flip(1).T                 relative error N
  rival     x @ basis @ basis                   relative error N
  rival     x                                   relative error N
  rival     -(x @ basis)                        relative error N
  matches   x in the basis of layer 0 head 1 keys  relative error N
  place     layer 0 head 0 keys
  measured  heads = 12
  measured  heads failed = 6
  hint      the basis of layer 0 head 1 keys was looked up instead: check the layer and head index
""",
    ("cache_values_never_unrotated", "lossless_cache"): """
  declared  the logits of a plain cache  relative error N
  rival     values that are still rotated  relative error N
  rival     keys that are still rotated for queries that are not  relative error N
  matches   values that are still rotated, with their mean  relative error N
  place     layer 0 head 0 values
  witness   35 tokens, 4 of each row decoded one at a time
  hint      store x @ U and return y @ U.T; rotate after RoPE; un-rotate values by their own basis
""",
    ("cache_norms_not_reordered", "streaming"): """
  place     layer 1 head 0 keys, filled with rows reordered before the last token
  hint      all that is kept beside the codes must follow reorder_cache
""",
    ("cache_norms_not_cropped", "streaming"): """
  hint      all that is kept beside the codes must follow crop
""",
    ("cache_batch_dropped", "streaming"): """
  hint      rows must not depend on one another: look for states[0], or for a scale of the whole batch
""",
    ("cache_prompt_as_given", "streaming"): """
  hint      a prompt at once comes back as it was given: give back what is stored, also to the prompt itself
""",
    ("cache_query_heads_dealt_out", "scores"): """
  matches   the scores of queries in the basis of KV head 1 (heads dealt out in turn)  relative error N
  place     layer 0 query head 1
  hint      query heads 0 to 1 read KV head 0
""",
    ("cache_whole_head_under_partial_rotary", "rotary_blocks"): """
  declared  axes in the first 12 coordinates or in the others  relative error N
  matches   the principal axes of the whole head  relative error N
  witness   the axes of a head of width 20
  hint      diagonalise the first 12 coordinates and the other 8 by themselves
""",
    ("cache_layer_skipped", "coverage"): """
  matches   compressed vectors in 8 of 12 heads                      relative error N
  allowed   N = places are counted
  place     layer 2 head 0 keys, layer 2 head 0 values, layer 2 head 1 keys and 1 more
  witness   keys and values of 14 tokens, handed to the cache and given back
  hint      these come back bit for bit as they were given: look at which layers get the compressing cache
""",
    ("cache_width_derived", "coverage"): """
ROT501 coverage: planted declares a rotation of width 11 for vectors of width 20 at layer 0 head 0 keys
  place     layer 0 head 0 keys
  hint      read the width from the projection or from the cache; hidden_size / heads is another number
""",
    ("cache_norms_not_counted", "cache_bytes"): """
ROT507 cache_bytes: planted takes per token 120 bytes, declared 96 bytes
  allowed   N = bytes are counted
  witness   7, 10, 14 tokens, batch of 3
  measured  bytes per token held = 120
  measured  bytes per token declared = 96
  hint      count norms, ranges, sketches and the bytes that codes really take
""",
    ("cache_mean_not_saved", "cache_reload"): """
  rival     exact keys and values     relative error N
  allowed   N = bit equality: the same numbers are read back
  place     layer 0 head 0 keys
  witness   keys and values of 14 tokens
  hint      compare what is saved with what is used, tensor by tensor
""",
    ("cache_hook_never_fires", "cache_used"): """
  hint      count the calls of update or of the compressor, and compare what it returns with what it was given
""",
    ("cache_bits_without_effect", "cache_used"): """
  hint      look at where the number of bits reaches the codes, and whether codes were fitted to what they code
""",
}  # fmt: skip


def plain(text: str) -> list[str]:
    """Lines with numbers as N and without the padding of columns."""
    return [re.sub(r"(?<=\S)  +", "  ", NUMBER.sub("N", line)) for line in text.strip("\n").splitlines()]


@pytest.mark.parametrize(("name", "check"), MESSAGES, ids=lambda value: value)
def test_the_lines_of_the_message(judge, name, check):
    defect = next(d for d in defects("CacheRotation") if d.name == name)
    said = plain(str(judge(check, defect.plant(0))))
    expected = plain(MESSAGES[name, check])
    assert [line for line in expected if line not in said] == [], "\n".join(said)
    assert [line for line in said if line in expected] == expected  # in this order
    assert all(len(line) < 260 for line in said)


@pytest.mark.parametrize(
    "check", ["coverage", "lossless_cache", "streaming", "scores", "cache_used", "cache_bytes", "cache_reload", "side"]
)
def test_a_pass_is_one_claim_without_a_place_or_a_hint(judge, right, check):
    verdict = judge(check, replace(right, name="my cache"))
    assert verdict.outcome is Outcome.PASSED
    assert verdict.headline.startswith("my cache ")
    assert verdict.hint == verdict.needs == ""
    assert " at layer " not in verdict.headline
    assert "declared" not in verdict.headline


def test_every_failure_names_the_subject_first(judge):
    for defect in defects("CacheRotation")[::5]:
        verdict = judge(defect.killed_by[0], defect.plant(0))
        assert verdict.headline.startswith("planted ")
        assert str(verdict).splitlines()[0] == f"{verdict.code} {verdict.check}: {verdict.headline}"
