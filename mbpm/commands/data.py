"""`mbpm data`: look at training data, split it, fetch what a recipe names."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mbpm.options import Sources
from mbpm.place import installed_base

if TYPE_CHECKING:
    from collections.abc import Callable

    from mbpm.output import Output
    from mbpm.state import State
    from trainer.data.example import Example
    from trainer.data.inspection import Inspection, Lengths, Many

app = typer.Typer(
    add_completion=False,
    help="Look at training data, split it, and fetch what a recipe names.",
)

BAR = 40
SHOWN = 5


@app.command("inspect")
def inspect(
    ctx: typer.Context,
    sources: Sources,
    held_out: Annotated[
        list[str] | None,
        typer.Option(
            "--held-out",
            metavar="SOURCE",
            help="Data that must not be among it; may be repeated",
        ),
    ] = None,
    base: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Whose tokens to count [default: the installed]"),
    ] = None,
    places: Annotated[
        int, typer.Option(min=0, max=20, help="How many places to name of each finding")
    ] = SHOWN,
) -> None:
    """Tell what training data holds, and what is wrong with it.

    Counts, lengths in the base's tokens, rows that repeat others, languages, held-out rows that
    leaked, secrets and personal data, and malformed rows, with the place of each. Nothing leaves
    this machine.

    $ mbpm data inspect chats.jsonl documents/
    $ mbpm data inspect train.jsonl --held-out test.jsonl --json
    """
    from mbpm.training_data import opened
    from specs.errors import UsageError
    from trainer.data.inspection import inspect as look
    from trainer.data.reading import read_placed

    state: State = ctx.obj
    unit, lengths = _lengths(state, base)
    bad: list[UsageError] = []
    with opened(state, sources) as data, opened(state, held_out or []) as held:
        files = len(data.files)
        rows = list(read_placed(data.files, bad=bad.append))
        if not rows and bad:
            raise bad[0]
        report = look(rows, read_placed(held.files) if held_out else None, lengths, unit)
    _show(state.out, report, files, places)
    document = {"files": files, "malformed": [b.message for b in bad], **report.document()}
    if not bad:
        state.out.result(document)
        return
    state.out.line(f"malformed rows: {len(bad):,}")
    for error in bad[:places]:
        state.out.line(f"  {error.message}")
    raise UsageError(
        f"{len(bad):,} row{'s' if len(bad) > 1 else ''} cannot be read, the first: "
        f"{bad[0].message}",
        hint=bad[0].hint,
        details=document,
    )


def _lengths(state: State, name: str | None) -> tuple[str, Callable[[Example], tuple[int, int]]]:
    """What lengths count, and the lengths of an example's prompt and answer."""
    from specs.errors import NotFoundError

    try:
        installed = installed_base(state.home, state.home.current(), name or None)
    except NotFoundError:
        if name:
            raise
        state.out.note("no base is installed: words are counted instead of tokens")
        return "words", lambda e: (
            sum(len(m.content.split()) for m in e.messages[:-1]),
            len(e.answer.split()),
        )
    from runtime.chat_format import ChatFormat
    from runtime.tokenizer import Tokenizer
    from specs.base_card import WEIGHTS_FILE

    weights = state.home.base_dir(installed) / WEIGHTS_FILE
    chat = ChatFormat.from_gguf(weights, Tokenizer.from_gguf(weights))

    def lengths(example: Example) -> tuple[int, int]:
        made = chat.example(example.chat())
        return made.answer_start, len(made.tokens) - made.answer_start

    return f"tokens of {installed.name}", lengths


def _show(out: Output, report: Inspection, files: int, places: int) -> None:
    out.line(
        f"{_counted(report.examples, 'example')} in {_counted(report.groups, 'group')}, from "
        f"{_counted(files, 'file')}"
    )
    for count, words in (
        (report.conversations, "follow earlier turns of a chat"),
        (report.preferences, "are preference pairs"),
        (report.with_choices, "have choices"),
    ):
        if count:
            out.line(f"  {count:,} {words}")
    if report.kinds:
        out.line("kinds      " + _listed(report.kinds, report.examples))
    out.line("languages  " + _listed(report.languages, report.examples))
    out.line()
    out.table(
        [report.unit, "least", "median", "95 %", "most", "all"],
        [
            _lengths_row("prompt", report.prompts),
            _lengths_row("answer", report.answers),
            _lengths_row("both", report.whole),
        ],
    )
    out.line()
    most = max(count for _, _, count in report.histogram)
    width = len(f"{report.histogram[-1][1]:,}")
    for start, end, count in report.histogram:
        bar = _bar(count / most)
        last = f" to {end - 1:>{width},}" if end - 1 > start else ""
        out.line(f"{start:>{width},}{last}  {bar:<{BAR}}  {count:,}".rstrip())
    out.line()
    _repeats(out, "exact repeats", report.exact, "repeats", places)
    _repeats(out, "near repeats", report.near, "is nearly", places)
    _repeats(out, "asked before, answered otherwise", report.answered_otherwise, "asks as", places)
    if report.leaks is not None:
        _repeats(out, "held-out rows that leaked", report.leaks, "is in", places)
    for title, found in (("secrets", report.secrets), ("personal data", report.personal)):
        out.line(f"{title}: {found.count:,}")
        for item in found.first[:places]:
            out.line(f"  {item.where}: {item.kind} `{item.shown}`")
    for text in report.warnings:
        out.warn(text)


