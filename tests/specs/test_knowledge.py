"""Knowledge files made to hurt a reader: one test per attack."""

from __future__ import annotations

import sqlite3
import struct
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from specs import knowledge
from specs.errors import IntegrityError
from specs.knowledge import Passage, check_knowledge, read_passages
from tests.support.knowledge import TABLE, knowledge_file

Refused = Callable[[Path, str], None]
SOUND = [("Leases", "A lease ends when its term does."), ("", "")]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "knowledge.sqlite"


@pytest.fixture
def refused() -> Refused:
    """Check that a file is refused with a message that names it and the rule, and left alone."""

    def check(file: Path, rule: str) -> None:
        before = sorted(file.parent.iterdir()), file.read_bytes()
        with pytest.raises(IntegrityError, match=rule) as caught:
            check_knowledge(file, file.stat().st_size)
        assert str(file) in caught.value.message
        assert (sorted(file.parent.iterdir()), file.read_bytes()) == before

    return check


def test_a_sound_file(file: Path) -> None:
    knowledge_file(file, SOUND)
    assert list(read_passages(file)) == [Passage(*p) for p in SOUND]
    assert check_knowledge(file, file.stat().st_size) == 2


def test_columns_may_refuse_null(file: Path) -> None:
    table = 'CREATE TABLE "passages" (\n  "title" text NOT NULL,\n  text TEXT not null\n)'
    knowledge_file(file, SOUND, table=table)
    assert len(list(read_passages(file))) == 2


def test_every_text_comes_back(file: Path) -> None:
    hard = [("\0", "a\0b"), ("é\u202e", "日本" * 100), ("' OR 1", '"; DROP TABLE passages')]
    knowledge_file(file, hard)
    assert [(p.title, p.text) for p in read_passages(file)] == hard


def test_a_path_with_letters_that_mean_something_in_an_address(tmp_path: Path) -> None:
    folder = tmp_path / "a?mode=rwc#b%41 c"
    folder.mkdir()
    file = knowledge_file(folder / "knowledge.sqlite", SOUND)
    assert len(list(read_passages(file))) == 2


def test_nothing_can_be_written(file: Path) -> None:
    knowledge_file(file, SOUND)
    with (
        closing(knowledge._open(file)) as database,
        pytest.raises(sqlite3.OperationalError, match="readonly"),
    ):
        database.execute("DELETE FROM passages")


def test_another_size_than_the_manifest_says(file: Path) -> None:
    knowledge_file(file, SOUND)
    with pytest.raises(IntegrityError, match="has 8,192 bytes, and its manifest says 4,096"):
        check_knowledge(file, 4096)


def test_no_database(file: Path, refused: Refused) -> None:
    file.write_bytes(b"PK\3\4" * 1000)
    refused(file, "is not an SQLite file")


def test_an_empty_file(file: Path, refused: Refused) -> None:
    file.write_bytes(b"")
    refused(file, "is not an SQLite file")


def test_a_header_and_nothing_else(file: Path, refused: Refused) -> None:
    knowledge_file(file, SOUND)
    raw = bytearray(file.read_bytes()[:100])
    raw[28:32] = struct.pack(">I", 0)
    file.write_bytes(raw)
    refused(file, "says it has 0 bytes, and has 100")


def test_a_truncated_file(file: Path, refused: Refused) -> None:
    knowledge_file(file, [("t", "x" * 3000)] * 50)
    file.write_bytes(file.read_bytes()[:-4096])
    refused(file, "bytes, and has")


def test_a_huge_page_count(file: Path, refused: Refused) -> None:
    knowledge_file(file, SOUND)
    raw = bytearray(file.read_bytes())
    raw[28:32] = b"\xff" * 4
    file.write_bytes(raw)
    refused(file, "says it has 17,592,186,040,320 bytes")


def test_a_page_that_claims_more_rows_than_it_can_hold(file: Path, refused: Refused) -> None:
    knowledge_file(file, SOUND)
    raw = bytearray(file.read_bytes())
    raw[4096 + 3 : 4096 + 5] = b"\xff\xff"  # cells on the table's root page
    file.write_bytes(raw)
    refused(file, "is damaged|not a usable SQLite file")


