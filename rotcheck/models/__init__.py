"""The residual stream, the heads and the feed-forward of each supported architecture, as data.

An architecture is added by one module with an :class:`Architecture` and one entry in ``declared.py``; another package
adds one through the entry-point group ``rotcheck.architectures``.
"""

from __future__ import annotations

from rotcheck.models.architecture import Architecture, Branch, Call, Experts, Heads, Hidden
from rotcheck.models.declared import ARCHITECTURES, architecture_of, declarations
from rotcheck.models.sites import HeadSite, HiddenSite, Site, head_sites, hidden_sites, sites

__all__ = [
    "ARCHITECTURES",
    "Architecture",
    "Branch",
    "Call",
    "Experts",
    "HeadSite",
    "Heads",
    "Hidden",
    "HiddenSite",
    "Site",
    "architecture_of",
    "declarations",
    "head_sites",
    "hidden_sites",
    "sites",
]
