"""`mbpm which`: which pack would answer a question, and what packs know of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from mbpm import answer_options, answering
from mbpm.asking import question_text
from mbpm.place import installed_base
from mbpm.state import State
from specs.errors import IntegrityError, NotFoundError, UsageError

if TYPE_CHECKING:
    from mbpm.home import Home
    from mbpm.output import Output
    from runtime.knowledge import Found
    from specs.generation import Generation

PASSAGES = 3
"""Passages that are shown."""
SHOWN_LETTERS = 160
"""How much of each, for people."""


def command(
    ctx: typer.Context,
    question: Annotated[str, typer.Argument(help="The question; `-` reads it from standard input")],
    base: answer_options.Base = None,
    device: answer_options.Device = "auto",
    engine: answer_options.Engine = "auto",
) -> None:
    """Tell which pack would answer a question, and why.

    Loads only as much of the base as the router looks at, and no adapter. Where installed packs
    carry passages, those that have most to do with the question are shown with their pack.

    $ mbpm which "What does 'bradycardia' mean?"
    $ echo "My lease ends in May" | mbpm which -
    """
    state: State = ctx.obj
    out, home = state.out, state.home
    text = question_text(None) if question == "-" else question.strip()
    if not text:
        raise UsageError("the question is empty", hint='`mbpm which "question"`')
    generation = home.current()
    installed = installed_base(home, generation, base)
    if not any(p.base == installed.name for p in generation.packs):
        raise NotFoundError(
            f"no packs are installed for base {installed.name}, so it answers everything itself",
            hint="`mbpm search` lists the packs there are",
        )
    from mbpm.triggers import rivals, router_table
    from runtime.load import decide

    decision = decide(
        home.base_dir(installed), home.pack_dirs(), text, device=device, engine=engine,
        router_table=router_table(home, generation, installed), say=out.note,
    )  # fmt: skip
    if decision is None:
        raise NotFoundError(
            f"base {installed.name} has no routing data, so nothing decides between its packs",
            hint="`mbpm run --pack NAME` asks a pack of your choice",
        )
    found = _passages(home, generation, text, out)
    alike = [p for p in rivals(home, generation, installed) if decision.pack in (p.one, p.other)]
    out.result(
        {
            "question": text,
            "base": {"name": installed.name, "fingerprint": installed.fingerprint},
            **answering.routing_document(decision),
            "alike": [
                {
                    "pack": pair.other if decision.pack == pair.one else pair.one,
                    "similarity": pair.similarity,
                }
                for pair in alike
            ],
            "passages": [
                {"pack": f.pack, "title": f.title, "text": f.text, "score": f.score} for f in found
            ],
        }
    )
    if out.mode == "quiet":
        out.stream(f"{decision.pack or 'none'}\n")
    out.line(f"{decision.pack or 'the base alone'} would answer")
    for score in decision.scores:
        out.line(f"  {score.pack}: {score.reason}")
    for pair in alike:
        other = pair.other if decision.pack == pair.one else pair.one
        out.line(f"  {other} answers alike (similarity {pair.similarity:.2f})")
    if found:
        out.line("passages")
    for passage in found:
        words = " ".join(passage.text.split())
        more = "…" if len(words) > SHOWN_LETTERS else ""
        title = " ".join(passage.title.split())
        out.line(f"  {passage.pack}: {title + ': ' if title else ''}{words[:SHOWN_LETTERS]}{more}")


def _passages(home: Home, generation: Generation, question: str, out: Output) -> list[Found]:
    """What the installed packs' passages say; none where they could not be indexed."""
    from mbpm.triggers import knowledge_index
    from runtime.knowledge import search

    index = knowledge_index(home, generation)
    if index is None:
        return []
    try:
        return search(index, question, PASSAGES)
    except FileNotFoundError:
        out.warn("the passages of packs are not indexed; the next change makes their index")
    except IntegrityError as error:
        out.warn(f"{error.message}; delete it, and the next change makes it anew")
    return []
