"""All that is measured of one pack: its own metrics, its routing, and what it changes elsewhere."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from runtime.chat_format import ChatFormat
from runtime.engine import ActiveAdapter
from runtime.load import load_engine
from runtime.router import PackRouting
from runtime.tokenizer import Tokenizer
from specs.base_card import WEIGHTS_FILE
from specs.evals import Evals, RoutingEval, Subject
from specs.manifest import MANIFEST_FILE, ROUTING_FILE, Manifest
from trainer.data.example import Example
from trainer.data.general_suite import general_suite
from trainer.evaluate import Setting, Watch, evaluate, sample
from trainer.measured import Alone, Measured
from trainer.off_domain import Takes, base_logits, off_domain
from trainer.routing import (
    looker,
    measure_routing,
    others_installed,
    own_questions,
    prompts_to,
    read_base_routing,
    taking,
)
from trainer.statistics import check_groups

OFF_DOMAIN_PROMPTS = 64
"""General prompts on which divergence from the base is measured."""
MAX_LENGTH = 512
"""Tokens of a row, as `mbpm train` cuts them by default."""


@dataclass(frozen=True)
class Options:
    """How much is measured, and where."""

    device: str = "auto"
    seed: int = 0
    limit: int | None = None
    """Most held-out rows; None for all."""
    max_length: int = MAX_LENGTH
    unsandboxed: bool = False
    """Run programs of answers even where they cannot be shut in."""
    tasks: tuple[str, ...] = ()
    """Tasks of lm-evaluation-harness to run besides."""


class Witness:
    """What a base says alone, before a pack is loaded."""

    def __init__(self, setting: Setting) -> None:
        prompts = prompts_to("test")
        count = min(len(prompts), OFF_DOMAIN_PROMPTS)
        self.prompts = random.Random(setting.seed).sample(prompts, count)
        self.logits = base_logits(setting, self.prompts)


def assess(
    setting: Setting,
    witness: Witness,
    held_out: Sequence[Example],
    routing: RoutingEval,
    takes: Takes,
    watch: Watch,
    *,
    domain: str,
    fingerprint: str,
    notes: Sequence[str] = (),
    tasks: Sequence[Measured] = (),
) -> Evals:
    """The evaluation record of a pack; whose it is, who knows its files has to add.

    Args:
        setting: Its second system is the pack.
        witness: Of the same setting, from before the pack was loaded.
        routing: What was measured of its routing.
        takes: The router, with this pack.
        tasks: What was measured besides.

    Raises:
        UsageError: as `trainer.evaluate.evaluate`.
    """
    own = evaluate(setting, held_out, watch)
    return Evals(
        domain=domain,
        base_fingerprint=fingerprint,
        runtime=setting.engine.name,
        seed=setting.seed,
        metrics=tuple(m.metric(setting.seed) for m in (*own.found, *tasks)),
        routing=routing,
        off_domain=off_domain(setting, witness.prompts, witness.logits, takes, watch),
        notes=(*notes, *own.notes),
    )


def assess_pack(
    base_dir: Path,
    pack_dir: Path,
    held_out: Sequence[Example],
    installed: Iterable[Path],
    options: Options,
    watch: Watch,
    notes: Sequence[str] = (),
) -> Evals:
    """Measure a pack that is there already.

    Args:
        pack_dir: A folder with its manifest and files.
        installed: Folders of the packs installed beside it.
        notes: What a reader of figures on these rows must know.

    Raises:
        IntegrityError: it does not attach to this base, or a file is damaged.
        UsageError: unusable data.
    """
    rows, fewer = limited(held_out, options)
    manifest = Manifest.read(pack_dir / MANIFEST_FILE)
    setting = replace(base_setting(base_dir, options), activation=manifest.adapter.activation)
    whitening = read_base_routing(base_dir)
    card = PackRouting.load(pack_dir / ROUTING_FILE, whitening)
    witness = Witness(setting)
    slot = setting.engine.load_adapter(pack_dir)
    setting = replace(setting, systems=((), (ActiveAdapter(slot),)))
    look = looker(base_dir, whitening, setting.chat, options.device)
    watch("routing", 0)
    routing = measure_routing(
        card,
        look,
        whitening,
        own_questions(rows, options.seed),
        others_installed(installed, whitening, manifest.name),
    )
    evals = assess(
        setting,
        witness,
        rows,
        routing,
        taking(card, look, whitening),
        watch,
        domain=manifest.domain,
        fingerprint=manifest.base.fingerprint,
        notes=(*notes, *fewer),
        tasks=_tasks(setting, options, watch),
    )
    return evals.model_copy(update={"subject": Subject.of(manifest)})


def assess_base(
    base_dir: Path, held_out: Sequence[Example], options: Options, watch: Watch
) -> tuple[tuple[Alone, ...], tuple[str, ...], str]:
    """Measure a base alone, on the general suite where there are no other rows.

    Returns:
        What was measured, notes, and which engine measured.
    """
    rows, notes = limited(held_out or general_suite(), options)
    setting = base_setting(base_dir, options)
    own = evaluate(setting, rows, watch)
    tasks = _tasks(setting, options, watch)
    found = tuple(m.alone(options.seed) for m in (*own.found, *tasks))
    return found, (*notes, *own.notes), setting.engine.name


def _tasks(setting: Setting, options: Options, watch: Watch) -> Sequence[Measured]:
    if not options.tasks:
        return ()
    from trainer.harness import harness

    return harness(setting, options.tasks, options.limit, watch)


def base_setting(base_dir: Path, options: Options) -> Setting:
    """A base with no pack loaded."""
    weights = base_dir / WEIGHTS_FILE
    tokenizer = Tokenizer.from_gguf(weights)
    chat = ChatFormat.from_gguf(weights, tokenizer)
    engine = load_engine(base_dir, device=options.device)
    return Setting(
        engine,
        tokenizer,
        chat,
        ((),),
        "answer",
        min(options.max_length, engine.config.context_length),
        options.seed,
        options.unsandboxed,
    )


def limited(
    held_out: Sequence[Example], options: Options
) -> tuple[Sequence[Example], tuple[str, ...]]:
    """The rows to measure on, and a note where they are not all.

    Raises:
        UsageError: they are too few for an interval.
    """
    rows, notes = held_out, tuple[str, ...]()
    if options.limit is not None and options.limit < len(held_out):
        rows = sample(held_out, options.limit, options.seed)
        notes = (f"Measured on {len(rows)} of {len(held_out)} held-out rows, drawn by seed.",)
    if rows:
        check_groups(len({e.group for e in rows}))
    return rows, notes
