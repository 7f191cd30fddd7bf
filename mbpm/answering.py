"""What `mbpm run` and `mbpm chat` share: their options, loading, and words about an answer."""

from __future__ import annotations

import secrets
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mbpm.output import size
from specs.errors import NotFoundError, UsageError

if TYPE_CHECKING:
    from mbpm.home import Home
    from mbpm.state import State
    from runtime.load import Loaded
    from runtime.router import Decision
    from runtime.sampling import Sampling
    from runtime.session import Done
    from specs.generation import Generation, InstalledBase

MAX_TOKENS = 256
"""How long an answer may get by default: small models say little that is good after that."""

_ANSWER, _CHOOSE = "Answer", "Base and packs"

Pack = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help="`auto`: the router decides; `none`: the base alone; or a pack's name",
        rich_help_panel=_CHOOSE,
    ),
]
Base = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="An installed base", rich_help_panel=_CHOOSE),
]
Device = Annotated[str, typer.Option(help="`auto`, `cpu` or `cuda`", rich_help_panel=_CHOOSE)]
Engine = Annotated[
    str,
    typer.Option(
        help="`auto`, `native` (the processor, no torch) or `torch`", rich_help_panel=_CHOOSE
    ),
]
Precision = Annotated[
    str,
    typer.Option(
        help="`packed`: as the base's file has it; `int4`: rounded to 4 bits, which is faster and "
        "a little worse, and takes minutes the first time",
        rich_help_panel=_CHOOSE,
    ),
]
System = Annotated[
    str | None,
    typer.Option(
        metavar="TEXT", help="Say this first, instead of the base's own", rich_help_panel=_CHOOSE
    ),
]
Context = Annotated[
    int | None,
    typer.Option(
        metavar="TOKENS",
        help="Room for question and answer together  [default: 4096, or what the base reads]",
        rich_help_panel=_CHOOSE,
    ),
]
Explain = Annotated[
    bool,
    typer.Option("--explain", help="Say which packs took part, and why", rich_help_panel=_ANSWER),
]
MaxTokens = Annotated[
    int, typer.Option(metavar="N", help="Stop after so many tokens", rich_help_panel=_ANSWER)
]
Temperature = Annotated[
    float | None,
    typer.Option(
        help="Freedom of choice; 0 always takes the likeliest token  [default: 0.2]",
        rich_help_panel=_ANSWER,
    ),
]
TopK = Annotated[
    int | None,
    typer.Option(
        help="Choose among the k likeliest tokens; 0: all  [default: 40]", rich_help_panel=_ANSWER
    ),
]
TopP = Annotated[
    float | None,
    typer.Option(
        help="Choose among the likeliest that share this probability  [default: 0.95]",
        rich_help_panel=_ANSWER,
    ),
]
MinP = Annotated[
    float | None,
    typer.Option(
        help="Leave out what is less likely than this share of the best  [default: 0.05]",
        rich_help_panel=_ANSWER,
    ),
]
RepetitionPenalty = Annotated[
    float | None,
    typer.Option(
        help="Make words of the answer less likely to come again; 1: off  [default: 1.1]",
        rich_help_panel=_ANSWER,
    ),
]
Seed = Annotated[
    int | None,
    typer.Option(
        help="The same seed and question give the same answer  [default: a new one]",
        rich_help_panel=_ANSWER,
    ),
]


def sampling(**given: float | int | None) -> Sampling:
    """The options that were given, over the defaults; a seed is drawn where none was given.

    Raises:
        UsageError: naming the option that is out of range.
    """
    from runtime.sampling import Sampling

    chosen: dict[str, Any] = {k: v for k, v in given.items() if v is not None}
    return Sampling(**{"seed": secrets.randbelow(1 << 32), **chosen})


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
    home, generation = state.home, state.home.current()
    installed = installed_base(home, generation, base)
    if pack not in ("auto", "none") and generation.pack(pack) is None:
        raise NotFoundError(
            f"the pack `{pack}` is not installed", hint=f"`mbpm install {pack}` installs it"
        )
    from mbpm.triggers import router_table
    from runtime.load import load as load_runtime

    loaded = load_runtime(
        home.base_dir(installed), home.pack_dirs(), device=device, engine=engine,
        precision=precision, context=context,
        router_table=router_table(home, generation, installed), say=state.out.note,
    )  # fmt: skip
    if pack in loaded.other_base:
        raise NotFoundError(
            f"the pack `{pack}` was made for another base than {installed.name}",
            hint="`mbpm list` shows the base of every pack; `--base NAME` chooses one",
        )
    return loaded


def installed_base(home: Home, generation: Generation, name: str | None) -> InstalledBase:
    """The base to use.

    Args:
        home: Where to look.
        generation: What is installed in it.
        name: The one that was asked for; None for the default.

    Raises:
        NotFoundError: it is not installed, or none is.
    """
    if name is None:
        return home.default_base()
    if (found := generation.base(name)) is None:
        raise NotFoundError(
            f"the base `{name}` is not installed", hint=f"`mbpm base install {name}` installs it"
        )
    return found


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
