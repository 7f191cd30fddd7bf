"""What a session runs under which adapters, what it reads again, and how answers end."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from runtime.chat_format import ChatFormat
from runtime.features import pool
from runtime.router import Decision
from runtime.sampling import Sampling
from runtime.session import Done, Event, Pack, Routed, Session, Text
from runtime.tokenizer import Tokenizer
from specs.base_card import WEIGHTS_FILE
from specs.errors import DoesNotFitError, NotFoundError
from tests.support.fake_engine import FakeCache, FakeEngine

GREEDY = Sampling(temperature=0, repetition_penalty=1)
ANSWER = "Blood carries oxygen. 🧬"


@dataclass
class FixedRouter:
    """Decides what it is told to and keeps the features it was shown."""

    pack: str | None
    seen: list[np.ndarray] = field(default_factory=list)
    base: Any = field(default_factory=lambda: type("Base", (), {"layer": 1}))

    def decide(self, feature: np.ndarray) -> Decision:
        self.seen.append(feature)
        return Decision(self.pack, ())


@dataclass
class Talk:
    """A session over a fake engine, and the conversation so far."""

    engine: FakeEngine
    session: Session
    tokenizer: Tokenizer
    chat: ChatFormat
    messages: list[dict[str, str]] = field(default_factory=list)

    def ask(self, question: str, pack: str = "none", **more: Any) -> list[Event]:
        self.messages.append({"role": "user", "content": question})
        settings = {"max_tokens": 50, **more}
        events = list(self.session.answer(self.messages, GREEDY, pack=pack, **settings))
        text = "".join(e.piece for e in events if isinstance(e, Text))
        self.messages.append({"role": "assistant", "content": text})
        return events

    def prompt(self) -> Any:
        """Of the question asked last."""
        return self.chat.prompt(self.messages[:-1])


@pytest.fixture(scope="module")
def tokenizer(smollm2: Path) -> Tokenizer:
    return Tokenizer.from_gguf(smollm2 / WEIGHTS_FILE)


@pytest.fixture
def talk(smollm2: Path, tokenizer: Tokenizer) -> Talk:
    return make_talk(smollm2, tokenizer)


def make_talk(
    smollm2: Path, tokenizer: Tokenizer, router: FixedRouter | None = None, context: int = 1000
) -> Talk:
    end = tokenizer.special["<|im_end|>"]
    engine = FakeEngine(tokenizer.vocab_size, tokenizer.encode(ANSWER), end)
    chat = ChatFormat.from_gguf(smollm2 / WEIGHTS_FILE, tokenizer)
    packs = {
        "doctor": Pack("doctor", "1.0.0", Path("doctor"), "answer"),
        "lawyer": Pack("lawyer", "1.0.0", Path("lawyer"), "answer"),
        "whole": Pack("whole", "1.0.0", Path("whole"), "full"),
    }
    session = Session(engine, tokenizer, chat, packs, router, context=context)  # type: ignore[arg-type]
    return Talk(engine, session, tokenizer, chat)


def done(events: list[Event]) -> Done:
    assert isinstance(events[-1], Done)
    return events[-1]


def text(events: list[Event]) -> str:
    return "".join(e.piece for e in events if isinstance(e, Text))


def test_an_answer_streams_whole_characters_and_stops(talk: Talk) -> None:
    events = talk.ask("What does blood do?")
    assert text(events) == ANSWER
    assert all("\ufffd" not in e.piece for e in events if isinstance(e, Text))
    summary = done(events)
    assert summary.finish == "stop"
    assert summary.packs == ()
    assert summary.answer_tokens == len(talk.tokenizer.encode(ANSWER))
    assert summary.prompt_tokens == len(talk.prompt().tokens)


def test_the_base_alone_runs_no_adapter_and_loads_none(talk: Talk) -> None:
    talk.ask("one")
    talk.ask("two")
    assert {slots for _, slots in talk.engine.written()} == {()}
    assert talk.engine.loaded == []


def test_the_base_alone_reads_nothing_twice(talk: Talk) -> None:
    talk.ask("one")
    first = len(talk.engine.written())
    events = talk.ask("two")
    prompt = talk.prompt().tokens
    # all but the end-of-turn token and what follows it was known
    assert done(events).reused_tokens == first
    assert [t for t, _ in talk.engine.caches[0].cells[: len(prompt)]] == prompt


def test_an_answer_pack_acts_from_the_header_on(talk: Talk) -> None:
    talk.ask("one", pack="doctor")
    start = talk.prompt().header_start
    (cache,) = talk.engine.caches
    assert [t for t, _ in cache.cells[: len(talk.prompt().tokens)]] == talk.prompt().tokens
    assert {slots for _, slots in cache.cells[:start]} == {()}
    assert {slots for _, slots in cache.cells[start:]} == {(1,)}


def test_the_next_turn_reads_a_packs_answer_again_by_the_base(talk: Talk) -> None:
    talk.ask("one", pack="doctor")
    first = talk.prompt()
    events = talk.ask("two", pack="doctor")
    second = talk.prompt()
    assert done(events).reused_tokens == first.header_start
    (cache,) = talk.engine.caches
    assert {slots for _, slots in cache.cells[: second.header_start]} == {()}
    assert {slots for _, slots in cache.cells[second.header_start :]} == {(1,)}


@pytest.mark.parametrize("pack", ["lawyer", "none"])
def test_nothing_a_pack_wrote_is_read_by_another(talk: Talk, pack: str) -> None:
    talk.ask("one", pack="doctor")
    talk.ask("two", pack=pack)
    (cache,) = talk.engine.caches
    slots = {slots for _, slots in cache.cells}
    assert slots == ({(), (2,)} if pack == "lawyer" else {()})
    assert done(talk.ask("three", pack="doctor")).reused_tokens > 0
    assert (2,) not in {slots for _, slots in cache.cells}


def test_a_full_pack_reads_everything_in_a_cache_of_its_own(talk: Talk) -> None:
    talk.ask("one", pack="none")
    talk.ask("two", pack="whole")
    base, own = talk.engine.caches
    assert {slots for _, slots in base.cells} == {()}
    assert {slots for _, slots in own.cells} == {(1,)}
    assert [t for t, _ in own.cells[: len(talk.prompt().tokens)]] == talk.prompt().tokens


def test_a_full_pack_reads_its_own_answers_once(talk: Talk) -> None:
    talk.ask("one", pack="whole")
    written = len(talk.engine.written())
    assert done(talk.ask("two", pack="whole")).reused_tokens == written
    assert len(talk.engine.caches) == 1


def test_an_adapter_is_loaded_once_and_only_when_needed(talk: Talk) -> None:
    assert talk.session.resident == ()
    talk.ask("one", pack="doctor")
    talk.ask("two", pack="doctor")
    assert talk.engine.loaded == [Path("doctor")]
    assert talk.session.resident == ("doctor",)


def test_the_router_sees_the_last_message_only(smollm2: Path, tokenizer: Tokenizer) -> None:
    router = FixedRouter("doctor")
    talk = make_talk(smollm2, tokenizer, router)
    for question in ("What does blood do?", "and the heart?"):
        events = talk.ask(question, pack="auto")
        assert isinstance(events[0], Routed)
        prompt = talk.prompt()
        start, end = prompt.last_message
        assert tokenizer.decode(prompt.tokens[start:end]) == question
        rows = np.repeat(np.array(prompt.tokens[start : end + 1])[:, None], 8, axis=1)
        expected = pool(rows.astype(np.float32), prompt.tokens[start:end])
        np.testing.assert_array_equal(router.seen[-1], expected)
        assert done(events).packs == ("doctor",)
    # routing costs no pass of its own: every token of the prompt ran once
    assert len(talk.engine.caches) == 1


def test_asking_again_still_shows_the_router_the_question(
    smollm2: Path, tokenizer: Tokenizer
) -> None:
    router = FixedRouter(None)
    talk = make_talk(smollm2, tokenizer, router)
    messages = [{"role": "user", "content": "What does blood do?"}]
    for _ in range(2):
        list(talk.session.answer(messages, GREEDY, max_tokens=5))
    np.testing.assert_array_equal(router.seen[0], router.seen[1])


def test_an_abstaining_router_leaves_the_base_alone(smollm2: Path, tokenizer: Tokenizer) -> None:
    talk = make_talk(smollm2, tokenizer, FixedRouter(None))
    events = talk.ask("one", pack="auto")
    assert done(events).packs == ()
    assert {slots for _, slots in talk.engine.written()} == {()}


def test_a_routed_full_pack_runs_in_its_own_cache(smollm2: Path, tokenizer: Tokenizer) -> None:
    talk = make_talk(smollm2, tokenizer, FixedRouter("whole"))
    talk.ask("one", pack="auto")
    base, own = talk.engine.caches
    assert {slots for _, slots in base.cells} == {()}
    assert {slots for _, slots in own.cells} == {(1,)}


def test_a_named_pack_is_not_routed(smollm2: Path, tokenizer: Tokenizer) -> None:
    router = FixedRouter("lawyer")
    talk = make_talk(smollm2, tokenizer, router)
    assert done(talk.ask("one", pack="doctor")).packs == ("doctor",)
    assert done(talk.ask("two", pack="none")).packs == ()
    assert router.seen == []


def test_max_tokens_ends_an_answer(talk: Talk) -> None:
    summary = done(talk.ask("one", max_tokens=3))
    assert (summary.finish, summary.answer_tokens) == ("length", 3)


def test_the_contexts_end_ends_an_answer(smollm2: Path, tokenizer: Tokenizer) -> None:
    prompt = make_talk(smollm2, tokenizer).chat.prompt([{"role": "user", "content": "one"}])
    talk = make_talk(smollm2, tokenizer, context=len(prompt.tokens) + 2)
    summary = done(talk.ask("one"))
    assert (summary.finish, summary.answer_tokens) == ("length", 2)


def test_a_conversation_longer_than_the_context_is_refused(
    smollm2: Path, tokenizer: Tokenizer
) -> None:
    talk = make_talk(smollm2, tokenizer, context=40)
    with pytest.raises(DoesNotFitError, match="the context holds 40") as caught:
        talk.ask("word " * 100)
    assert "--context" in (caught.value.hint or "")
    assert talk.engine.runs == []


def test_an_unknown_pack_is_refused_before_anything_runs(talk: Talk) -> None:
    with pytest.raises(NotFoundError, match="`baker`"):
        talk.ask("one", pack="baker")
    assert talk.engine.runs == []


@pytest.mark.parametrize("after", [0, 1, 3])
def test_cancelling_ends_the_answer_and_keeps_the_session_usable(talk: Talk, after: int) -> None:
    talk.messages.append({"role": "user", "content": "one"})
    events: list[Event] = []

    def cancelled() -> bool:
        return sum(isinstance(e, Text) for e in events) >= after

    for event in talk.session.answer(
        talk.messages, GREEDY, pack="doctor", max_tokens=50, cancelled=cancelled
    ):
        events.append(event)
    assert done(events).finish == "cancelled"
    assert ANSWER.startswith(text(events))
    assert text(events) != ANSWER
    assert text(talk.ask("two", pack="none")) == ANSWER
    assert {slots for _, slots in talk.engine.caches[0].cells} == {()}


def test_a_generator_that_is_dropped_midway_leaves_no_trace(talk: Talk) -> None:
    messages = [{"role": "user", "content": "one"}]
    running = talk.session.answer(messages, GREEDY, pack="doctor", max_tokens=50)
    next(running)
    running.close()
    assert text(talk.ask("two", pack="lawyer")) == ANSWER
    assert {slots for _, slots in talk.engine.caches[0].cells} == {(), (2,)}


def test_an_interrupted_forward_pass_is_forgotten(talk: Talk) -> None:
    talk.ask("one")
    # as if the cache had grown and the session never heard of it
    talk.engine.caches[0].cells += [(5, (7,))] * 3
    talk.ask("two")
    assert (7,) not in {slots for _, slots in talk.engine.caches[0].cells}
    prompt = talk.prompt().tokens
    assert [t for t, _ in talk.engine.caches[0].cells[: len(prompt)]] == prompt


def test_control_tokens_never_enter_an_answer(smollm2: Path, tokenizer: Tokenizer) -> None:
    talk = make_talk(smollm2, tokenizer)
    talk.engine.answer = [tokenizer.special["<|im_start|>"]]
    written = talk.ask("one", max_tokens=4)
    assert tokenizer.special["<|im_start|>"] not in [t for t, _ in _answer_cells(talk)]
    assert done(written).finish in ("stop", "length")


def _answer_cells(talk: Talk) -> list[tuple[int, tuple[int, ...]]]:
    cache: FakeCache = talk.engine.caches[0]
    return cache.cells[len(talk.prompt().tokens) :]


def test_fitting_drops_the_oldest_turns_and_keeps_the_system_message(
    smollm2: Path, tokenizer: Tokenizer
) -> None:
    talk = make_talk(smollm2, tokenizer, context=120)
    messages = [{"role": "system", "content": "Be brief."}]
    for i in range(8):
        messages.append({"role": "user", "content": f"question number {i}, a few words long"})
        messages.append({"role": "assistant", "content": f"answer number {i}"})
    messages.append({"role": "user", "content": "the last question"})
    kept, dropped = talk.session.fit(messages, 20)
    assert kept[0] == messages[0]
    assert kept[1]["role"] == "user"
    assert kept[1:] == messages[1 + dropped :]
    assert dropped > 0
    assert len(talk.chat.prompt(kept).tokens) <= 100
    assert len(talk.chat.prompt([messages[0], *messages[dropped - 1 :]]).tokens) > 100


def test_fitting_leaves_a_short_conversation_alone(talk: Talk) -> None:
    messages = [{"role": "user", "content": "short"}]
    assert talk.session.fit(messages, 100) == (messages, 0)
