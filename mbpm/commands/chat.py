"""`mbpm chat`: a conversation on a line that edits, remembers and can be interrupted."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import typer

from mbpm import answer_options, answering
from mbpm.state import State
from specs.errors import MbpmError, NotFoundError, UsageError

if TYPE_CHECKING:
    from mbpm.output import Output
    from runtime.load import Loaded
    from runtime.router import Decision
    from runtime.sampling import Sampling

HISTORY_FILE = "chat-history"
HELP = """\
/pack [NAME|auto|none]  which pack answers; without a word, show it
/packs                  the packs of this base
/explain [on|off]       say after every answer which packs took part, and why
/clear                  forget the conversation
/help                   this
/exit                   leave; Ctrl-D does too
Alt-Enter or a backslash at the end begins a new line; Ctrl-C stops an answer."""


def command(
    ctx: typer.Context,
    pack: answer_options.Pack = "auto",
    base: answer_options.Base = None,
    device: answer_options.Device = "auto",
    engine: answer_options.Engine = "auto",
    precision: answer_options.Precision = "packed",
    context: answer_options.Context = None,
    system: answer_options.System = None,
    explain: answer_options.Explain = False,
    max_tokens: answer_options.MaxTokens = answering.MAX_TOKENS,
    temperature: answer_options.Temperature = None,
    top_k: answer_options.TopK = None,
    top_p: answer_options.TopP = None,
    min_p: answer_options.MinP = None,
    repetition_penalty: answer_options.RepetitionPenalty = None,
    seed: answer_options.Seed = None,
) -> None:
    """Talk with the base and the installed packs.

    On a terminal: a line with history; Ctrl-C stops an answer, Ctrl-D or /exit leaves, /help tells
    the rest. Otherwise every line of standard input is answered in turn.

    $ mbpm chat
    $ mbpm chat --pack none
    """
    state: State = ctx.obj
    out = state.out
    if out.mode == "json":
        raise UsageError(
            "a conversation is not one JSON document", hint="`mbpm run --json` answers one question"
        )
    answering.check_max_tokens(max_tokens)
    settings = answering.sampling(
        temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p,
        repetition_penalty=repetition_penalty, seed=seed,
    )  # fmt: skip
    loaded = answering.load(state, base, device, context, pack, engine, precision)
    chat = Chat(loaded, out, settings, max_tokens, system, pack, explain)
    if not sys.stdin.isatty():
        _converse(chat.take, _piped())
        return
    packs = ", ".join(loaded.packs) or "no packs"
    out.note(f"{loaded.card.name} with {packs}; /help tells what can be typed")
    with _on_ctrl_c(lambda *_: None):  # between a question and the next: nothing to stop
        _converse(lambda line: _stoppable(chat, line, out), _typed(state))


def _converse(take: Callable[[str], bool], lines: Iterable[str]) -> None:
    for line in lines:
        if not take(line):
            return


def _stoppable(chat: Chat, line: str, out: Output) -> bool:
    """Take a line; the first Ctrl-C ends its answer at the next token, a second one at once."""
    pressed = False

    def press(*_: object) -> None:
        nonlocal pressed
        if pressed:
            raise KeyboardInterrupt
        pressed = True

    try:
        with _on_ctrl_c(press):
            return chat.take(line, lambda: pressed)
    except KeyboardInterrupt:
        out.stream("\n")
        out.note("[stopped]")
        return True


class Chat:
    """A conversation and its settings."""

    def __init__(
        self,
        loaded: Loaded,
        out: Output,
        settings: Sampling,
        max_tokens: int,
        system: str | None,
        pack: str,
        explain: bool,
    ) -> None:
        self._loaded, self._out = loaded, out
        self._session = loaded.session()
        self._settings, self._max_tokens = settings, max_tokens
        self._first = [] if system is None else [{"role": "system", "content": system}]
        self._messages = list(self._first)
        self._pack, self._explain = pack, explain

    def take(self, line: str, cancelled: Callable[[], bool] = lambda: False) -> bool:
        """Answer a line or obey it; False when it asks to leave.

        Args:
            cancelled: asked between the tokens of an answer; true ends it.
        """
        line = line.strip()
        if line in ("/exit", "/quit"):
            return False
        try:
            if line.startswith("/"):
                self._obey(*line.split())
            elif line:
                self._answer(line, cancelled)
        # one line that cannot be answered does not end the conversation
        except MbpmError as error:
            self._out.error(error)
        return True

    def _obey(self, name: str, *words: str) -> None:
        commands: dict[str, tuple[Callable[..., None], int]] = {
            "/pack": (self._choose_pack, 1),
            "/packs": (self._list_packs, 0),
            "/explain": (self._set_explain, 1),
            "/clear": (self._clear, 0),
            "/help": (lambda: self._out.note(HELP), 0),
        }
        if name not in commands:
            raise UsageError(f"there is no `{name}`", hint="`/help` lists what there is")
        run, most = commands[name]
        if len(words) > most:
            raise UsageError(f"`{name}` takes at most {most} word{'s' * (most != 1)}")
        run(*words)

    def _choose_pack(self, name: str | None = None) -> None:
        if name is not None:
            if name not in ("auto", "none", *self._loaded.packs):
                raise NotFoundError(
                    f"the pack `{name}` is not installed for this base",
                    hint="`/packs` lists those that are",
                )
            self._pack = name
        words = {"auto": " (the router decides)", "none": " (the base alone)"}
        self._out.note(f"pack: {self._pack}{words.get(self._pack, '')}")

    def _list_packs(self) -> None:
        if not self._loaded.packs:
            self._out.note("no packs are installed for this base")
        for pack in self._loaded.packs.values():
            resident = ", in memory" if pack.name in self._session.resident else ""
            self._out.note(f"{pack.name} {pack.version} ({pack.activation}{resident})")

    def _set_explain(self, word: str | None = None) -> None:
        if word not in (None, "on", "off"):
            raise UsageError(f"`/explain` takes `on` or `off`, not `{word}`")
        self._explain = not self._explain if word is None else word == "on"
        self._out.note(f"explain: {'on' if self._explain else 'off'}")

    def _clear(self) -> None:
        self._messages = list(self._first)
        self._out.note("the conversation is forgotten")

    def _answer(self, question: str, cancelled: Callable[[], bool]) -> None:
        from runtime.session import Done, Routed, Text

        asked = [*self._messages, {"role": "user", "content": question}]
        messages, dropped = self._session.fit(asked, self._max_tokens)
        if dropped:
            self._out.note(f"[the {dropped} oldest messages no longer fit the context]", dim=True)
        decision: Decision | None = None
        done: Done | None = None
        pieces: list[str] = []
        for event in self._session.answer(
            messages, self._settings, pack=self._pack, max_tokens=self._max_tokens,
            cancelled=cancelled,
        ):  # fmt: skip
            if isinstance(event, Routed):
                decision = event.decision
            elif isinstance(event, Text):
                pieces.append(event.piece)
                self._out.stream(event.piece)
            else:
                done = event
        assert done is not None
        self._out.stream("\n")
        self._settings = answering.next_seed(self._settings)
        if pieces:
            answer = {"role": "assistant", "content": "".join(pieces)}
            self._messages = [*map(dict, messages), answer]
        self._remarks(decision, done)

    def _remarks(self, decision: Decision | None, done: Any) -> None:
        if self._explain:
            for line in answering.explain(decision, done, self._loaded):
                self._out.note(line, dim=True)
        elif done.packs:
            self._out.note(f"[{', '.join(done.packs)}]", dim=True)
        if done.finish != "stop":
            words = {"length": "cut off; ask it to go on", "cancelled": "stopped"}
            self._out.note(f"[{words[done.finish]}]", dim=True)


@contextmanager
def _on_ctrl_c(handler: Callable[..., None]) -> Iterator[None]:
    before = signal.signal(signal.SIGINT, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _piped() -> Iterator[str]:
    for raw in sys.stdin.buffer:
        yield raw.decode("utf-8", "replace")


def _typed(state: State) -> Iterator[str]:
    """Lines of the person at the terminal, until Ctrl-D."""
    from prompt_toolkit import PromptSession
    from prompt_toolkit.history import FileHistory
    from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
    from prompt_toolkit.output import create_output

    keys = KeyBindings()

    @keys.add("escape", "enter")
    def new_line(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    @keys.add("enter")
    def enter(event: KeyPressEvent) -> None:
        buffer = event.current_buffer
        if buffer.document.text_before_cursor.endswith("\\"):
            buffer.delete_before_cursor(1)
            buffer.insert_text("\n")
        else:
            buffer.validate_and_handle()

    state.home.path.mkdir(parents=True, exist_ok=True)
    session: PromptSession[str] = PromptSession(
        history=FileHistory(str(state.home.path / HISTORY_FILE)),
        key_bindings=keys,
        multiline=True,
        prompt_continuation="  ",
        output=create_output(always_prefer_tty=True),
    )
    while True:
        try:
            yield session.prompt("> ")
        except KeyboardInterrupt:
            continue
        except EOFError:
            return
