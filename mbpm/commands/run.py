"""`mbpm run`: one question, one answer."""

from __future__ import annotations

from typing import Annotated

import typer

from mbpm import answer_options, answering
from mbpm.asking import ask


def command(
    ctx: typer.Context,
    question: Annotated[
        str | None, typer.Argument(help="What to ask; standard input is read too")
    ] = None,
    pack: answer_options.Pack = "auto",
    base: answer_options.Base = None,
    device: answer_options.Device = "auto",
    engine: answer_options.Engine = "auto",
    precision: answer_options.Precision = "packed",
    context: answer_options.Context = None,
    system: answer_options.System = None,
    explain: answer_options.Explain = False,
    max_tokens: answer_options.MaxTokens = answering.MAX_TOKENS,
    temperature: answer_options.Temperature = None,
    top_k: answer_options.TopK = None,
    top_p: answer_options.TopP = None,
    min_p: answer_options.MinP = None,
    repetition_penalty: answer_options.RepetitionPenalty = None,
    seed: answer_options.Seed = None,
) -> None:
    """Answer one question with the base and the packs that fit it.

    Standard input is the question where none is given, and is put after the question otherwise:
    `mbpm run "Summarise this:" < letter.txt`. The answer goes to standard output as it is written.

    $ mbpm run "What is the capital of France?"
    $ mbpm run --pack medical --explain "What is a stent?"
    $ cat letter.txt | mbpm run "Summarise this"
    """
    ask(
        ctx.obj, question, pack=pack, base=base, device=device, engine=engine, precision=precision,
        context=context, system=system, explain=explain, max_tokens=max_tokens,
        temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p,
        repetition_penalty=repetition_penalty, seed=seed,
    )  # fmt: skip
