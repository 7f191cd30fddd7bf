"""From examples to a pack folder: train, evaluate, calibrate routing, record canaries, write."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import torch

from runtime.adapter import Adapter
from runtime.canaries import MAX_PROMPT_CHARACTERS, record
from runtime.chat_format import ChatFormat
from runtime.engine import ActiveAdapter, Engine
from runtime.load import load_engine
from runtime.tokenizer import Tokenizer
from runtime.torch_engine import TorchEngine
from specs.base_card import CARD_FILE, WEIGHTS_FILE, BaseCard
from specs.evals import Evals
from specs.knowledge import Passage
from specs.manifest import AdapterInfo
from specs.pack_toml import PackToml
from trainer.assess import Witness, assess
from trainer.config import TrainingConfig
from trainer.data.example import Example
from trainer.evaluate import Setting
from trainer.held_out import write_held_out
from trainer.loop import StepReport
from trainer.pack_folder import PackSpec, to_half, unmake, write_pack_folder
from trainer.routing import (
    looker,
    make_routing,
    others_installed,
    read_base_routing,
    taking,
)
from trainer.scoring import Tick
from trainer.training import Means, train_adapter

CANARIES = 3


class Reporter(Protocol):
    """Who is told how a run goes on."""

    def stage(self, text: str) -> None:
        """A part of the work begins."""

    def step(self, report: StepReport) -> None:
        """A training step is done."""

    def part(self, text: str, rows: int) -> Tick:
        """A part of the evaluation begins; what is returned is told of rows that are done."""


@dataclass(frozen=True)
class Made:
    """What `make_pack` wrote."""

    pack: PackToml
    evals: Evals


def make_pack(
    base_dir: Path,
    spec: PackSpec,
    training: Sequence[Example],
    held_out: Sequence[Example],
    config: TrainingConfig,
    output: Path,
    reporter: Reporter,
    *,
    device: str = "auto",
    means: Means | None = None,
    installed: Iterable[Path] = (),
    passages: Sequence[Passage] = (),
) -> Made:
    """Make a pack folder in `output`; checkpoints stand in `output/checkpoints`.

    Args:
        means: with what it is trained; by default on `device` with all that is free.
        installed: Folders of packs whose questions it is told apart from.
        passages: What the pack is to find answers in.

    Raises:
        UsageError: unusable data or settings, or checkpoints of another run.
        MbpmError: training diverged.
    """
    card_file = base_dir / CARD_FILE
    card = BaseCard.parse(card_file.read_bytes(), str(card_file))
    weights = base_dir / WEIGHTS_FILE
    base_routing = read_base_routing(base_dir)
    tokenizer = Tokenizer.from_gguf(weights)
    chat = ChatFormat.from_gguf(weights, tokenizer)
    if config.max_length > card.context_length:
        config = config.model_copy(update={"max_length": card.context_length})
    result, watched = train_adapter(
        base_dir, training, held_out, config, output, reporter, means or Means(device)
    )
    shipped = to_half(result.tensors)
    engine = load_engine(base_dir, device=device)
    info = AdapterInfo(
        activation=config.activation,
        rank=config.rank,
        alpha=config.scale * config.rank,
        modules=len(shipped) // 2,
    )
    setting = Setting(
        engine, tokenizer, chat, ((),), config.activation, config.max_length, config.seed
    )
    witness = Witness(setting)
    slot = _loaded(engine, shipped, card, info.scale)
    reporter.stage("calibrating routing")
    look = looker(base_dir, base_routing, chat, device)
    routing, routing_eval = make_routing(
        look,
        base_routing,
        spec.domain,
        askable(training, chat, card.context_length),
        askable(held_out, chat, card.context_length),
        config.seed,
        others_installed(installed, base_routing, spec.name),
    )
    reporter.stage("evaluating on held-out data and general prompts")
    notes = _notes(watched, len(result.looks))
    evals = assess(
        replace(setting, systems=((), (ActiveAdapter(slot),))),
        witness,
        held_out,
        routing_eval,
        taking(routing, look, base_routing),
        reporter.part,
        domain=spec.domain,
        fingerprint=card.fingerprint,
        notes=notes,
    )
    reporter.stage("recording canaries")
    canaries = record(engine, chat, canary_prompts(held_out), info.activation, slot)
    described = spec.of(card, info, canaries)
    unmake(output)
    write_held_out(output, held_out, training, notes)
    written = write_pack_folder(output, described, shipped, routing.save(), evals, passages)
    return Made(described, written)


def _loaded(
    engine: Engine, tensors: Mapping[str, torch.Tensor], card: BaseCard, scale: float
) -> int:
    """The slot of an adapter that is in no file yet."""
    if isinstance(engine, TorchEngine):
        return engine.add_adapter(Adapter.build(tensors, card, scale, engine.device, engine.dtype))
    from runtime.native.engine import NativeEngine

    assert isinstance(engine, NativeEngine)
    return engine.add_adapter({n: t.float().cpu().numpy() for n, t in tensors.items()}, scale)


def askable(examples: Iterable[Example], chat: ChatFormat, context: int) -> list[Example]:
    """The examples whose last question the base can read, asked alone."""

    def length(question: str) -> int:
        return len(chat.prompt([{"role": "user", "content": question}]).tokens)

    around = length("")
    # a token is at least a byte, so most need not be counted
    return [
        e
        for e in examples
        if len(e.messages) > 1
        and (
            around + len(e.messages[-2].content.encode()) <= context
            or length(e.messages[-2].content) <= context
        )
    ]


def _notes(watched: int, looks: int) -> tuple[str, ...]:
    """What a reader of the evals must know: rows that chose an adapter flatter it a little."""
    if looks == 1:
        return ()
    return (f"{watched} of the held-out rows also chose the best of {looks} adapters.",)


def canary_prompts(examples: Sequence[Example]) -> list[str]:
    """A few different held-out questions."""
    prompts: dict[str, None] = {}
    for example in examples:
        question = example.messages[0].content
        if len(example.messages) == 2 and 1 <= len(question) <= MAX_PROMPT_CHARACTERS:
            prompts.setdefault(question)
    return list(prompts)[:CANARIES]
