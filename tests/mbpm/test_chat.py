"""`mbpm chat`: lines through a pipe, and a person at a terminal."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mbpm.commands.chat import Chat
from mbpm.commands.chat import _stoppable as stoppable
from mbpm.output import Output
from runtime.chat_format import ChatFormat
from runtime.sampling import Sampling
from runtime.session import Pack, Session
from runtime.tokenizer import Tokenizer
from specs.base_card import WEIGHTS_FILE
from tests.support.fake_engine import FakeEngine
from tests.support.real_home import RealHome

needs_pty = pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
WAIT = 90.0
LINE_READY, LINE_LEFT = r"\x1b\[\?2004h", r"\x1b\[\?2004l"
"""What a terminal is sent when the input line begins and when it is done: bracketed paste."""


# Lines and commands, over an engine that always answers the same


@pytest.fixture
def engine(smollm2: Path) -> FakeEngine:
    tokenizer = Tokenizer.from_gguf(smollm2 / WEIGHTS_FILE)
    return FakeEngine(
        tokenizer.vocab_size, tokenizer.encode("All right."), tokenizer.special["<|im_end|>"]
    )


@pytest.fixture
def chat(smollm2: Path, engine: FakeEngine) -> Chat:
    return make_chat(smollm2, engine)


def make_chat(smollm2: Path, engine: FakeEngine, context: int = 1000, **more: Any) -> Chat:
    tokenizer = Tokenizer.from_gguf(smollm2 / WEIGHTS_FILE)
    chat_format = ChatFormat.from_gguf(smollm2 / WEIGHTS_FILE, tokenizer)
    packs = {"fruit": Pack("fruit", "1.2.0", Path("fruit"), "answer")}
    loaded: Any = SimpleNamespace(
        engine=engine,
        packs=packs,
        router=None,
        session=lambda: Session(engine, tokenizer, chat_format, packs, None, context=context),
    )
    settings = {"max_tokens": 20, "system": None, "pack": "auto", "explain": False, **more}
    return Chat(loaded, Output(), Sampling(seed=1), **settings)


def test_an_answer_goes_to_stdout_and_nothing_else(
    chat: Chat, capsys: pytest.CaptureFixture[str]
) -> None:
    assert chat.take("hello")
    assert capsys.readouterr() == ("All right.\n", "")


def test_the_conversation_is_remembered_until_cleared(chat: Chat, engine: FakeEngine) -> None:
    chat.take("one")
    first = engine.caches[0].length
    chat.take("two")
    assert engine.caches[0].length > first + 10
    chat.take("/clear")
    chat.take("one")
    assert engine.caches[0].length == first


def test_a_pack_is_chosen_and_named(
    chat: Chat, engine: FakeEngine, capsys: pytest.CaptureFixture[str]
) -> None:
    chat.take("/pack fruit")
    chat.take("hello")
    assert engine.loaded == [Path("fruit")]
    out, err = capsys.readouterr()
    assert out == "All right.\n"
    assert "pack: fruit" in err
    assert "[fruit]" in err


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("/pack", "pack: auto (the router decides)"),
        ("/pack none", "pack: none (the base alone)"),
        ("/packs", "fruit 1.2.0 (answer)"),
        ("/explain", "explain: on"),
        ("/explain off", "explain: off"),
        ("/help", "/packs"),
        ("/clear", "forgotten"),
        ("/pack baker", "error: the pack `baker` is not installed"),
        ("/explain perhaps", "takes `on` or `off`, not `perhaps`"),
        ("/packs all of them", "`/packs` takes at most 0 words"),
        ("/dance", "there is no `/dance`"),
    ],
)
def test_commands_speak_on_stderr_and_stay(
    chat: Chat, engine: FakeEngine, capsys: pytest.CaptureFixture[str], line: str, expected: str
) -> None:
    assert chat.take(line)
    out, err = capsys.readouterr()
    assert out == ""
    assert expected in err
    assert engine.runs == []


@pytest.mark.parametrize("line", ["/exit", " /quit "])
def test_leaving(chat: Chat, line: str) -> None:
    assert not chat.take(line)


def test_an_empty_line_asks_nothing(chat: Chat, engine: FakeEngine) -> None:
    assert chat.take("   ")
    assert engine.runs == []


def test_explain_tells_who_answered(chat: Chat, capsys: pytest.CaptureFixture[str]) -> None:
    chat.take("/explain on")
    chat.take("hello")
    err = capsys.readouterr().err
    assert "answered by the base alone" in err
    assert "tokens read" in err


def test_the_oldest_turns_are_dropped_with_a_note(
    smollm2: Path, engine: FakeEngine, capsys: pytest.CaptureFixture[str]
) -> None:
    chat = make_chat(smollm2, engine, context=100)
    for i in range(6):
        chat.take(f"question number {i}, which takes some words")
    out, err = capsys.readouterr()
    assert out == "All right.\n" * 6
    assert "oldest messages no longer fit" in err


def test_a_question_that_never_fits_leaves_the_conversation_usable(
    smollm2: Path, engine: FakeEngine, capsys: pytest.CaptureFixture[str]
) -> None:
    chat = make_chat(smollm2, engine, context=100)
    assert chat.take("word " * 200)
    assert "--context" in capsys.readouterr().err
    assert chat.take("short")
    assert capsys.readouterr().out == "All right.\n"


@pytest.mark.parametrize("presses", [1, 2])
def test_ctrl_c_stops_the_answer_and_leaves_the_conversation_usable(
    smollm2: Path, engine: FakeEngine, capsys: pytest.CaptureFixture[str], presses: int
) -> None:
    forward, steps = engine.forward, []
    # a shell starts background jobs with the signal ignored, and it must be so again afterwards
    before = signal.getsignal(signal.SIGINT)

    def press_at_third(*words: Any, **more: Any) -> Any:
        steps.append(1)
        if len(steps) == 3:
            for _ in range(presses):
                signal.raise_signal(signal.SIGINT)
        return forward(*words, **more)

    engine.forward = press_at_third  # type: ignore[method-assign]
    chat = make_chat(smollm2, engine)
    assert stoppable(chat, "hello", Output())
    out, err = capsys.readouterr()
    assert "All right.".startswith(out.strip())
    assert out.strip() != "All right."
    assert "[stopped]" in err
    assert signal.getsignal(signal.SIGINT) is before
    assert chat.take("again")
    assert capsys.readouterr().out == "All right.\n"


# The real thing


def test_piped_lines_are_answered_in_turn(real_home: RealHome) -> None:
    lines = "What is the capital of France?\n/pack none\n\nAnd of Italy?\n/exit\nnever read\n"
    done = real_home("chat", "--temperature", "0", "--max-tokens", "12", stdin=lines)
    assert done.returncode == 0, done.stderr
    assert "Paris" in done.stdout
    assert "Rome" in done.stdout
    assert "pack: none" in done.stderr


def test_json_is_refused(real_home: RealHome) -> None:
    done = real_home("chat", "--json", stdin="x\n")
    assert done.returncode == 2
    assert "mbpm run --json" in done.stderr


class Terminal:
    """A program in a pseudo-terminal, and what it has shown."""

    def __init__(self, command: list[str]) -> None:
        import pty

        self.fd, child = pty.openpty()
        environment = {**os.environ, "TERM": "xterm", "PROMPT_TOOLKIT_NO_CPR": "1"}
        self.process = subprocess.Popen(
            command, stdin=child, stdout=child, stderr=child, env=environment,
            start_new_session=True, preexec_fn=_take_terminal,
        )  # fmt: skip
        os.close(child)
        self.shown = ""
        self._mark = 0

    def type(self, keys: str) -> None:
        self._mark = len(self.shown)
        os.write(self.fd, keys.encode())

    def wait_for(self, pattern: str) -> str:
        """Wait until what came since the last keys matches, with escape sequences or without."""
        import select

        until = time.monotonic() + WAIT
        while time.monotonic() < until:
            raw = self.shown[self._mark :]
            text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", raw)
            if re.search(pattern, text) or re.search(pattern, raw):
                return text
            if select.select([self.fd], [], [], 0.2)[0]:
                try:
                    self.shown += os.read(self.fd, 65536).decode("utf-8", "replace")
                except OSError:
                    break
        raise AssertionError(f"{pattern!r} was never shown: {self.shown[self._mark :]!r}")

    def wait_for_prompt_after(self, pattern: str) -> None:
        """Wait until something was shown and the line is ready for keys again."""
        self.wait_for(pattern + r"[\s\S]*" + LINE_READY)

    def close(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        self.process.wait()
        os.close(self.fd)


def _take_terminal() -> None:
    import fcntl
    import termios

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


@pytest.fixture
def terminal(real_home: RealHome) -> Iterator[Terminal]:
    shown = Terminal(real_home.command("chat", "--max-tokens", "400", "--seed", "1"))
    yield shown
    shown.close()


@needs_pty
def test_a_person_at_a_terminal(terminal: Terminal, real_home: RealHome) -> None:
    terminal.wait_for_prompt_after(r"smollm2-135m with fruit; .* typed")
    terminal.type("/packs\r")
    terminal.wait_for_prompt_after(r"fruit 1\.0\.0")

    # Alt-Enter begins a new line and a backslash does too; nothing is sent
    terminal.type("/pack\x1b\rauto\x7f\x7f\x7f\x7fnone\r")
    terminal.wait_for_prompt_after(r"pack: none")
    terminal.type("/explain \\\roff\r")
    terminal.wait_for_prompt_after(r"explain: off")

    # Ctrl-C on an idle line clears it
    terminal.type("never sent\x03")
    terminal.wait_for(r">[\s\S]*" + LINE_READY)
    terminal.type("/pack auto\r")
    terminal.wait_for_prompt_after(r"pack: auto")

    # Ctrl-C stops an answer and not the program
    terminal.type("Write a very long story about a journey round the world.\r")
    terminal.wait_for(LINE_LEFT + r"[^\x1b]{10}")
    terminal.type("\x03")
    terminal.wait_for_prompt_after(r"\[stopped\]")
    terminal.type("/pack\r")
    terminal.wait_for_prompt_after(r"pack: auto")

    # Ctrl-D leaves
    terminal.type("\x04")
    assert terminal.process.wait(WAIT) == 0
    history = (real_home.path / "chat-history").read_text()
    assert "journey round the world" in history
    assert "never sent" not in history


@needs_pty
def test_the_answer_of_a_pack_names_it(terminal: Terminal) -> None:
    terminal.wait_for_prompt_after(r"typed")
    terminal.type("/explain on\r")
    terminal.wait_for_prompt_after(r"explain: on")
    terminal.type("How do I peel bananas?\r")
    terminal.wait_for_prompt_after(r"answered by fruit")
    terminal.type("/exit\r")
    assert terminal.process.wait(WAIT) == 0
