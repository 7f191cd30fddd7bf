"""Bars for several things that are fetched side by side."""

from __future__ import annotations

import io
import threading
import time

import pytest

from mbpm.output import Output


class Terminal(io.StringIO):
    """A terminal that keeps what was written to it."""

    def isatty(self) -> bool:
        return True


def at_terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setenv("COLUMNS", "200")
    return terminal


def test_each_title_has_a_bar_while_it_is_worked_on(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = at_terminal(monkeypatch)
    with (
        Output().transfers({"base [x]": 3_000_000, "pack": 1_000_000}) as transfers,
        transfers.file("base [x]", "weights of base [x]", 3_000_000) as progress,
    ):
        progress.advance(1_500_000)
        progress.status("answers 503; \x1b[2Jtrying again")
        end = time.monotonic() + 30
        while "answers 503" not in terminal.getvalue() and time.monotonic() < end:
            time.sleep(0.01)
    shown = terminal.getvalue()
    assert "base [x]" in shown
    assert "1.5/3.0 MB" in shown
    assert "answers 503" in shown
    assert "\x1b[2J" not in shown, "what a server says does not drive the terminal"
    assert "pack" not in shown
    assert "all " not in shown


def test_many_titles_have_one_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = at_terminal(monkeypatch)
    titles = {f"pack-{i}": 1_000_000 for i in range(6)}
    with Output().transfers(titles) as transfers:

        def work(title: str) -> None:
            with transfers.file(title, f"adapter of {title}", 1_000_000) as progress:
                progress.advance(1_000_000)

        threads = [threading.Thread(target=work, args=(title,)) for title in titles]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert "6.0/6.0 MB" in terminal.getvalue()


def test_reading_is_not_called_fetching(capsys: pytest.CaptureFixture[str]) -> None:
    with Output().progress("reading w.gguf", 2_000) as progress:
        progress.advance(2_000)
    assert capsys.readouterr().err == "reading w.gguf (2.0 kB)\n"
