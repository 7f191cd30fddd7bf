"""Passages of documents for a pack's `knowledge.sqlite`."""

from __future__ import annotations

from pathlib import Path

import pytest

from specs.errors import UsageError
from specs.knowledge import MAX_TITLE_BYTES, read_passages
from trainer.data.files import find_files
from trainer.data.knowledge import passages_of, write_knowledge


def test_passages_are_titled_by_document_and_heading(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text(
        "# Lease\n\nIt begins.\n\n## Rent\n\n" + "Rent is due on the first day of a month. " * 40
    )
    (tmp_path / "b_c.txt").write_text("Only text, in two sentences. Of it here is the second.")
    (tmp_path / "d.jsonl").write_text('{"prompt": "q", "response": "r"}')
    passages = passages_of(find_files(tmp_path))
    assert [p.title for p in passages] == ["Lease", *["Lease: Rent"] * (len(passages) - 2), "b c"]
    assert len(passages) >= 4
    file = tmp_path / "knowledge.sqlite"
    write_knowledge(file, passages)
    write_knowledge(file, passages)
    assert list(read_passages(file)) == passages


def test_a_long_title_is_cut_at_a_letter(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("# " + "\u00e9" * 2000 + "\n\nText stands here.\n")
    (passage,) = passages_of(find_files(tmp_path))
    assert len(passage.title.encode()) <= MAX_TITLE_BYTES
    assert set(passage.title) == {"\u00e9"}


def test_without_documents_there_are_no_passages(tmp_path: Path) -> None:
    (tmp_path / "d.jsonl").write_text('{"prompt": "q", "response": "r"}')
    with pytest.raises(UsageError, match="no document among the data"):
        passages_of(find_files(tmp_path))
