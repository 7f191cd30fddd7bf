"""The options of `mbpm run` and `mbpm chat`."""

from __future__ import annotations

from typing import Annotated

import typer

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
