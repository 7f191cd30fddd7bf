"""Calibrating routing: the base's whitening, and a pack's prototype and threshold.

General prompts are `data/background.jsonl` and everyday questions made from templates. By a hash of
their text, most fit the base's whitening and lend packs their hard negatives, some calibrate packs,
and some do neither: packs are measured on those.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from runtime.chat_format import ChatFormat
from runtime.engine import F32, Engine
from runtime.features import features, routing_layer
from runtime.gguf_file import fingerprint, open_gguf
from runtime.load import load_engine
from runtime.router import (
    LEAST_PROMPTS,
    MAX_QUESTION_LETTERS,
    BaseRouting,
    PackRouting,
    Router,
    fit_base,
    fit_pack,
)
from runtime.tokenizer import Tokenizer
from specs.base_card import BASE_ROUTING_FILE, WEIGHTS_FILE
from specs.errors import UsageError
from specs.evals import RoutingEval, Taken
from specs.manifest import MANIFEST_FILE, ROUTING_FILE, Manifest
from trainer.data.example import Example
from trainer.data.natural_questions import OTHER, domains, natural_questions
from trainer.data.split import position
from trainer.statistics import mcnemar_test

BACKGROUND = Path(__file__).parent / "data" / "background.jsonl"
TESTED_SHARE, CALIBRATED_SHARE = 0.1, 0.2
"""Shares of the general prompts that packs are measured on, and calibrated with."""
MOST_PROMPTS = 500
"""Prompts of one sort that are looked at."""
NATURAL = 500
POOL, HARD = 400, 64
"""General prompts among which hard negatives are looked for, and how many of all are taken."""
KINDS, CHOOSING, CERTAIN = (1, 2, 4, 8), 4, 0.05
"""Numbers of prototypes that are tried, on every how many-th question, and the p-value at which
more are better."""
KEPT = 32
"""Validation questions and hard negatives that stay in the pack."""

Look = Callable[[Sequence[str]], F32]
"""Features [n, D] of questions."""


@dataclass(frozen=True)
class General:
    """A prompt that is no pack's ground."""

    prompt: str
    kind: str

    @property
    def part(self) -> Literal["test", "calibrate", "base"]:
        """What it is for."""
        place = position(self.prompt, 0)
        if place < TESTED_SHARE:
            return "test"
        return "calibrate" if place < TESTED_SHARE + CALIBRATED_SHARE else "base"


def general_prompts() -> list[General]:
    """All general prompts, in a fixed order."""
    lines = BACKGROUND.read_text("utf-8").splitlines()
    rows = [General(row["prompt"], row["category"]) for row in map(json.loads, lines)]
    return rows + [General(q, "natural") for q in natural_questions(OTHER, NATURAL, 0)]


def prompts_to(part: Literal["test", "calibrate", "base"]) -> list[str]:
    """The general prompts of one part."""
    return [g.prompt for g in general_prompts() if g.part == part]


def fit_base_routing(engine: Engine, base_dir: Path) -> bytes:
    """The bytes of a base's `routing.safetensors`."""
    weights = base_dir / WEIGHTS_FILE
    chat = ChatFormat.from_gguf(weights, Tokenizer.from_gguf(weights))
    rows = [g for g in general_prompts() if g.part == "base"]
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


def looker(base_dir: Path, base: BaseRouting, chat: ChatFormat, device: str) -> Look:
    """Features from a base of which only the layers that the router looks at are in memory.

    No question is read twice.
    """
    engine = load_engine(base_dir, device=device, layers=base.layer + 1)
    seen: dict[str, F32] = {}

    def look(prompts: Sequence[str]) -> F32:
        new = sorted({p for p in prompts if p not in seen})
        if new:
            seen.update(zip(new, features(engine, chat, new, base.layer), strict=True))
        return np.stack([seen[p] for p in prompts])

    return look


@dataclass(frozen=True)
class Other:
    """A pack that is installed beside the one in hand."""

    routing: PackRouting
    questions: tuple[str, ...]

    @property
    def lent(self) -> tuple[str, ...]:
        """Those that a new pack may be told apart from: every second one."""
        return self.questions[::2]

    @property
    def tested(self) -> tuple[str, ...]:
        """Those that no pack was fitted to."""
        return self.questions[1::2]


def others_installed(pack_dirs: Iterable[Path], base: BaseRouting, name: str) -> dict[str, Other]:
    """The other packs of a base, with questions of theirs: validation ones, or else recorded ones.

    Args:
        pack_dirs: Folders of installed packs.
        name: The pack that is not another.
    """
    found = {}
    for folder in pack_dirs:
        manifest = Manifest.read(folder / MANIFEST_FILE)
        if manifest.name == name or manifest.base.fingerprint != base.fingerprint:
            continue
        routing = PackRouting.load(folder / ROUTING_FILE, base)
        questions = routing.validation or tuple(c.prompt for c in manifest.canaries)
        if questions:
            found[manifest.name] = Other(routing, questions)
    return found