def test_a_table_that_is_its_own_child(file: Path, refused: Refused) -> None:
    knowledge_file(file, [("t", "x" * 900)] * 500)
    raw = bytearray(file.read_bytes())
    assert raw[4096] == 5  # an inner page of a table
    raw[4096 + 8 : 4096 + 12] = struct.pack(">I", 2)
    file.write_bytes(raw)
    refused(file, "is damaged|not a usable SQLite file")


def test_two_rows_that_share_their_bytes(file: Path, refused: Refused) -> None:
    """Pages that are counted twice would make a small file hold any number of rows."""
    knowledge_file(file, [("t", "x" * 900)] * 500)
    raw = bytearray(file.read_bytes())
    at = struct.unpack_from(">HH", raw, 4096 + 12)
    raw[4096 + at[1] : 4096 + at[1] + 4] = raw[4096 + at[0] : 4096 + at[0] + 4]
    file.write_bytes(raw)
    refused(file, "is damaged|not a usable SQLite file")


def test_more_rows_than_are_accepted(file: Path, refused: Refused) -> None:
    knowledge_file(file, [("", "")] * 12)
    with mock.patch.object(knowledge, "MAX_PASSAGES", 11):
        refused(file, "holds more than 11 passages")


def test_a_view_in_place_of_the_table(file: Path, refused: Refused) -> None:
    more = (
        "DROP TABLE passages",
        "CREATE VIEW passages AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i FROM n) "
        "SELECT hex(randomblob(1000000)) AS title, '' AS text FROM n",
    )
    knowledge_file(file, (), *more)
    refused(file, "holds view `passages`")


def test_a_view_beside_the_table(file: Path, refused: Refused) -> None:
    knowledge_file(file, SOUND, "CREATE VIEW more AS SELECT load_extension('evil')")
    refused(file, "holds view `more`")


def test_a_trigger(file: Path, refused: Refused) -> None:
    trigger = "CREATE TRIGGER t AFTER INSERT ON passages BEGIN DELETE FROM passages; END"
    knowledge_file(file, SOUND, trigger)
    refused(file, "holds trigger `t`")


def test_an_index(file: Path, refused: Refused) -> None:
    knowledge_file(file, SOUND, "CREATE INDEX i ON passages(abs(text))")
    refused(file, "holds index `i`")


def test_a_virtual_table(file: Path, refused: Refused) -> None:
    knowledge_file(file, SOUND, "CREATE VIRTUAL TABLE more USING fts5(body)")
    refused(file, "holds virtual table `more`")


def test_a_virtual_table_of_that_name(file: Path, refused: Refused) -> None:
    knowledge_file(file, SOUND, table="CREATE VIRTUAL TABLE passages USING fts5(title, text)")
    refused(file, "made by `CREATE VIRTUAL TABLE passages")


def test_a_virtual_table_whose_module_does_not_exist(file: Path, refused: Refused) -> None:
    sql = "CREATE VIRTUAL TABLE passages USING evil(''/etc/passwd'')"
    forged = f"UPDATE sqlite_master SET rootpage = 0, sql = '{sql}'"
    knowledge_file(file, SOUND, "PRAGMA writable_schema = ON", forged)
    refused(file, "made by `CREATE VIRTUAL TABLE passages USING evil")


def test_rows_of_statistics_that_claim_billions(file: Path, refused: Refused) -> None:
    more = ("ANALYZE", "INSERT INTO sqlite_stat1 VALUES ('passages', NULL, '9999999999999')")
    knowledge_file(file, SOUND, *more)
    refused(file, "holds table `sqlite_stat1`")


def test_another_table(file: Path, refused: Refused) -> None:
    knowledge_file(file, SOUND, "CREATE TABLE secrets(a)")
    refused(file, "holds table `secrets`")


def test_a_name_made_for_the_terminal_is_cut(file: Path, refused: Refused) -> None:
    knowledge_file(file, SOUND, f'CREATE TABLE "{"x" * 500}"(a)')
    refused(file, f"holds table `{'x' * 80}`")


