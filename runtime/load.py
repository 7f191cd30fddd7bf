"""From folders to something that answers: a base, its tokenizer and chat format, packs, router."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from runtime.chat_format import ChatFormat
from runtime.engine import Engine
from runtime.kept_text import open_text
from runtime.session import Pack, Session
from runtime.tokenizer import Tokenizer
from specs.errors import DoesNotFitError, IntegrityError, UsageError
from specs.file_names import BASE_ROUTING_FILE, ROUTING_FILE
from specs.stored import read_card, read_manifest

if TYPE_CHECKING:
    from runtime.router import BaseRouting, Decision, PackRouting, Router
    from specs.stored import Card

DEFAULT_CONTEXT = 4096

ENGINES = ("auto", "native", "torch")

PRECISIONS = ("packed", "int4", "float32")
"""`packed`: as the base's file has it; `int4`: rounded to 4 bits, by the native engine alone;
`float32`: the reference, by torch alone."""


@dataclass(frozen=True)
class Loaded:
    """A base in memory and the packs installed for it, none of them resident yet."""

    card: Card
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
    engine: str = "auto",
    precision: str = "packed",
    context: int | None = None,
    router_table: Path | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> Loaded:
    """Load a base and look at the packs; adapters are read when a conversation first needs them.

    Args:
        base_dir: a base folder (specs.base_card).
        pack_dirs: folders of installed packs (specs.manifest).
        engine: as in `load_engine`.
        context: most tokens of a conversation; by default 4096, or what the base can read.
        router_table: where a table of these packs may be (runtime.routing_table); where it is not,
            or does not fit, every pack's own file is read.
        say: told in words what takes seconds.

    Raises:
        IntegrityError: a file is damaged or not what it claims to be.
        UsageError: there is no such device, or no such engine here.
    """
    found = _look(base_dir, pack_dirs)
    card = found.card
    tokenizer, chat_format = open_text(base_dir, card.fingerprint)
    return Loaded(
        card=card,
        engine=load_engine(base_dir, engine=engine, device=device, precision=precision, say=say),
        tokenizer=tokenizer,
        chat_format=chat_format,
        router=_router(base_dir, found, router_table),
        packs=found.packs,
        other_base=found.other_base,
        context=min(DEFAULT_CONTEXT, card.context_length) if context is None else context,
    )


def load_engine(
    base_dir: Path,
    *,
    engine: str = "auto",
    device: str = "auto",
    precision: str = "packed",
    layers: int | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> Engine:
    """The engine for a base.

    Args:
        engine: `native`, `torch`, or `auto`: the native engine on the processor where it was
            built and computes this base, and torch otherwise, which is also what CUDA and float32
            need.
        layers: use only the first ones, for hidden states alone.
        say: told in words what takes seconds.

    Raises:
        UsageError: there is no such engine or device here, or the two do not go together.
        IntegrityError: the base is damaged.
        UnsupportedError: the native engine was asked for and does not compute this base.
    """
    if engine not in ENGINES:
        raise UsageError(f"`{engine}` is not an engine (expected {', '.join(ENGINES)})")
    if precision not in PRECISIONS:
        raise UsageError(f"`{precision}` is not a precision (expected {', '.join(PRECISIONS)})")
    if engine == "native" and (device not in ("auto", "cpu") or precision == "float32"):
        raise UsageError(
            f"the native engine computes on the processor, in few bits, not on `{device}`"
            if precision != "float32"
            else "the native engine computes in few bits, not in float32",
            hint="`--engine torch` does",
        )
    if engine != "torch" and precision != "float32" and _on_the_cpu(engine, device):
        from runtime.native import UnsupportedError, why_not

        reason = why_not()
        if reason is None:
            from runtime.native.engine import NativeEngine

            try:
                return NativeEngine(base_dir, precision=precision, layers=layers, say=say)
            except UnsupportedError as error:
                if engine == "native" or precision == "int4":
                    raise
                say(f"{error.message}; torch answers, more slowly")
        elif engine == "native":
            raise UsageError(
                f"the native engine is not here: {reason}",
                hint="`mbpm doctor` tells how to get it; `--engine torch` always works",
            )
    if precision == "int4":
        raise UsageError(
            "`--precision int4` is the native engine's, and torch was asked for",
            hint="`--engine native --device cpu`",
        )
    from runtime.torch_engine import TorchEngine

    exact = precision == "float32"
    return TorchEngine(
        base_dir, device=device, precision="float32" if exact else "packed", layers=layers
    )


def _on_the_cpu(engine: str, device: str) -> bool:
    """Whether the processor is meant, without loading torch where no GPU can be there."""
    if engine == "native" or device == "cpu":
        return True
    if device != "auto":
        return False
    # the driver's own files: torch finds no CUDA device where they are not
    if sys.platform == "linux":
        return not Path("/dev/nvidiactl").exists() and not Path("/dev/dxg").exists()
    return sys.platform == "darwin"


def decide(
    base_dir: Path,
    pack_dirs: Iterable[Path],
    question: str,
    *,
    device: str = "auto",
    engine: str = "auto",
    router_table: Path | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> Decision | None:
    """What the router says to a question that begins a conversation, loading only what it looks at.

    Args:
        engine, router_table, say: as in `load`.

    Returns:
        None where the base was never calibrated for routing, or no pack is installed for it.

    Raises:
        DoesNotFitError: the question is longer than the base can read.
        IntegrityError, UsageError: as `load`.
    """
    found = _look(base_dir, pack_dirs)
    router = _router(base_dir, found, router_table)
    if router is None:
        return None
    from runtime.features import features

    layer = router.base.layer
    _, chat = open_text(base_dir, found.card.fingerprint)
    loaded = load_engine(base_dir, engine=engine, device=device, layers=layer + 1, say=say)
    try:
        (feature,) = features(loaded, chat, [question], layer)
    except DoesNotFitError as error:
        raise DoesNotFitError(f"the question is too long: {error.message}") from None
    return router.decide(feature)


@dataclass(frozen=True)
class _Found:
    """A base and packs that were looked at but not loaded."""

    card: Card
    packs: dict[str, Pack]
    manifests: dict[str, str]
    """Name -> manifest digest of these packs."""
    other_base: tuple[str, ...]


def _look(base_dir: Path, pack_dirs: Iterable[Path]) -> _Found:
    card = read_card(base_dir)
    packs, manifests, other = {}, {}, []
    for folder in pack_dirs:
        manifest, digest = read_manifest(folder)
        if manifest.base.fingerprint == card.fingerprint:
            name, activation = manifest.name, manifest.adapter.activation
            packs[name] = Pack(name, manifest.version, folder, activation)
            manifests[name] = digest
        else:
            other.append(manifest.name)
    return _Found(card, packs, manifests, tuple(other))


def _router(base_dir: Path, found: _Found, table: Path | None) -> Router | None:
    file = base_dir / BASE_ROUTING_FILE
    if not found.packs or not file.is_file():
        return None
    from runtime.router import BaseRouting, Router

    base = BaseRouting.load(file, found.card.fingerprint)
    return Router(base, _routings(base, found, table))


def _routings(base: BaseRouting, found: _Found, table: Path | None) -> Mapping[str, PackRouting]:
    from runtime.router import PackRouting
    from runtime.routing_table import read_table

    if table is not None:
        # the packs themselves are the truth, and say what is wrong where something is
        with suppress(IntegrityError, OSError):
            return read_table(table).routings(base, found.manifests)
    return {n: PackRouting.load(p.folder / ROUTING_FILE, base) for n, p in found.packs.items()}
