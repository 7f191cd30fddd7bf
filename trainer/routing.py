"""Calibrating routing: the base's whitening, and a pack's prototype and threshold.

General prompts are `data/background.jsonl` and everyday questions made from templates. Some fit the
base's whitening; the others, by a hash of their text, calibrate packs.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from runtime.chat_format import ChatFormat
from runtime.engine import Engine
from runtime.features import features, routing_layer
from runtime.gguf_file import fingerprint, open_gguf
from runtime.router import BaseRouting, fit_base, fit_pack
from runtime.tokenizer import Tokenizer
from specs.base_card import BASE_ROUTING_FILE, WEIGHTS_FILE
from specs.errors import UsageError
from specs.evals import RoutingEval
from trainer.data.example import Example
from trainer.data.natural_questions import OTHER, domains, natural_questions
from trainer.data.split import position

BACKGROUND = Path(__file__).parent / "data" / "background.jsonl"
CALIBRATION_SHARE = 0.3
"""Share of the general prompts that packs are calibrated with."""
MOST_PROMPTS = 500
"""Prompts of one sort that are looked at."""
NATURAL = 500


@dataclass(frozen=True)
class General:
    """A prompt that is no pack's ground."""

    prompt: str
    kind: str

    @property
    def calibrates(self) -> bool:
        """Whether it is kept out of the base's whitening."""
        return position(self.prompt, 0) < CALIBRATION_SHARE


def general_prompts() -> list[General]:
    """All general prompts, in a fixed order."""
    lines = BACKGROUND.read_text("utf-8").splitlines()
    rows = [General(row["prompt"], row["category"]) for row in map(json.loads, lines)]
    return rows + [General(q, "natural") for q in natural_questions(OTHER, NATURAL, 0)]


def fit_base_routing(engine: Engine, base_dir: Path) -> bytes:
    """The bytes of a base's `routing.safetensors`."""
    weights = base_dir / WEIGHTS_FILE
    chat = ChatFormat.from_gguf(weights, Tokenizer.from_gguf(weights))
    rows = [g for g in general_prompts() if not g.calibrates]
    layer = routing_layer(engine.config.layers)
    found = features(engine, chat, [g.prompt for g in rows], layer)
    return fit_base(
        found, [g.kind for g in rows], fingerprint=fingerprint(open_gguf(weights)), layer=layer
    ).save()


def read_base_routing(base_dir: Path) -> BaseRouting:
    """The routing data of a base.

    Raises:
        UsageError: it has none.
        IntegrityError: it is damaged, or another base's.
    """
    file = base_dir / BASE_ROUTING_FILE
    if not file.is_file():
        raise UsageError(
            f"the base in {base_dir} has no {BASE_ROUTING_FILE}, so nothing can be routed to a pack"
        )
    return BaseRouting.load(file, fingerprint(open_gguf(base_dir / WEIGHTS_FILE)))


def make_routing(
    engine: Engine,
    chat: ChatFormat,
    base: BaseRouting,
    domain: str,
    training: Sequence[Example],
    held_out: Sequence[Example],
    seed: int,
) -> tuple[bytes, RoutingEval]:
    """The bytes of a pack's `routing.safetensors`, and how well it tells its prompts from others.

    Raises:
        UsageError: there are too few prompts.
    """
    own = _questions(training, seed)
    if domain in domains():
        own += natural_questions(domain, NATURAL, seed)
    tested = _questions(held_out, seed)
    general = [g.prompt for g in general_prompts() if g.calibrates]
    routing = fit_pack(
        base, *(features(engine, chat, prompts, base.layer) for prompts in (own, tested, general))
    )
    return routing.save(), RoutingEval(
        recall=routing.recall,
        false_fires=routing.false_fires,
        own_rows=len(tested),
        background_rows=len(general),
    )


def _questions(examples: Sequence[Example], seed: int) -> list[str]:
    """The questions that the examples answer, at most MOST_PROMPTS different ones."""
    questions = sorted({e.messages[-2].content for e in examples if len(e.messages) > 1})
    return random.Random(seed).sample(questions, min(len(questions), MOST_PROMPTS))
