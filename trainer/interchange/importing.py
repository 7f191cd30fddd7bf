"""An adapter from elsewhere as a pack folder, followed by a comparison of logits."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from runtime.adapter import ActiveDelta, Adapter
from runtime.canaries import record
from runtime.chat_format import ChatFormat
from runtime.gguf_file import model_config, open_gguf
from runtime.router import PackRouting
from runtime.tokenizer import Tokenizer
from runtime.torch_engine import TorchEngine
from specs.base_card import CARD_FILE, WEIGHTS_FILE, BaseCard
from specs.errors import IntegrityError, UsageError
from specs.evals import Evals
from specs.pack_toml import PackToml
from trainer.data.example import Example
from trainer.data.split import split_by_group
from trainer.held_out import write_held_out
from trainer.interchange.compare import CPU, PROMPTS, Agreement, Reference, agreement, questions
from trainer.interchange.export import header_tokens
from trainer.interchange.gguf_adapter import is_gguf, read_gguf_adapter
from trainer.interchange.lora import Lora, LoraDelta
from trainer.interchange.peft_config import CONFIG_FILE, PICKLE_FILE
from trainer.interchange.peft_folder import read_peft
from trainer.make_pack import askable
from trainer.pack_folder import PackSpec, write_pack_folder
from trainer.routing import looker, make_routing, others_installed, read_base_routing

CANARIES = 3
HELD_OUT_SHARE, SEED = 0.5, 0


@dataclass(frozen=True)
class Imported:
    """What was written."""

    pack: PackToml
    agreement: Agreement
    routed: bool
    """Whether the router may give it questions."""
    proven: bool
    """Whether the adapter's file names this very base by its fingerprint."""
    declared_base: str
    lost: tuple[str, ...]


def read_adapter(source: Path, base_dir: Path) -> Lora:
    """Read a PEFT folder or a GGUF adapter for a base.

    Raises:
        UsageError: it is neither, or holds what a pack cannot carry.
        NotFoundError, IntegrityError: as `read_peft` and `read_gguf_adapter`.
    """
    card = BaseCard.read(base_dir / CARD_FILE)
    weights = base_dir / WEIGHTS_FILE
    header = header_tokens(ChatFormat.from_gguf(weights, Tokenizer.from_gguf(weights)))
    if source.is_dir():
        lora = read_peft(source, card, header)
    elif is_gguf(source):
        lora = read_gguf_adapter(source, model_config(open_gguf(weights)), card, header)
    else:
        raise UsageError(
            f"{source}: is no adapter that can be imported",
            hint=_what_it_is(source),
        )
    if lora.fingerprint is not None and lora.fingerprint != card.fingerprint:
        raise IntegrityError(
            f"{source}: was made for base {lora.fingerprint[:12]}, not for {card.name} "
            f"({card.fingerprint[:12]})",
            hint="`mbpm base list --json` shows the fingerprints",
        )
    return lora


def _what_it_is(source: Path) -> str:
    if source.name == PICKLE_FILE or source.suffix in (".bin", ".pt", ".pth", ".ckpt"):
        return "it is a pickle, which can run code and is never read; save it as safetensors"
    if source.suffix == ".safetensors":
        return f"give the folder that holds it and {CONFIG_FILE}"
    return f"a PEFT folder with {CONFIG_FILE}, or a GGUF file, can be"


def import_adapter(
    base_dir: Path,
    lora: Lora,
    spec: PackSpec,
    output: Path,
    *,
    examples: Sequence[Example] = (),
    installed: Iterable[Path] = (),
    device: str = "auto",
    say: Callable[[str], None],
) -> Imported:
    """Write a pack folder. Nothing is measured of what it answers.

    Args:
        examples: of what it answers: questions of one half calibrate its routing, the other half is
            kept in the folder to measure it with. Without them no question is routed to it.
        installed: folders of packs whose questions it is told apart from.

    Raises:
        IntegrityError: no manifest can hold it.
        UsageError: the base was never calibrated for routing, or the examples are too few.
    """
    card = BaseCard.read(base_dir / CARD_FILE)
    weights = base_dir / WEIGHTS_FILE
    chat = ChatFormat.from_gguf(weights, Tokenizer.from_gguf(weights))
    tensors, info = lora.pack()
    whitening = read_base_routing(base_dir)
    routing, measured = PackRouting.unreachable(whitening), None
    if examples:
        say("calibrating routing")
        split = split_by_group(examples, fraction=HELD_OUT_SHARE, seed=SEED)
        routing, measured = make_routing(
            looker(base_dir, whitening, chat, device),
            whitening,
            spec.domain,
            askable(split.train, chat, card.context_length),
            askable(split.held_out, chat, card.context_length),
            SEED,
            others_installed(installed, whitening, spec.name),
        )
        write_held_out(output, split.held_out, split.train)
    say("recording what it says")
    engine = TorchEngine(base_dir, device=device)
    slot = engine.add_adapter(Adapter.build(tensors, card, info.scale, engine.device, engine.dtype))
    canaries = record(engine, chat, PROMPTS[:CANARIES], info.activation, slot)
    pack = spec.of(card, info, canaries)
    evals = Evals(
        domain=spec.domain,
        base_fingerprint=card.fingerprint,
        runtime=engine.name,
        seed=SEED,
        metrics=(),
        routing=measured,
        notes=("Imported; nothing was measured of what it answers.",),
    )
    del engine
    write_pack_folder(output, pack, tensors, routing.save(), evals)
    say("comparing logits")
    return Imported(
        pack=pack,
        agreement=_compare(base_dir, card, chat, lora, tensors, info.scale),
        routed=bool(examples),
        proven=lora.fingerprint == card.fingerprint,
        declared_base=lora.declared_base,
        lost=lora.lost,
    )


def _compare(
    base_dir: Path,
    card: BaseCard,
    chat: ChatFormat,
    lora: Lora,
    tensors: dict[str, torch.Tensor],
    scale: float,
) -> Agreement:
    """The formula over what was read, against the pack as the runtime applies it."""
    asked = questions(chat, PROMPTS, lora.activation)
    adapter = Adapter.build(tensors, card, scale, CPU, torch.float32)
    reference = Reference(open_gguf(base_dir / WEIGHTS_FILE))
    read, made = LoraDelta(lora, card), ActiveDelta([(adapter, 1.0)])
    return agreement(asked, *reference.logits(asked, None, read, made))