def make_routing(
    look: Look,
    base: BaseRouting,
    domain: str,
    training: Sequence[Example],
    held_out: Sequence[Example],
    seed: int,
    others: Mapping[str, Other],
) -> tuple[PackRouting, RoutingEval]:
    """A pack's routing card, and how well it tells its prompts from others.

    Hard negatives are the prompts nearest to a first prototype among general ones and the others'
    questions; of these every second one is kept for measuring.

    Raises:
        UsageError: there are too few prompts.
    """
    own = own_questions(training, seed)
    if domain in domains():
        own += natural_questions(domain, NATURAL, seed)
    tested = own_questions(held_out, seed)
    near, held, general = (look(prompts) for prompts in (own, tested, prompts_to("calibrate")))
    kinds = _kinds(base, near, general, None)
    first = fit_pack(base, near, held, general, kinds=kinds)
    pool = prompts_to("base")
    pool = random.Random(seed).sample(pool, min(len(pool), POOL))
    pool += [q for other in others.values() for q in other.lent]
    scores = first.score(base.whiten(look(pool)))
    nearest = [pool[i] for i in np.argsort(-scores, kind="stable")[:HARD]]
    hard = look(nearest)
    kinds = _kinds(base, near, general, hard)
    fitted = replace(
        fit_pack(base, near, held, general, hard, kinds),
        validation=_kept(tested),
        negatives=_kept(nearest),
    )
    return fitted, measure_routing(fitted, look, base, tested, others)


def _kinds(base: BaseRouting, own: F32, general: F32, hard: F32 | None) -> int:
    """How many prototypes a pack needs: one, unless more let certainly more of its questions pass.

    Every CHOOSING-th question is kept apart to choose by.
    """
    apart = np.arange(len(own)) % CHOOSING == 0
    best, passed = 1, np.zeros(int(apart.sum()), dtype=bool)
    for kinds in KINDS if len(own) - len(passed) >= LEAST_PROMPTS else ():
        card = fit_pack(base, own[~apart], own[apart], general, hard, kinds)
        found = card.score(base.whiten(own[apart])) >= card.threshold
        more, fewer = int((found & ~passed).sum()), int((passed & ~found).sum())
        if kinds == 1 or (more > fewer and mcnemar_test(more, fewer) < CERTAIN):
            best, passed = kinds, found
    return best


def measure_routing(
    pack: PackRouting,
    look: Look,
    base: BaseRouting,
    own: Sequence[str],
    others: Mapping[str, Other],
) -> RoutingEval:
    """How a routing card fares on held-out questions of its own, general prompts that calibrated
    nothing, and questions of other packs, which it takes where the router prefers it to them."""
    general = prompts_to("test")
    own_scores = pack.score(base.whiten(look(own))) if own else np.empty(0, np.float32)
    scores = pack.score(base.whiten(look(general)))
    taken = []
    for name, other in sorted(others.items()):
        if other.tested:
            # the pack's own name is not known here, and cannot be this
            router = Router(base, {name: other.routing, "": pack})
            wins = [router.decide(f).pack == "" for f in look(other.tested)]
            taken.append(Taken(pack=name, rows=len(wins), share=float(np.mean(wins))))
    return RoutingEval(
        recall=float(np.mean(own_scores >= pack.threshold)) if len(own_scores) else 0.0,
        false_fires=float(np.mean(scores >= pack.threshold)),
        own_rows=len(own_scores),
        background_rows=len(scores),
        auroc=_auroc(own_scores, scores) if len(own_scores) else None,
        others=tuple(taken),
    )


def taking(
    pack: PackRouting, look: Look, base: BaseRouting
) -> Callable[[Sequence[str]], npt.NDArray[np.bool_]]:
    """Which prompts the router gives to a pack that is the only one."""

    def takes(prompts: Sequence[str]) -> npt.NDArray[np.bool_]:
        passed: npt.NDArray[np.bool_] = pack.score(base.whiten(look(prompts))) >= pack.threshold
        return passed

    return takes


def own_questions(examples: Sequence[Example], seed: int) -> list[str]:
    """The questions that the examples answer, at most MOST_PROMPTS different ones."""
    questions = sorted({e.messages[-2].content for e in examples if len(e.messages) > 1})
    return random.Random(seed).sample(questions, min(len(questions), MOST_PROMPTS))


def _kept(questions: Sequence[str]) -> tuple[str, ...]:
    return tuple(q for q in questions if len(q) <= MAX_QUESTION_LETTERS)[:KEPT]


def _auroc(own: F32, general: F32) -> float:
    """How often a score of `own` lies above one of `general`; ties count half."""
    order = np.sort(general)
    below = np.searchsorted(order, own, "left") + np.searchsorted(order, own, "right")
    return float(below.mean() / (2 * len(general)))
