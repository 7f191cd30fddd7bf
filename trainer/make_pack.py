"""From examples to a pack folder: train, evaluate, calibrate routing, record canaries, write."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from runtime.adapter import Adapter
from runtime.canaries import MAX_PROMPT_CHARACTERS, record
from runtime.chat_format import ChatFormat
from runtime.tokenizer import Tokenizer
from runtime.torch_engine import TorchEngine
from specs.base_card import CARD_FILE, WEIGHTS_FILE, BaseCard
from specs.evals import Evals
from specs.manifest import AdapterInfo, BaseRef, DataSource
from specs.names import Name
from specs.pack_toml import PackToml
from trainer.config import TrainingConfig
from trainer.data.example import Example
from trainer.evaluate import evaluate
from trainer.loop import StepReport
from trainer.pack_folder import to_half, write_pack_folder
from trainer.routing import make_routing, read_base_routing
from trainer.training import Means, train_adapter

CANARIES = 3


class Reporter(Protocol):
    """Who is told how a run goes on."""

    def stage(self, text: str) -> None:
        """A part of the work begins."""

    def step(self, report: StepReport) -> None:
        """A training step is done."""


@dataclass(frozen=True)
class PackSpec:
    """What the author says about the pack."""

    name: Name
    version: str
    domain: Name
    description: str
    license: str
    sources: tuple[DataSource, ...] = ()
    recipe: str | None = None


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
) -> Made:
    """Make a pack folder in `output`; checkpoints stand in `output/checkpoints`.

    Args:
        means: with what it is trained; by default on `device` with all that is free.

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
    result, watched = train_adapter(
        base_dir, training, held_out, config, output, reporter, means or Means(device)
    )
    shipped = to_half(result.tensors)
    engine = TorchEngine(base_dir, device=device)
    info = AdapterInfo(
        activation=config.activation,
        rank=config.rank,
        alpha=config.scale * config.rank,
        modules=len(shipped) // 2,
    )
    slot = engine.add_adapter(Adapter.build(shipped, card, info.scale, engine.device, engine.dtype))
    reporter.stage("evaluating on held-out data")
    metrics = evaluate(engine, slot, held_out, chat, config)
    reporter.stage("calibrating routing")
    routing, routing_eval = make_routing(
        engine, chat, base_routing, spec.domain, training, held_out, config.seed
    )
    evals = Evals(
        domain=spec.domain,
        base_fingerprint=card.fingerprint,
        runtime=engine.name,
        seed=config.seed,
        metrics=metrics,
        routing=routing_eval,
        notes=_notes(watched, len(result.looks)),
    )
    reporter.stage("recording canaries")
    described = PackToml(
        name=spec.name,
        version=spec.version,
        domain=spec.domain,
        description=spec.description,
        license=spec.license,
        base=BaseRef(name=card.name, fingerprint=card.fingerprint),
        adapter=info,
        sources=spec.sources,
        recipe=spec.recipe,
        canaries=record(engine, chat, canary_prompts(held_out), info.activation, slot),
    )
    write_pack_folder(output, described, shipped, routing, evals)
    return Made(described, evals)


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
