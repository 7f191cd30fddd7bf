"""Bytes to text: UTF-8, or UTF-16 where a byte order mark says so; nothing is guessed."""

from __future__ import annotations

import codecs
import io
from collections.abc import Iterator
from gzip import GzipFile
from io import BufferedReader

from specs.errors import UsageError

MAX_LINE_BYTES = 1024 * 1024
MAX_LINES_BYTES = 4 * 1024 * 1024 * 1024
"""Of all lines together: a small compressed file may hold any number."""
MAX_UTF16_BYTES = 256 * 1024 * 1024
UTF16_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def decode(raw: bytes, where: str, *, line: int = 1) -> str:
    """Text without its byte order mark.

    Args:
        raw: The bytes.
        where: What they are, for messages.
        line: The number of their first line.

    Raises:
        UsageError: naming line and byte of what is not UTF-8 (or UTF-16 with a mark).
    """
    utf16 = raw.startswith(UTF16_MARKS)
    try:
        text = raw.decode("utf-16" if utf16 else "utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        start = error.start
        if utf16:
            raise UsageError(
                f"{where}: begins as UTF-16 and is something else from byte {start} on"
            ) from None
        number = line + raw.count(b"\n", 0, start)
        if b"\x00" in raw:
            raise UsageError(
                f"{where}: line {number}: is binary, no text (byte 0x{raw[start]:02x})",
                hint="give a file of text, or of a kind whose name says what it is (docs/data.md)",
            ) from None
        begin = raw.rfind(b"\n", 0, start) + 1
        raise UsageError(
            f"{where}: line {number}: expected UTF-8 and found byte 0x{raw[start]:02x} "
            f"at position {start - begin}",
            hint="convert it: `iconv -f latin1 -t utf-8 OLD > NEW`",
        ) from None
    if "\x00" in text:
        at = line + text.count("\n", 0, text.index("\x00"))
        raise UsageError(
            f"{where}: line {at}: expected text and found a zero byte",
            hint="UTF-16 without a byte order mark: `iconv -f utf-16le -t utf-8 OLD > NEW`",
        )
    return text


def text_lines(stream: BufferedReader | GzipFile, where: str) -> Iterator[tuple[int, str]]:
    """Numbers and texts of lines, from 1, with their line breaks, through a bounded buffer.

    Raises:
        UsageError: as `decode`; or a line, or all together, are too long.
    """
    if stream.peek(2)[:2] in UTF16_MARKS:
        raw = stream.read(MAX_UTF16_BYTES + 1)
        if len(raw) > MAX_UTF16_BYTES:
            raise UsageError(
                f"{where}: is longer than {MAX_UTF16_BYTES:,} bytes in UTF-16",
                hint="convert it: `iconv -f utf-16 -t utf-8 OLD > NEW`",
            )
        yield from enumerate(io.StringIO(decode(raw, where), newline="\n"), 1)
        return
    total = 0
    for number in range(1, 1 << 62):
        raw = stream.readline(MAX_LINE_BYTES + 1)
        if not raw:
            return
        total += len(raw)
        if total > MAX_LINES_BYTES:
            raise UsageError(
                f"{where}: line {number}: there are more than {MAX_LINES_BYTES:,} bytes before it",
                hint="give a part of the data",
            )
        if len(raw) > MAX_LINE_BYTES:
            raise UsageError(
                f"{where}: line {number}: is longer than {MAX_LINE_BYTES:,} bytes",
                hint="a JSON array on one line is read from a file whose name ends in `.json`",
            )
        yield number, decode(raw, where, line=number)
