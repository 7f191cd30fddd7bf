"""Files of rows: JSON-lines, JSON arrays, CSV and TSV, Parquet. Each row comes with its place."""

from __future__ import annotations

import csv
import json
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from gzip import BadGzipFile, GzipFile
from io import BufferedReader
from itertools import chain
from pathlib import Path

from specs.errors import UsageError
from trainer.data.encoding import MAX_LINE_BYTES, decode, text_lines
from trainer.data.rows import ANSWERS, PROMPTS, Row, short, what

MAX_JSON_BYTES = 256 * 1024 * 1024
"""A JSON array is read whole; JSON-lines of any size are not."""
MAX_COLUMNS = 1000
MAX_ROW_GROUP_BYTES = 4 * 1024 * 1024 * 1024
SEPARATORS = (",", ";", "\t")
_KNOWN = {*PROMPTS, *ANSWERS, "text", "chosen"}
GZIP_MARK = b"\x1f\x8b"
_SPACE = re.compile(r"[\s,]*")
PlacedRow = tuple[str, Row | UsageError]
"""File and line (or row), for messages; the row, or why it is none, where the next may be one."""


def json_lines(file: Path, name: str) -> Iterator[PlacedRow]:
    """One JSON object per line; blank lines are skipped.

    Raises:
        UsageError: naming file, line, what was expected and what was found.
    """
    with _opened(file, name) as stream:
        for number, line in text_lines(stream, name):
            if text := line.strip():
                where = f"{name}: line {number}"
                try:
                    value = json.loads(text)
                except json.JSONDecodeError as error:
                    yield (
                        where,
                        UsageError(
                            f"{where}: expected a JSON object and found {short(text)} "
                            f"({error.msg}, column {error.colno})"
                        ),
                    )
                except RecursionError:
                    yield where, UsageError(f"{where}: is nested too deeply")
                except ValueError as error:  # more digits than Python reads
                    yield where, UsageError(f"{where}: holds a number it should not ({error})")
                else:
                    yield where, _object(value, where)


def json_array(file: Path, name: str) -> Iterator[PlacedRow]:
    """The objects of a JSON array, or objects one after the other, however lines are broken.

    Raises:
        UsageError: as `json_lines`; or the file is longer than `MAX_JSON_BYTES`.
    """
    with _opened(file, name) as stream:
        raw = stream.read(MAX_JSON_BYTES + 1)
    if len(raw) > MAX_JSON_BYTES:
        raise UsageError(
            f"{name}: is longer than {MAX_JSON_BYTES:,} bytes",
            hint="JSON-lines can be longer: one object per line, in a file ending in `.jsonl`",
        )
    text = decode(raw, name)
    decoder = json.JSONDecoder()
    at = _skip(text, 0)
    array = text.startswith("[", at)
    at, line, counted = at + array, 1, 0
    while True:
        at = _skip(text, at)
        line, counted = line + text.count("\n", counted, at), at
        where = f"{name}: line {line}"
        if text.startswith("]", at) and array:
            if _skip(text, at + 1) < len(text):
                raise UsageError(f"{where}: expected nothing after the array")
            return
        if at >= len(text):
            if array:
                raise UsageError(f"{where}: expected `]` at the end of the array, found nothing")
            return
        try:
            value, at = decoder.raw_decode(text, at)
        except json.JSONDecodeError as error:
            raise UsageError(
                f"{name}: line {error.lineno}: expected a JSON object and found "
                f"{short(text[at : at + 42])} ({error.msg}, column {error.colno})"
            ) from None
        except RecursionError:
            raise UsageError(f"{where}: is nested too deeply") from None
        except ValueError as error:  # more digits than Python reads
            raise UsageError(f"{where}: holds a number it should not ({error})") from None
        yield where, _object(value, where)


def _skip(text: str, at: int) -> int:
    match = _SPACE.match(text, at)
    return match.end() if match else at


def _object(value: object, where: str) -> Row | UsageError:
    if not isinstance(value, dict):
        return UsageError(f"{where}: expected a JSON object and found {what(value)}")
    return value


