"""One question, one answer: what `mbpm run` does."""

from __future__ import annotations

import os
import stat
import sys
import time
from typing import TYPE_CHECKING, Any

from mbpm import answering
from mbpm.state import State
from specs.errors import UsageError

if TYPE_CHECKING:
    from runtime.load import Loaded
    from runtime.router import Decision
    from runtime.session import Done

MAX_INPUT_BYTES = 4 * 1024 * 1024


def ask(
    state: State,
    question: str | None,
    *,
    pack: str = "auto",
    base: str | None = None,
    device: str = "auto",
    engine: str = "auto",
    precision: str = "packed",
    context: int | None = None,
    system: str | None = None,
    explain: bool = False,
    max_tokens: int = answering.MAX_TOKENS,
    temperature: float | None = None,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
    repetition_penalty: float | None = None,
    seed: int | None = None,
) -> None:
    """Answer a question on standard output, and tell the rest on standard error or as JSON.

    Raises:
        MbpmError: as `answering.load`, `question_text` and `Session.answer`.
    """
    out = state.out
    answering.check_max_tokens(max_tokens)
    text = question_text(question)
    settings = answering.sampling(
        temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p,
        repetition_penalty=repetition_penalty, seed=seed,
    )  # fmt: skip
    began = time.perf_counter()
    loaded = answering.load(state, base, device, context, pack, engine, precision)
    load_seconds = time.perf_counter() - began

    from runtime.session import Routed, Text

    messages = [{"role": "system", "content": system}] if system is not None else []
    messages.append({"role": "user", "content": text})
    decision: Decision | None = None
    done: Done | None = None
    pieces: list[str] = []
    session = loaded.session()
    for event in session.answer(messages, settings, pack=pack, max_tokens=max_tokens):
        if isinstance(event, Routed):
            decision = event.decision
        elif isinstance(event, Text):
            pieces.append(event.piece)
            out.stream(event.piece)
        else:
            done = event
    assert done is not None
    out.stream("\n")
    if explain:
        for line in answering.explain(decision, done, loaded):
            out.note(line)
    elif done.packs:
        out.note(f"[{', '.join(done.packs)}]", dim=True)
    if done.finish == "length":
        out.note("[cut off here; a larger `--max-tokens` lets it go on]", dim=True)
    if out.mode == "json":
        report = describe(loaded, decision, done, load_seconds)
        out.result({"answer": "".join(pieces), "seed": settings.seed, **report})


def question_text(question: str | None) -> str:
    """The question with what standard input holds.

    Raises:
        UsageError: neither holds anything, or the input is too long.
    """
    parts = [] if question is None else [question]
    if question is None or _has_input():
        if sys.stdin.isatty():
            raise UsageError("what should be answered?", hint='`mbpm run "question"`')
        raw = sys.stdin.buffer.read(MAX_INPUT_BYTES + 1)
        if len(raw) > MAX_INPUT_BYTES:
            raise UsageError(f"standard input holds more than {MAX_INPUT_BYTES:,} bytes")
        parts.append(raw.decode("utf-8", "replace"))
    text = "\n\n".join(p.strip() for p in parts if p.strip())
    if not text:
        raise UsageError("the question is empty", hint='`mbpm run "question"`')
    return text


def _has_input() -> bool:
    """Whether something was piped or redirected to us, as opposed to a terminal or nothing."""
    try:
        mode = os.fstat(sys.stdin.fileno()).st_mode
    except (OSError, ValueError, AttributeError):
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISREG(mode)


def describe(
    loaded: Loaded, decision: Decision | None, done: Done, load_seconds: float
) -> dict[str, Any]:
    """An answer's circumstances as plain values."""
    return {
        "finish": done.finish,
        "packs": list(done.packs),
        "routing": None if decision is None else answering.routing_document(decision),
        "base": {"name": loaded.card.name, "fingerprint": loaded.card.fingerprint},
        "engine": loaded.engine.name,
        "tokens": {
            "prompt": done.prompt_tokens,
            "reused": done.reused_tokens,
            "answer": done.answer_tokens,
        },
        "seconds": {
            "load": round(load_seconds, 3),
            "prefill": round(done.prefill_seconds, 3),
            "decode": round(done.decode_seconds, 3),
        },
        "tokens_per_second": round(done.tokens_per_second, 2),
        "memory": {**loaded.engine.memory(), "peak_resident": answering.peak_resident()},
    }
