"""Registries as files: reading, packing, archives and publishing."""

from __future__ import annotations

from pathlib import Path

from registry_index.tree import Registry


def bundled() -> Registry:
    """The registry that ships with the program and is trusted as part of it."""
    return Registry(Path(__file__).parent / "bundled")
