"""The one way to print: human, json or quiet. Data on stdout, everything else on stderr."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import IO, Literal, Protocol

from mbpm import __version__
from specs.errors import MbpmError, UsageError

Mode = Literal["human", "json", "quiet"]

_SGR = r"\x1b\[[0-9;]*m"
# what moves the cursor, and what makes text read in another order than it is written
_CONTROL = r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]"
_UNSAFE = re.compile(f"{_SGR}|{_CONTROL}")
_TURNING = re.compile(r"[\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
"""Those that JSON lets stand as they are."""


class Progress(Protocol):
    """A running transfer, as the person watching sees it."""

    def advance(self, count: int) -> None:
        """Count `count` more bytes; callers count verified bytes only."""

    def status(self, text: str) -> None:
        """Say what is happening right now, beside the bar."""


class Transfers(Protocol):
    """Several files on their way, as the person watching sees them."""

    def file(self, title: str, what: str, total: int) -> AbstractContextManager[Progress]:
        """One of the files, from its beginning to its end; may be called from any thread.

        Args:
            title: One of the titles that were announced.
            what: The file, such as "weights.gguf of base smollm2-135m".
            total: Its bytes.
        """


@dataclass
class Output:
    """Where a command's words go."""

    mode: Mode = "human"
    no_color: bool = False

    def clean(self, text: str) -> str:
        """Drop control characters, so that a pack's text cannot drive the terminal."""
        return _UNSAFE.sub("", text)

    def line(self, text: str = "") -> None:
        """A line of data on stdout, for people."""
        if self.mode == "human":
            print(self.clean(text), file=sys.stdout)

    def stream(self, text: str) -> None:
        """Text on stdout as it comes, without a newline, for people and quiet mode."""
        if self.mode != "json":
            sys.stdout.write(self.clean(text))
            sys.stdout.flush()

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Aligned columns on stdout, for people; columns of numbers stand to the right."""
        cells = [[self.clean(c).replace("\n", " ") for c in row] for row in [columns, *rows]]
        widths = [max(len(row[i]) for row in cells) for i in range(len(columns))]
        right = [
            bool(rows) and all(re.match(r"[-+]?\d", row[i]) for row in cells[1:])
            for i in range(len(columns))
        ]
        for row in cells:
            padded = [
                c.rjust(w) if r else c.ljust(w) for c, w, r in zip(row, widths, right, strict=True)
            ]
            self.line("  ".join(padded).rstrip())

    def result(self, value: object) -> None:
        """The one JSON document of a command, in json mode."""
        if self.mode == "json":
            text = json.dumps(value, indent=2, ensure_ascii=False)
            # a string of a pack must not drive the terminal that the document is looked at in
            text = _TURNING.sub(lambda m: f"\\u{ord(m[0]):04x}", text)
            print(text, file=sys.stdout)

    def note(self, text: str, *, dim: bool = False) -> None:
        """A remark on stderr, for people; a dim one should not draw the eye."""
        if self.mode == "human":
            text = self.clean(text)
            dim = dim and not self.no_color and sys.stderr.isatty()
            _say(f"\x1b[2m{text}\x1b[0m" if dim else text)

    def warn(self, text: str) -> None:
        """Something to look at, on stderr, unless quiet."""
        if self.mode != "quiet":
            self._labelled("warning", "33", text)

    def hint(self, text: str) -> None:
        """The next thing to type, on stderr after a blank line, unless quiet."""
        if self.mode != "quiet":
            print(file=sys.stderr)
            self._labelled("hint", "36", text)

    def error(self, error: MbpmError) -> None:
        """What ended the command, in every mode; json mode also gets it as the document."""
        self._labelled("error", "31", error.message)
        if error.hint:
            print(file=sys.stderr)
            self._labelled("hint", "36", error.hint)
        self.result(
            {
                **error.details,
                "error": {
                    "message": error.message,
                    "hint": error.hint,
                    "exit_code": error.exit_code,
                },
            }
        )

    def confirm(self, question: str, *, yes: bool) -> None:
        """Ask before a change; return when it is wanted.

        Raises:
            UsageError: there is nobody to ask, or no plan was shown, and `--yes` was not given.
            MbpmError: the answer was no.
        """
        if yes:
            return
        if self.mode != "human" or not sys.stdin.isatty():
            tty = sys.stdin.isatty()
            reason = f"`--{self.mode}` asks nothing" if tty else "there is no terminal to ask on"
            raise UsageError(
                f"this needs a confirmation, and {reason}",
                hint="add `--yes` to go ahead, or `--dry-run` to only see the plan",
            )
        sys.stderr.write(f"{question} [Y/n] ")
        sys.stderr.flush()
        answer = sys.stdin.readline()
        if answer.strip().lower() not in ("y", "yes") and answer != "\n":
            raise MbpmError("nothing was changed")

    @contextmanager
    def progress(self, description: str, total: int) -> Iterator[Progress]:
        """A bar on a terminal, one plain line elsewhere, nothing in json and quiet mode.

        Args:
            description: What is being done, such as "smollm2-135m".
            total: Bytes in all.
        """
        if self.mode == "human" and not sys.stderr.isatty():
            self.note(f"{description} ({size(total)})")
            yield Silent()
            return
        with (
            self.transfers({description: total}) as shown,
            shown.file(description, description, total) as progress,
        ):
            yield progress

    @contextmanager
    def transfers(self, totals: Mapping[str, int]) -> Iterator[Transfers]:
        """Files that are fetched side by side.

        On a terminal the titles being worked on have a bar each; elsewhere every file has a line
        when it begins; in json and quiet mode there is nothing.

        Args:
            totals: What is to be fetched -> its bytes, all its files together.
        """
        if self.mode != "human":
            yield _Unseen()
        elif not sys.stderr.isatty():
            yield _Lines(self)
        else:
            from mbpm.bars import bars

            named = {self.clean(title): total for title, total in totals.items()}
            with bars(named, self.clean, self.no_color) as shown:
                yield shown

    def _labelled(self, label: str, code: str, text: str) -> None:
        if not self.no_color and sys.stderr.isatty():
            label = f"\x1b[1;{code}m{label}\x1b[0m"
        _say(f"{label}: {self.clean(text)}")


def _say(line: str) -> None:
    """A line on stderr in one piece, whatever other threads say."""
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


class Silent:
    """A progress that nobody watches."""

    def advance(self, count: int) -> None:
        """Nobody is watching."""

    def status(self, text: str) -> None:
        """Nobody is watching."""


class _Unseen:
    @contextmanager
    def file(self, title: str, what: str, total: int) -> Iterator[Progress]:
        yield Silent()


class _Lines:
    def __init__(self, out: Output) -> None:
        self._out = out

    @contextmanager
    def file(self, title: str, what: str, total: int) -> Iterator[Progress]:
        self._out.note(f"fetching {what} ({size(total)})")
        yield Silent()


def print_version(out: Output) -> None:
    """What `mbpm --version` prints."""
    out.result({"version": __version__})
    out.stream(f"mbpm {__version__}\n")


def size(count: int) -> str:
    """Bytes as people read them, in decimal units: `98.4 MB`."""
    if count < 0:
        return f"-{size(-count)}"
    value, unit = float(count), "B"
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if value < 999.95 or unit == "TB":
            break
        value /= 1000
    return f"{count} B" if unit == "B" else f"{value:.1f} {unit}"


def silence_stdout(stream: IO[str]) -> None:
    """After a broken pipe: let the interpreter's last flush go nowhere instead of complaining."""
    import os

    devnull = os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, stream.fileno())
    os.close(devnull)
