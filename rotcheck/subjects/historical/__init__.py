"""Ways in which a public package rotates a KV cache, written anew from their descriptions: two right, two wrong."""

from __future__ import annotations

from rotcheck.subjects.historical.subjects import historical_subjects

__all__ = ["historical_subjects"]