def separated(file: Path, name: str, kind: str) -> Iterator[PlacedRow]:
    """Rows of CSV (RFC 4180) or TSV with a header; CSV may use `;` or tabs, as spreadsheets do.

    Raises:
        UsageError: naming file, line, what was expected and what was found.
    """
    with _opened(file, name) as stream:
        lines = text_lines(stream, name)
        number, first = next(((n, line) for n, line in lines if line.strip()), (1, ""))
        delimiter = "\t" if kind == ".tsv" else _delimiter(first)
        csv.field_size_limit(MAX_LINE_BYTES)
        rest = (line for _, line in lines)
        reader = csv.reader(chain([first], rest), delimiter=delimiter, strict=True)
        header: list[str] = []
        try:
            for cells in reader:
                where = f"{name}: line {number - 1 + reader.line_num}"
                if not header:
                    header = _header(cells, where)
                elif cells:
                    yield where, _cells(header, cells, where)
        except csv.Error as error:
            raise UsageError(
                f"{name}: line {number - 1 + reader.line_num}: is not CSV ({error})"
            ) from None


def _cells(header: list[str], cells: list[str], where: str) -> Row | UsageError:
    if len(cells) != len(header):
        return UsageError(
            f"{where}: expected {len(header)} cells, as the header has, found {len(cells)}",
            hint="a text with the separator or a line break in it stands in double quotes",
        )
    return dict(zip(header, cells, strict=True))


def _delimiter(header: str) -> str:
    """The separator that gives the header a name we know, else the one found most often."""
    for mark in SEPARATORS:
        names = next(csv.reader([header], delimiter=mark), [])
        if len(names) > 1 and _KNOWN & {n.strip().lower() for n in names}:
            return mark
    return max(SEPARATORS, key=header.count)


def has_known_columns(header: str) -> bool:
    """Whether a line is the header of CSV or TSV with columns that `rows` reads."""
    names = next(csv.reader([header], delimiter=_delimiter(header)), [])
    return len(names) > 1 and bool(_KNOWN & {n.strip().lower() for n in names})


def _header(cells: list[str], where: str) -> list[str]:
    names = [cell.strip().lower() for cell in cells]
    if len(names) > MAX_COLUMNS:
        raise UsageError(f"{where}: has {len(names):,} columns, more than {MAX_COLUMNS:,}")
    twice = next((n for n in names if names.count(n) > 1), None)
    if twice is not None:
        raise UsageError(f"{where}: the column `{twice}` stands twice in the header")
    if any(names) and not (_KNOWN | {"rejected", "messages", "conversations"}) & set(names):
        found = ", ".join(short(cell.strip()) for cell in cells[:6])
        raise UsageError(
            f"{where}: is read as the header, and none of its columns is known: {found}",
            hint="name them in the first line, such as `prompt,response`; docs/data.md has all "
            "names",
        )
    return names


def parquet(file: Path, name: str) -> Iterator[PlacedRow]:
    """Rows of a Parquet file, read by pyarrow a thousand at a time.

    Raises:
        UsageError: pyarrow is not installed, or the file is not Parquet.
    """
    try:
        import pyarrow as arrow
        import pyarrow.parquet as pq
    except ImportError:
        raise UsageError(
            f"{name}: Parquet needs pyarrow, which is not installed",
            hint="`pip install 'mbpm[data]'`",
        ) from None
    try:
        with pq.ParquetFile(file) as table:
            groups = (table.metadata.row_group(i) for i in range(table.num_row_groups))
            if any(g.total_byte_size > MAX_ROW_GROUP_BYTES for g in groups):
                raise UsageError(
                    f"{name}: a row group is longer than {MAX_ROW_GROUP_BYTES:,} bytes"
                )
            number = 0
            for batch in table.iter_batches(batch_size=1000):
                for row in batch.to_pylist():
                    number += 1
                    yield f"{name}: row {number}", row
    except (arrow.ArrowException, OSError, ValueError, OverflowError) as error:
        reason = str(error).split("\n")[0][:200]
        raise UsageError(f"{name}: is not a readable Parquet file ({reason})") from None


@contextmanager
def _opened(file: Path, name: str) -> Iterator[BufferedReader | GzipFile]:
    """The file's bytes, decompressed where it is gzip by its first two bytes."""
    with file.open("rb") as stream:
        if stream.peek(2)[:2] != GZIP_MARK:
            yield stream
            return
        try:
            with GzipFile(fileobj=stream) as inside:
                yield inside
        except (BadGzipFile, EOFError, zlib.error) as error:
            raise UsageError(f"{name}: is damaged gzip ({error})") from None