def _counted(count: int, word: str) -> str:
    return f"{count:,} {word}{'s' if count != 1 else ''}"


def _bar(share: float) -> str:
    import sys

    filled = round(share * BAR) or int(share > 0)
    try:
        "█".encode(getattr(sys.stdout, "encoding", None) or "ascii")
    except (UnicodeEncodeError, LookupError):
        return "#" * filled
    return "█" * filled


def _listed(counts: dict[str, int], total: int) -> str:
    parts = [f"{name} {count / total:.0%}" for name, count in list(counts.items())[:8]]
    return ", ".join(parts) + (", …" if len(counts) > 8 else "")


def _lengths_row(name: str, found: Lengths) -> list[str]:
    numbers = (found.least, found.median, found.p95, found.most, found.total)
    return [name, *(f"{n:,}" for n in numbers)]


def _repeats(out: Output, title: str, found: Many, verb: str, places: int) -> None:
    out.line(f"{title}: {found.count:,}")
    for repeat in found.first[:places]:
        out.line(f"  {repeat.where} {verb} {repeat.first}")


@app.command("split")
def split(
    ctx: typer.Context,
    sources: Sources,
    output: Annotated[
        Path,
        typer.Option(
            "--output", "-o", metavar="FOLDER", help="Where train.jsonl and held-out.jsonl go"
        ),
    ] = Path(),
    held_out: Annotated[
        float, typer.Option(min=0.01, max=0.5, help="Share of the groups that is held out")
    ] = 0.1,
    by: Annotated[
        str, typer.Option(metavar="FIELD", help="The field of a row that names its group")
    ] = "group",
    seed: Annotated[int, typer.Option(help="Another seed holds out other groups")] = 0,
    force: Annotated[bool, typer.Option("--force", help="Replace files that are there")] = False,
) -> None:
    """Split data into training and held-out files, so that nothing is asked in both.

    Rows of one group (a question, a document, a case) stay on one side. Held-out rows that training
    asks too, or nearly repeats, are left out. The same data and seed give the same files.

    $ mbpm data split chats.jsonl --output data
    $ mbpm data split rulings.csv --by case --held-out 0.2 --seed 7 -o data
    """
    from mbpm.training_data import opened
    from specs.errors import UsageError
    from trainer.data.reading import read_files
    from trainer.data.split import split_by_group, without_near_repeats
    from trainer.data.writing import write_examples

    state: State = ctx.obj
    targets = (output / "train.jsonl", output / "held-out.jsonl")
    there = next((str(t) for t in targets if t.exists()), None)
    if there is not None and not force:
        raise UsageError(f"{there}: is there already", hint="`--force` replaces it")
    with opened(state, sources) as data:
        examples = read_files(data.files, group_by=by)
    found = without_near_repeats(split_by_group(examples, fraction=held_out, seed=seed))
    output.mkdir(parents=True, exist_ok=True)
    rows = [
        write_examples(target, part)
        for target, part in zip(targets, (found.train, found.held_out), strict=True)
    ]
    sizes = [len({e.group for e in part}) for part in (found.train, found.held_out)]
    for target, count, groups in zip(targets, rows, sizes, strict=True):
        state.out.line(f"{target}: {count:,} rows in {groups:,} groups")
    if found.dropped:
        state.out.note(
            f"{found.dropped:,} held-out examples left out: training asks the same, or nearly so"
        )
    state.out.result(
        {
            "train": {"file": str(targets[0]), "rows": rows[0], "groups": sizes[0]},
            "held_out": {"file": str(targets[1]), "rows": rows[1], "groups": sizes[1]},
            "dropped": found.dropped,
            "seed": seed,
        }
    )


@app.command("fetch")
def fetch(
    ctx: typer.Context,
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="Its name, or its file")],
) -> None:
    """Fetch and check the data a recipe names, so that training needs no network.

    What was fetched is not fetched again, a download that was cut goes on, and every byte is
    checked against the recipe's digests. `mbpm gc` frees it again.

    $ mbpm data fetch medical
    $ mbpm train --recipe medical --offline
    """
    from mbpm.output import size
    from mbpm.recipes import fetch_data, fetch_sources
    from trainer.recipe import RecipeSource, load_recipe, recipe_folder

    state: State = ctx.obj
    made_from = load_recipe(recipe)
    folder = recipe_folder(recipe)
    fetch_sources(state, made_from, folder)
    for record, source in zip(made_from.records, made_from.sources, strict=True):
        licence = f"{record.version}, {record.license}".removeprefix(", ")
        size_of = size(source.size) if isinstance(source, RecipeSource) else "made here"
        state.out.line(f"{record.name} ({licence}): {size_of}")
    found = fetch_data(state, made_from, folder)
    state.out.line(f"{len(found.train):,} examples to train on, {len(found.held_out):,} held out")
    state.out.result(
        {
            "recipe": made_from.name,
            "digest": made_from.digest(),
            "sources": [r.model_dump(mode="json") for r in made_from.records],
            "train": len(found.train),
            "held_out": len(found.held_out),
        }
    )