@pytest.mark.parametrize(
    "table",
    [
        "CREATE TABLE passages(title TEXT, text TEXT, more TEXT)",
        "CREATE TABLE passages(title TEXT, text TEXT DEFAULT (hex(zeroblob(9))))",
        "CREATE TABLE passages(title TEXT, text TEXT CHECK (length(text) < 10))",
        "CREATE TABLE passages(title TEXT, text TEXT AS (hex(title)))",
        "CREATE TABLE passages(title TEXT PRIMARY KEY, text TEXT) WITHOUT ROWID",
        "CREATE TABLE passages(title TEXT, text BLOB)",
    ],
)
def test_a_table_of_another_shape(file: Path, refused: Refused, table: str) -> None:
    file.unlink(missing_ok=True)
    with closing(sqlite3.connect(file, isolation_level=None)) as database:
        database.execute("PRAGMA user_version = 1")
        database.execute(table)
    refused(file, "made by `CREATE TABLE passages|holds index")


def test_no_table(file: Path, refused: Refused) -> None:
    knowledge_file(file, (), "DROP TABLE passages")
    refused(file, "holds 0 tables")


def test_a_schema_that_cannot_be_read(file: Path, refused: Refused) -> None:
    forged = "UPDATE sqlite_master SET sql = 'CREATE TABLE passages(title TEXT, text TEXT'"
    knowledge_file(file, SOUND, "PRAGMA writable_schema = ON", forged)
    refused(file, "not a usable SQLite file")


@pytest.mark.parametrize(
    ("row", "rule"),
    [
        ((None, "x"), "passage 2: `title` holds null"),
        (("x", b"bytes"), "passage 2: `text` holds blob"),
        (("x" * 1001, "x"), "passage 2: `title` has 1,001 bytes, more than the 1,000"),
        (("x", "é" * 33_000), "passage 2: `text` has 66,000 bytes, more than the 65,536"),
    ],
)
def test_a_row_that_is_no_passage(
    file: Path, refused: Refused, row: tuple[object, object], rule: str
) -> None:
    knowledge_file(file, [("good", "row"), row])
    refused(file, rule)


def test_text_that_is_no_utf8(file: Path, refused: Refused) -> None:
    more = "INSERT INTO passages VALUES ('x', CAST(x'41ff42' AS TEXT))"
    knowledge_file(file, (), more)
    refused(file, r"passage 1: `text` is not UTF-8 \(byte 1\)")


def test_a_row_of_many_megabytes(file: Path, refused: Refused) -> None:
    knowledge_file(file, [("x", "x" * 10_000_000)])
    refused(file, "too big|more than the 65,536")


def test_a_file_above_the_bound(file: Path, refused: Refused) -> None:
    knowledge_file(file, SOUND)
    with mock.patch.object(knowledge, "MAX_BYTES", 8191):
        refused(file, "has 8,192 bytes, more than the 8,191 accepted")


def test_text_in_another_encoding(file: Path, refused: Refused) -> None:
    with closing(sqlite3.connect(file, isolation_level=None)) as database:
        database.execute("PRAGMA encoding = 'UTF-16'")
        database.execute("PRAGMA user_version = 1")
        database.execute(TABLE)
    refused(file, "not stored as UTF-8")


def test_write_ahead_mode(file: Path, refused: Refused) -> None:
    knowledge_file(file, SOUND, "PRAGMA journal_mode = WAL")
    refused(file, "is in write-ahead mode")


def test_a_journal_beside_it_is_not_played_back(file: Path) -> None:
    knowledge_file(file, SOUND)
    file.with_name(file.name + "-journal").write_bytes(b"\xd9\xd5\x05\xf9\x20\xa1\x63\xd7" * 100)
    file.with_name(file.name + "-wal").write_bytes(b"\x37\x7f\x06\x82" * 100)
    assert len(list(read_passages(file))) == 2


def test_a_newer_format(file: Path, refused: Refused) -> None:
    knowledge_file(file, SOUND, "PRAGMA user_version = 2")
    refused(file, "has `user_version` 2")


@settings(max_examples=200, deadline=None)
@given(at=st.integers(0, 16383), value=st.integers(0, 255), length=st.integers(1, 64))
def test_any_damage_is_an_answer_or_a_clear_error(
    tmp_path_factory: pytest.TempPathFactory, at: int, value: int, length: int
) -> None:
    file = tmp_path_factory.getbasetemp() / "fuzzed.sqlite"
    knowledge_file(file, [("title", "text " * 150)] * 12)
    raw = bytearray(file.read_bytes())
    at %= len(raw)
    raw[at : at + length] = bytes([value]) * len(raw[at : at + length])
    file.write_bytes(raw)
    try:
        found = list(read_passages(file))
    except IntegrityError as error:
        assert str(file) in error.message
    else:
        assert len(found) <= 100
