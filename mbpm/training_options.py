"""Options of `mbpm train` that decide how an adapter is trained."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from specs.errors import UsageError

Schedule = Annotated[
    str | None,
    typer.Option(
        metavar="linear|cosine|constant",
        help="The learning rate after its warm-up [default: linear]",
    ),
]
Warmup = Annotated[
    float | None, typer.Option(help="Share of the steps in which it rises [default: 0.05]")
]
RsLora = Annotated[
    bool | None,
    typer.Option("--rslora", help="Scale by alpha / sqrt(rank), not alpha / rank"),
]
LoraPlus = Annotated[
    float | None,
    typer.Option("--lora-plus", metavar="N", help="B learns N times as fast as A [default: 1]"),
]
Init = Annotated[
    str | None,
    typer.Option(metavar="kaiming|gaussian|orthogonal", help="How A begins [default: kaiming]"),
]
Target = Annotated[
    list[str] | None,
    typer.Option(metavar="PROJECTION", help="Adapt this one only; may be repeated [default: all]"),
]
WeightDecay = Annotated[float | None, typer.Option(help="[default: 0]")]
Patience = Annotated[
    int | None,
    typer.Option(metavar="N", help="Stop after N looks at held-out rows with nothing better"),
]
Looks = Annotated[
    int | None, typer.Option(metavar="N", help="Looks at held-out rows in an epoch [default: 1]")
]
ObjectiveOption = Annotated[
    str | None,
    typer.Option(
        "--objective",
        metavar="auto|answers|preference",
        help="Learn answers, or to prefer the better of two [default: by the data]",
    ),
]
Beta = Annotated[
    float | None, typer.Option(help="With pairs: how dear leaving the base is [default: 0.1]")
]
Memory = Annotated[
    str | None,
    typer.Option(metavar="SIZE", help="Memory the process may take, such as 4GB [default: free]"),
]
Threads = Annotated[
    int | None, typer.Option(min=1, metavar="N", help="Cores to train on [default: all]")
]
TensorBoard = Annotated[
    Path | None,
    typer.Option("--tensorboard", metavar="FOLDER", help="Write TensorBoard event files too"),
]
Auto = Annotated[
    bool, typer.Option("--auto", help="Find learning rate and rank in short runs first")
]

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(i?)B?", re.IGNORECASE)


def parse_memory(text: str) -> int:
    """Bytes of `4GB`, `512MB` or `2GiB`.

    Raises:
        UsageError: it is something else, or too little for anything.
    """
    found = _SIZE.fullmatch(text.strip())
    if found is None:
        raise UsageError(f"`--memory {text}`: expected a size such as `4GB`, `800MB` or `2GiB`")
    power = " KMGT".index(found[2].upper() or " ")
    size = int(float(found[1]) * (1024 if found[3] else 1000) ** power)
    if size < 1_000_000:
        raise UsageError(f"`--memory {text}` is less than a megabyte", hint="did you mean GB?")
    return size
