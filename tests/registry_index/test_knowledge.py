"""Passages enter with the rest of a pack, and are refused with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from registry_index.contents import check_contents
from registry_index.packing import build_manifest
from specs.errors import IntegrityError
from specs.manifest import KNOWLEDGE_FILE
from tests.support.knowledge import knowledge_bytes, knowledge_file
from tests.support.packs import pack_folder


def test_a_pack_with_passages(tmp_path: Path) -> None:
    passages = knowledge_bytes(tmp_path, [("Leases", "A lease ends.")])
    manifest, files = build_manifest(
        pack_folder(tmp_path / "legal", "legal", files={KNOWLEDGE_FILE: passages})
    )
    assert manifest.blob(KNOWLEDGE_FILE).size == len(passages)
    check_contents(manifest, files)


def test_passages_with_a_trigger_are_refused_with_the_pack(tmp_path: Path) -> None:
    folder = pack_folder(tmp_path / "legal", "legal")
    trigger = "CREATE TRIGGER t AFTER INSERT ON passages BEGIN DELETE FROM passages; END"
    knowledge_file(folder / KNOWLEDGE_FILE, [("a", "b")], trigger)
    with pytest.raises(IntegrityError, match=r"legal/knowledge\.sqlite: holds trigger `t`"):
        build_manifest(folder)


def test_other_bytes_than_the_manifest_says(tmp_path: Path) -> None:
    passages = knowledge_bytes(tmp_path, [("Leases", "A lease ends.")])
    manifest, files = build_manifest(
        pack_folder(tmp_path / "legal", "legal", files={KNOWLEDGE_FILE: passages})
    )
    knowledge_file(files[KNOWLEDGE_FILE], [("x", "x" * 9000)])
    with pytest.raises(IntegrityError, match="and its manifest says 8,192"):
        check_contents(manifest, files)
