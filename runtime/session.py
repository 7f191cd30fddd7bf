"""Conversations: routing, caches that packs share, sampling, streaming. Knows no backend.

With activation `answer` everything before the assistant's header is written into one cache by the
base alone, whatever pack answers; an answer written under a pack is read again by the base when the
next turn begins. With activation `full` a pack reads the whole conversation into a cache of its
own. Keys and values written under one pack are never read under another.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np

from runtime.chat_format import ChatFormat, Message, Prompt
from runtime.engine import F32, ActiveAdapter, Cache, Engine
from runtime.prefix import common_prefix
from runtime.sampling import Sampling, choose
from runtime.tokenizer import Tokenizer
from specs.errors import DoesNotFitError, NotFoundError

if TYPE_CHECKING:
    from runtime.router import Decision, Router
    from specs.manifest import Activation

PREFILL_TOKENS = 256
"""How many tokens of a prompt run between two looks at `cancelled`."""
PENALTY_WINDOW = 128
"""How many of the answer's last tokens the repetition penalty falls on."""

Finish = Literal["stop", "length", "cancelled"]


@dataclass(frozen=True)
class Pack:
    """An installed pack as a session sees it; its adapter is loaded when first needed."""

    name: str
    version: str
    folder: Path
    activation: Activation


@dataclass(frozen=True)
class Routed:
    """The router has decided."""

    decision: Decision


@dataclass(frozen=True)
class Text:
    """The next piece of the answer."""

    piece: str


@dataclass(frozen=True)
class Done:
    """The answer is over."""

    finish: Finish
    """`stop`: it ended; `length`: it reached `max_tokens` or the context's end."""
    packs: tuple[str, ...]
    """The packs that took part."""
    prompt_tokens: int
    reused_tokens: int
    """Tokens of the prompt that were in a cache already."""
    answer_tokens: int
    prefill_seconds: float
    decode_seconds: float

    @property
    def tokens_per_second(self) -> float:
        """Decoding speed; 0 where fewer than two tokens came."""
        steps = self.answer_tokens - 1
        return steps / self.decode_seconds if steps > 0 and self.decode_seconds > 0 else 0.0


Event = Routed | Text | Done


@dataclass
class _Track:
    """A cache and what it holds; the first `clean` tokens may be read again by its owner."""

    cache: Cache
    tokens: list[int] = field(default_factory=list)
    clean: int = 0

    def keep(self, tokens: Sequence[int], most: int) -> int:
        """Truncate to what can serve a prompt of `tokens`, at most `most`; return its length."""
        same = common_prefix(self.tokens, tokens, min(self.clean, self.cache.length, most))
        self.cache.truncate(same)
        del self.tokens[same:]
        self.clean = same
        return same


class _Cancel(Protocol):
    def __call__(self) -> bool: ...


def never() -> bool:
    """Nobody cancels."""
    return False


