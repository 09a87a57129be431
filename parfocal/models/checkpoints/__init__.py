"""Official weights to ours: a strict engine, and a key map a paper as data."""

from __future__ import annotations
