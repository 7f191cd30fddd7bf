"""`mbpm eval`: what a pack does, measured beside the base."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mbpm import answer_options
from mbpm.pack_place import PackPlace, base_of, opened
from mbpm.place import installed_base
from mbpm.state import State
from specs.errors import NotFoundError, UsageError

if TYPE_CHECKING:
    from specs.evals import Evals
    from specs.manifest import Manifest
    from trainer.assess import Options
    from trainer.data.example import Example

UNCHECKED = "Nobody checked that training had not seen these rows."


def command(
    ctx: typer.Context,
    pack: Annotated[
        str | None,
        typer.Argument(
            metavar="PACK", help="An installed pack, a pack folder or a `.mbpack` archive"
        ),
    ] = None,
    base: Annotated[
        bool, typer.Option("--base", help="Evaluate a base alone; PACK is then its name")
    ] = False,
    data: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SOURCE", help="Rows to measure on, in the forms that `mbpm train` reads"
        ),
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(metavar="NAME|FILE", help="Measure on the rows that this recipe holds out"),
    ] = None,
    task: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME|FILE.yaml",
            help="Run a task of lm-evaluation-harness besides (needs `mbpm[lm-eval]`)",
        ),
    ] = None,
    limit: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Measure on so many rows at most")
    ] = None,
    max_length: Annotated[
        int | None, typer.Option(metavar="N", min=16, help="Tokens per row [default: 512]")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of samples and intervals")] = 0,
    device: answer_options.Device = "auto",
    unsandboxed: Annotated[
        bool,
        typer.Option(
            "--unsandboxed", help="Run the code of answers even where it cannot be shut in"
        ),
    ] = False,
    save: Annotated[
        bool,
        typer.Option("--save", help="Keep the result in the pack folder: evals.json and README.md"),
    ] = False,
    picture: Annotated[
        Path | None, typer.Option(metavar="FILE.svg", help="Draw the gains and their intervals")
    ] = None,
) -> None:
    """Measure a pack beside its base: its gain, its routing, and what it changes elsewhere.

    The rows are those that `mbpm train` held out, where PACK is a folder it made; those of the
    recipe, where a recipe made it; or `--data`. Every number stands beside the base's on the same
    rows, with a 95 % interval. The last lines say whether `mbpm publish` would take the pack.

    $ mbpm eval ./legal-pack --save
    $ mbpm eval medical --limit 200
    $ mbpm eval legal --data questions.jsonl --json
    $ mbpm eval --base smollm2-135m --data questions.jsonl
    """
    from trainer.assess import MAX_LENGTH, Options

    state: State = ctx.obj
    if data and recipe is not None:
        raise UsageError("`--data` and `--recipe` both say what to measure on; give one of them")
    if picture is not None and not picture.parent.is_dir():
        raise NotFoundError(f"{picture.parent}: no such folder, and `--picture` writes there")
    if task:
        from trainer.harness import check_installed

        check_installed()
    options = Options(device, seed, limit, max_length or MAX_LENGTH, unsandboxed, tuple(task or ()))
    if base:
        if save or picture:
            raise UsageError("`--save` and `--picture` are for packs, and `--base` measures none")
        _base(state, pack, data, recipe, options)
        return
    if pack is None:
        raise UsageError(
            "say what to evaluate: a pack, or a base with `--base`", hint="`mbpm eval medical`"
        )
    _pack(state, pack, data, recipe, options, save=save, picture=picture)


def _base(
    state: State, name: str | None, data: list[str] | None, recipe: str | None, options: Options
) -> None:
    from mbpm.measured import print_alone
    from mbpm.parts import Parts
    from trainer.assess import assess_base

    installed = installed_base(state.home, state.home.current(), name)
    rows: Sequence[Example] = ()
    if data or recipe is not None:
        rows = _given(state, data, recipe)
    with Parts(state.out) as parts:
        found, notes, runtime = assess_base(state.home.base_dir(installed), rows, options, parts)
    print_alone(state.out, found)
    for note in notes:
        state.out.note(note)
    state.out.result(
        {
            "base": {"name": installed.name, "fingerprint": installed.fingerprint},
            "runtime": runtime,
            "seed": options.seed,
            "metrics": [asdict(m) for m in found],
            "notes": list(notes),
        }
    )


def _pack(
    state: State,
    name: str,
    data: list[str] | None,
    recipe: str | None,
    options: Options,
    *,
    save: bool,
    picture: Path | None,
) -> None:
    from mbpm.measured import print_evals, verdict
    from mbpm.parts import Parts
    from registry_index.gates import failed_gates
    from specs.evals import Evals
    from specs.manifest import EVALS_FILE
    from trainer.assess import assess_pack

    out, home = state.out, state.home
    with opened(state, name, measuring=True) as subject:
        if save and subject.folder is None:
            raise UsageError(
                f"`{name}` is no pack folder, and what is published or installed never changes",
                hint="`--save` goes with the folder the pack was made in",
            )
        base = base_of(state, subject.manifest)
        rows, notes = _rows(state, subject, data, recipe)
        with Parts(out) as parts:
            evals = assess_pack(
                home.base_dir(base), subject.place, rows, home.pack_dirs(), options, parts, notes
            )
        failed = failed_gates(evals, subject.gates)
        print_evals(out, evals)
        verdict(out, failed)
        if subject.folder is not None and save:
            _save(subject.folder, evals)
            out.note(f"kept in {subject.folder}")
        elif subject.folder is not None and Evals.read(subject.folder / EVALS_FILE) != evals:
            out.hint(
                "`--save` keeps this in the folder; `mbpm publish` looks at what is kept there"
            )
    if picture is not None:
        from trainer.picture import draw

        drawn = draw(evals, f"{subject.manifest.name} {subject.manifest.version}")
        picture.write_text(drawn, "utf-8")
        out.note(f"drawn in {picture}")
    out.result(
        {
            "pack": {"name": subject.manifest.name, "version": subject.manifest.version},
            "digest": subject.manifest.digest(),
            "evals": evals.model_dump(mode="json"),
            "gates": {"passed": not failed, "failed": failed},
            "saved": save,
        }
    )


def _rows(
    state: State, subject: PackPlace, data: list[str] | None, recipe: str | None
) -> tuple[Sequence[Example], tuple[str, ...]]:
    """What to measure on, and notes on it; rows that training asked too are left out where that is
    known."""
    from trainer.held_out import read_held_out, without_asked

    kept = read_held_out(subject.folder) if subject.folder is not None else None
    if data or recipe is not None:
        rows = _given(state, data, recipe)
        left = without_asked(rows, kept.asked if kept is not None else None)
        if len(left) < len(rows):
            state.out.warn(
                f"{len(rows) - len(left)} of {len(rows)} rows left out: training asked the same"
            )
        return left, () if kept is not None and kept.asked is not None else (UNCHECKED,)
    if kept is not None:
        return kept.examples, kept.notes
    if subject.manifest.recipe is not None:
        return _given(state, None, _recipe_of(state, subject.manifest)), ()
    raise UsageError(
        f"there are no held-out rows of {subject.manifest.name} here",
        hint="`--data FILE` names rows to measure on",
    )


def _recipe_of(state: State, manifest: Manifest) -> str:
    """The name of the recipe a pack was made by, or of a newer version of it."""
    from trainer.recipe import load_recipe, recipe_names

    for name in recipe_names():
        if load_recipe(name).digest() == manifest.recipe:
            return name
    if manifest.name in recipe_names():
        state.out.warn(
            f"{manifest.name} was made by another version of the recipe `{manifest.name}`; what "
            "that held out may differ"
        )
        return manifest.name
    raise UsageError(
        f"the recipe {manifest.name} was made by is not known here",
        hint="`--recipe FILE` names it, `--data FILE` other rows to measure on",
    )


def _given(state: State, data: list[str] | None, recipe: str | None) -> Sequence[Example]:
    if data:
        from mbpm.training_data import opened
        from trainer.data.reading import read_files

        with opened(state, data) as found:
            return read_files(found.files)
    from mbpm.recipes import fetch_data
    from trainer.recipe import load_recipe, recipe_folder

    assert recipe is not None
    return fetch_data(state, load_recipe(recipe), recipe_folder(recipe)).held_out


def _save(folder: Path, evals: Evals) -> None:
    """Put evals into a pack folder, and into the card for people."""
    from specs.pack_toml import read_pack_toml
    from trainer.pack_folder import write_evals

    write_evals(folder, read_pack_toml(folder), evals)