class Session:
    """One conversation partner: an engine, the packs that may take part, and their caches."""

    def __init__(
        self,
        engine: Engine,
        tokenizer: Tokenizer,
        chat_format: ChatFormat,
        packs: Mapping[str, Pack],
        router: Router | None,
        *,
        context: int,
    ) -> None:
        """Args:
        router: None where `auto` means the base alone.
        context: most tokens of a conversation, prompt and answer together.
        """
        self._engine = engine
        self._tokenizer = tokenizer
        self._chat_format = chat_format
        self._packs = packs
        self._router = router
        self.context = context
        self._base: _Track | None = None
        self._own: dict[str, _Track] = {}
        self._slots: dict[str, int] = {}
        unwanted = set(tokenizer.special.values()) - tokenizer.eos_ids
        self._unwanted = np.array(sorted(unwanted), dtype=np.intp)

    @property
    def resident(self) -> tuple[str, ...]:
        """Packs whose adapter has been loaded."""
        return tuple(self._slots)

    def fit(self, messages: Sequence[Message], max_tokens: int) -> tuple[list[Message], int]:
        """Leave out the oldest turns until a quarter of the context, or `max_tokens`, stays free.

        Returns:
            The messages that are left and how many were dropped. System messages and the last
            message always stay.
        """
        kept, dropped = list(messages), 0
        room = self.context - min(max_tokens, self.context // 4)
        while len(self._chat_format.prompt(kept).tokens) > room:
            first = 1 if kept[0]["role"] == "system" else 0
            # up to the next question, so that the conversation still begins with one
            turn = next(
                (i for i in range(first + 1, len(kept)) if kept[i]["role"] == "user"), len(kept)
            )
            if turn >= len(kept):
                break
            dropped += turn - first
            del kept[first:turn]
        return kept, dropped

    def answer(
        self,
        messages: Sequence[Message],
        sampling: Sampling,
        *,
        pack: str = "auto",
        max_tokens: int,
        cancelled: Callable[[], bool] = never,
    ) -> Iterator[Event]:
        """Answer the last message.

        Args:
            pack: `auto` (the router decides), `none` (the base alone), or a pack's name.
            cancelled: asked between tokens; true ends the answer.

        Raises:
            NotFoundError: no such pack.
            DoesNotFitError: the conversation is longer than the context.
        """
        prompt = self._chat_format.prompt(messages)
        if len(prompt.tokens) >= self.context:
            raise DoesNotFitError(
                f"the conversation takes {len(prompt.tokens):,} tokens and the context holds "
                f"{self.context:,}",
                hint="a larger `--context` holds more",
            )
        if pack not in ("auto", "none") and pack not in self._packs:
            raise NotFoundError(
                f"the pack `{pack}` is not installed for this base",
                hint="`mbpm list` shows what is installed",
            )
        began = time.perf_counter()
        chosen = self._packs.get(pack)
        reused = 0
        if chosen is None or chosen.activation == "answer":
            router = self._router if pack == "auto" else None
            reused, hidden = self._read(prompt, router, cancelled)
            if router is not None and hidden is not None:
                from runtime.features import pool

                start, end = prompt.last_message
                decision = router.decide(pool(hidden, prompt.tokens[start:end]))
                yield Routed(decision)
                chosen = None if decision.pack is None else self._packs[decision.pack]
        if chosen is not None and chosen.activation == "full":
            track, active, reused = self._own_track(chosen, prompt)
        else:
            track = self._base_track()
            active = [] if chosen is None else [ActiveAdapter(self._slot(chosen))]
        taking_part = () if chosen is None else (chosen.name,)
        logits = self._run(track, prompt.tokens[len(track.tokens) :], active, cancelled)
        prefilled = time.perf_counter()

        seen: list[int] = []
        finish: Finish = "cancelled" if logits is None else "length"
        stream, generator = self._tokenizer.stream(), sampling.generator()
        room = min(max_tokens, self.context - len(prompt.tokens))
        while logits is not None and len(seen) < room:
            if cancelled():
                finish = "cancelled"
                break
            logits[self._unwanted] = -np.inf
            token = choose(logits, seen[-PENALTY_WINDOW:], sampling, generator)
            if token in self._tokenizer.eos_ids:
                finish = "stop"
                break
            seen.append(token)
            if piece := stream.push(token):
                yield Text(piece)
            if len(seen) < room:
                logits = self._run(track, [token], active, never)
        if piece := stream.flush():
            yield Text(piece)
        yield Done(
            finish=finish,
            packs=taking_part,
            prompt_tokens=len(prompt.tokens),
            reused_tokens=reused,
            answer_tokens=len(seen),
            prefill_seconds=prefilled - began,
            decode_seconds=time.perf_counter() - prefilled,
        )

    def _read(
        self, prompt: Prompt, router: Router | None, cancelled: Callable[[], bool]
    ) -> tuple[int, F32 | None]:
        """Let the base read everything before the assistant's header.

        Returns:
            How many tokens it had read before, and for the router the residual stream
            [tokens, hidden_size] of the last message and the token that ends it.
        """
        track = self._base_track()
        start, end = prompt.last_message
        reused = track.keep(prompt.tokens, prompt.header_start if router is None else start)
        layer = None if router is None else router.base.layer
        rows: list[F32] = []
        for piece in _pieces(prompt.tokens[reused : prompt.header_start]):
            if cancelled():
                return reused, None
            forward = self._engine.forward(track.cache, piece, logits="none", hidden_layer=layer)
            self._wrote(track, piece, clean=True)
            if forward.hidden is not None:
                rows.append(forward.hidden)
        if not rows:
            return reused, None
        return reused, np.concatenate(rows)[start - reused : end + 1 - reused]

    def _run(
        self,
        track: _Track,
        tokens: Sequence[int],
        active: Sequence[ActiveAdapter],
        cancelled: Callable[[], bool],
    ) -> F32 | None:
        """Append tokens; the logits [vocab] behind the last one, or None when cancelled."""
        logits = None
        clean = not active or track is not self._base
        for piece in _pieces(tokens):
            if cancelled():
                return None
            logits = self._engine.forward(track.cache, piece, active, logits="last").logits
            self._wrote(track, piece, clean)
        assert logits is not None
        row: F32 = logits[-1]
        return row

    @staticmethod
    def _wrote(track: _Track, tokens: Sequence[int], clean: bool) -> None:
        track.tokens += tokens
        if clean:
            track.clean = len(track.tokens)

    def _base_track(self) -> _Track:
        if self._base is None:
            self._base = _Track(self._engine.new_cache(self.context))
        return self._base

    def _own_track(self, pack: Pack, prompt: Prompt) -> tuple[_Track, list[ActiveAdapter], int]:
        active = [ActiveAdapter(self._slot(pack))]
        if pack.name not in self._own:
            self._own[pack.name] = _Track(self._engine.new_cache(self.context))
        track = self._own[pack.name]
        # the last token is always run: its logits begin the answer
        return track, active, track.keep(prompt.tokens, len(prompt.tokens) - 1)

    def _slot(self, pack: Pack) -> int:
        if pack.name not in self._slots:
            self._slots[pack.name] = self._engine.load_adapter(pack.folder)
        return self._slots[pack.name]


def _pieces(tokens: Sequence[int]) -> Iterator[Sequence[int]]:
    for start in range(0, len(tokens), PREFILL_TOKENS):
        yield tokens[start : start + PREFILL_TOKENS]
