"""What `mbpm run` and `mbpm chat` share: loading, and words about an answer."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from mbpm.output import size
from specs.errors import NotFoundError, UsageError

if TYPE_CHECKING:
    from mbpm.state import State
    from runtime.load import Loaded
    from runtime.router import Decision
    from runtime.sampling import Sampling
    from runtime.session import Done

# numpy multiplies small matrices here, and waits for each of OpenBLAS's threads when it is imported
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

MAX_TOKENS = 256
"""How long an answer may get by default: small models say little that is good after that."""


def sampling(**given: float | int | None) -> Sampling:
    """The options that were given, over the defaults; a seed is drawn where none was given.

    Raises:
        UsageError: naming the option that is out of range.
    """
    from runtime.sampling import Sampling

    chosen: dict[str, Any] = {k: v for k, v in given.items() if v is not None}
    return Sampling(**{"seed": int.from_bytes(os.urandom(4), "big"), **chosen})


def next_seed(settings: Sampling) -> Sampling:
    """For the next answer of a conversation: another seed, decided by the one before."""
    assert settings.seed is not None
    return replace(settings, seed=(settings.seed + 1) % (1 << 63))


def load(
    state: State,
    base: str | None,
    device: str,
    context: int | None,
    pack: str,
    engine: str,
    precision: str,
) -> Loaded:
    """Load a base and the packs installed for it.

    Raises:
        NotFoundError: the base or pack is not installed.
        UsageError: a context that no conversation fits, or no such engine or device here.
    """
    if context is not None and context < 32:
        raise UsageError(f"`--context` is {context} (expected 32 or more)")
    from mbpm.place import find
    from runtime.load import load as load_runtime

    place = find(state.home, base, None if pack in ("auto", "none") else pack)
    loaded = load_runtime(
        place.base_dir, place.pack_dirs, device=device, engine=engine, precision=precision,
        context=context, router_table=place.router_table, say=state.out.note,
    )  # fmt: skip
    if pack in loaded.other_base:
        raise NotFoundError(
            f"the pack `{pack}` was made for another base than {place.base}",
            hint="`mbpm list` shows the base of every pack; `--base NAME` chooses one",
        )
    return loaded


def explain(decision: Decision | None, done: Done, loaded: Loaded) -> list[str]:
    """Who answered and why, line by line, for people."""
    answered = " + ".join(done.packs) if done.packs else "the base alone"
    lines = [f"answered by {answered}"]
    if decision is not None:
        lines += [f"  {score.pack}: {score.reason}" for score in decision.scores]
    elif loaded.packs and loaded.router is None:
        lines.append("  this base has no routing data, so only `--pack NAME` brings a pack in")
    elif not loaded.packs:
        lines.append("  no packs are installed for this base")
    lines.append(
        f"  {done.prompt_tokens} tokens read ({done.reused_tokens} known already) in "
        f"{done.prefill_seconds:.2f} s, {done.answer_tokens} written at "
        f"{done.tokens_per_second:.1f} per second"
    )
    held = ", ".join(f"{part} {size(n)}" for part, n in loaded.engine.memory().items() if n)
    peak = peak_resident()
    at_most = "" if peak is None else f"; the whole process {size(peak)} at its peak"
    lines.append(f"  memory: {held}{at_most}")
    return lines


def routing_document(decision: Decision) -> dict[str, Any]:
    """A decision as plain values."""
    return {
        "pack": decision.pack,
        "scores": [
            {"pack": s.pack, "score": s.score, "threshold": s.threshold, "reason": s.reason}
            for s in decision.scores
        ],
    }


def check_max_tokens(value: int) -> None:
    """Refuse an answer of no length.

    Raises:
        UsageError: it is less than 1.
    """
    if value < 1:
        raise UsageError(f"`--max-tokens` is {value} (expected 1 or more)")


def peak_resident() -> int | None:
    """The most memory this process has held, in bytes; None where the system does not tell."""
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
