"""The one way to print."""

from __future__ import annotations

import io
import json
import sys

import pytest

from mbpm.output import Output, size
from specs.errors import MbpmError


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (999_949, "999.9 kB"),
        (999_950, "1.0 MB"),
        (98_362_432, "98.4 MB"),
        (5 * 10**15, "5000.0 TB"),
        (-1500, "-1.5 kB"),
    ],
)
def test_sizes(count: int, text: str) -> None:
    assert size(count) == text


def test_modes(capsys: pytest.CaptureFixture[str]) -> None:
    def say(out: Output) -> tuple[str, str]:
        out.line("line")
        out.table(["A"], [["1"]])
        out.stream("stream")
        out.note("note")
        out.warn("warn")
        out.result({"a": 1})
        return capsys.readouterr()

    assert say(Output("human")) == ("line\nA\n1\nstream", "note\nwarning: warn\n")
    assert say(Output("quiet")) == ("stream", "")
    assert say(Output("json")) == ('{\n  "a": 1\n}\n', "warning: warn\n")


def test_table_aligns(capsys: pytest.CaptureFixture[str]) -> None:
    Output().table(["NAME", "SIZE"], [["a", "10"], ["long", "9"], ["two\nlines", "1"]])
    assert capsys.readouterr().out.splitlines() == [
        "NAME       SIZE",
        "a            10",
        "long          9",
        "two lines     1",
    ]


def test_only_our_own_colour_reaches_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    for no_color, expected in ((False, "\x1b[2mhidden\x1b[0m\n"), (True, "hidden\n")):
        terminal = Terminal()
        monkeypatch.setattr("sys.stderr", terminal)
        Output(no_color=no_color).note("\x1b[8mhid\x07den", dim=True)
        assert terminal.getvalue() == expected


def test_a_packs_text_cannot_turn_the_json(capsys: pytest.CaptureFixture[str]) -> None:
    value = {"description": "a\u202eb\x9b2Jc \u00e9"}
    Output("json").result(value)
    text = capsys.readouterr().out
    assert json.loads(text) == value
    assert text.isascii() is False and "\u202e" not in text and "\x9b" not in text


def test_a_packs_text_cannot_colour_hide_or_turn_words(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    for stream in ("sys.stdout", "sys.stderr"):
        monkeypatch.setattr(stream, Terminal())
    text = "\x1b[8mhid\x1b]0;title\x07den\u202e\x9b2J"
    out = Output()
    out.line(text)
    out.stream(text)
    out.warn(text)
    out.error(MbpmError(text, hint=text))
    shown = sys.stdout.getvalue() + sys.stderr.getvalue()  # type: ignore[attr-defined]
    for label in ("33mwarning", "31merror", "36mhint"):
        assert f"\x1b[1;{label}\x1b[0m: hid]0;titleden2J\n" in shown
        shown = shown.replace(f"\x1b[1;{label}\x1b[0m", "")
    assert "\x1b" not in shown
    assert "\u202e" not in shown


def test_progress_on_a_terminal_counts_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    with Output().progress("fetching [x]", 2_000_000) as progress:
        progress.advance(1_000_000)
        progress.status("received [half]")
    assert "fetching [x]" in terminal.getvalue()
    assert "received [half]" in terminal.getvalue()
    assert "2.0 MB" in terminal.getvalue()


def test_lines_of_several_threads_stay_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []
    stream = io.StringIO()
    monkeypatch.setattr(stream, "write", written.append)
    monkeypatch.setattr("sys.stderr", stream)
    Output().note("one")
    Output().warn("two")
    assert written == ["one\n", "warning: two\n"]
