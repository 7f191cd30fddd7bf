"""The registries that are known: their list, tokens, caches, and who first provided a name."""

from __future__ import annotations
