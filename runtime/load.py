"""From folders to something that answers: a base, its tokenizer and chat format, packs, router."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from runtime.chat_format import ChatFormat
from runtime.engine import Engine
from runtime.router import BaseRouting, PackRouting, Router
from runtime.session import Pack, Session
from runtime.tokenizer import Tokenizer
from specs.base_card import BASE_ROUTING_FILE, CARD_FILE, WEIGHTS_FILE, BaseCard
from specs.manifest import MANIFEST_FILE, ROUTING_FILE, Manifest

DEFAULT_CONTEXT = 4096


@dataclass(frozen=True)
class Loaded:
    """A base in memory and the packs installed for it, none of them resident yet."""

    card: BaseCard
    engine: Engine
    tokenizer: Tokenizer
    chat_format: ChatFormat
    router: Router | None
    """None where the base was never calibrated for routing, or no pack is installed for it."""
    packs: dict[str, Pack]
    other_base: tuple[str, ...]
    """Packs left out because they were made for another base."""
    context: int

    def session(self) -> Session:
        """A new conversation."""
        return Session(
            self.engine, self.tokenizer, self.chat_format, self.packs, self.router,
            context=self.context,
        )  # fmt: skip


def load(
    base_dir: Path,
    pack_dirs: Iterable[Path],
    *,
    device: str = "auto",
    precision: Literal["packed", "float32"] = "packed",
    context: int | None = None,
) -> Loaded:
    """Load a base and look at the packs; adapters are read when a conversation first needs them.

    Args:
        base_dir: a base folder (specs.base_card).
        pack_dirs: folders of installed packs (specs.manifest).
        context: most tokens of a conversation; by default 4096, or what the base can read.

    Raises:
        IntegrityError: a file is damaged or not what it claims to be.
        UsageError: there is no such device.
    """
    from runtime.torch_engine import TorchEngine

    card_file = base_dir / CARD_FILE
    card = BaseCard.parse(card_file.read_bytes(), str(card_file))
    tokenizer = Tokenizer.from_gguf(base_dir / WEIGHTS_FILE)
    packs, other = {}, []
    for folder in pack_dirs:
        file = folder / MANIFEST_FILE
        manifest = Manifest.parse(file.read_bytes(), str(file))
        if manifest.base.fingerprint == card.fingerprint:
            name, activation = manifest.name, manifest.adapter.activation
            packs[name] = Pack(name, manifest.version, folder, activation)
        else:
            other.append(manifest.name)
    return Loaded(
        card=card,
        engine=TorchEngine(base_dir, device=device, precision=precision),
        tokenizer=tokenizer,
        chat_format=ChatFormat.from_gguf(base_dir / WEIGHTS_FILE, tokenizer),
        router=_router(base_dir, card, packs),
        packs=packs,
        other_base=tuple(other),
        context=min(DEFAULT_CONTEXT, card.context_length) if context is None else context,
    )


def _router(base_dir: Path, card: BaseCard, packs: dict[str, Pack]) -> Router | None:
    file = base_dir / BASE_ROUTING_FILE
    if not packs or not file.is_file():
        return None
    base = BaseRouting.load(file, card.fingerprint)
    routings = {
        name: PackRouting.load(pack.folder / ROUTING_FILE, base) for name, pack in packs.items()
    }
    return Router(base, routings)
