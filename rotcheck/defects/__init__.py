"""Planted bugs, one family per file, each with the public issue where it was seen."""

from __future__ import annotations

from rotcheck.defects.defect import Defect, defects

__all__ = ["Defect", "defects"]
