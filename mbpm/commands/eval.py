"""`mbpm eval`: what a pack does, measured beside the base."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mbpm import answering
from mbpm.state import State
from specs.errors import NotFoundError, UsageError

if TYPE_CHECKING:
    from specs.evals import Evals
    from specs.generation import InstalledBase
    from specs.manifest import Manifest
    from specs.pack_toml import Gates
    from trainer.assess import Options
    from trainer.data.example import Example


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
    device: answering.Device = "auto",
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

    installed = answering.installed_base(state.home, state.home.current(), name)
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
    from trainer.assess import assess_pack

    out, home = state.out, state.home
    with _subject(state, name) as subject:
        if save and subject.folder is None:
            raise UsageError(
                f"`{name}` is no pack folder, and what is published or installed never changes",
                hint="`--save` goes with the folder the pack was made in",
            )
        base = _base_of(state, subject.manifest)
        rows = _rows(state, subject, data, recipe)
        with Parts(out) as parts:
            evals = assess_pack(
                home.base_dir(base), subject.place, rows, home.pack_dirs(), options, parts
            )
        failed = failed_gates(evals, subject.gates)
        print_evals(out, evals)
        verdict(out, failed)
        if subject.folder is not None and save:
            _save(subject.folder, evals)
            out.note(f"kept in {subject.folder}")
    if picture is not None:
        from trainer.picture import draw

        picture.write_text(draw(evals, f"{subject.manifest.name} {subject.manifest.version}"))
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


@dataclass(frozen=True)
class _Subject:
    """A pack to be measured."""

    manifest: Manifest
    place: Path
    """A folder with its manifest and all its files."""
    folder: Path | None
    """The author's folder, where it comes from one."""
    gates: Gates


@contextlib.contextmanager
def _subject(state: State, name: str) -> Iterator[_Subject]:
    """The pack called `name`, or the one in the folder or archive of that path."""
    from specs.pack_toml import Gates, read_pack_toml

    installed = state.home.current().pack(name)
    if installed is not None:
        place = state.home.pack_dir(installed)
        yield _Subject(state.home.store.manifest(installed.manifest), place, None, Gates())
        return
    path = Path(name).expanduser()
    if not path.exists():
        raise NotFoundError(
            f"`{name}` is neither an installed pack nor a folder or archive",
            hint=f"`mbpm install {name}` installs it; `mbpm list` shows what is installed",
        )
    with tempfile.TemporaryDirectory(prefix="mbpm-eval-") as scratch:
        place = Path(scratch)
        if path.is_dir():
            manifest = _lay_out(path, place)
            yield _Subject(manifest, place, path, read_pack_toml(path).gates)
        else:
            from registry_index.archive import read_archive
            from specs.manifest import MANIFEST_FILE

            archive = read_archive(path)
            archive.extract(place)
            (place / MANIFEST_FILE).write_bytes(archive.manifest.canonical())
            yield _Subject(archive.manifest, place, None, Gates())


def _lay_out(folder: Path, place: Path) -> Manifest:
    """Bring the files of an author's folder, with a manifest, to another place."""
    import shutil

    from registry_index.packing import build_manifest
    from specs.manifest import MANIFEST_FILE

    manifest, files = build_manifest(folder)
    for file, source in files.items():
        shutil.copyfile(source, place / file)
    (place / MANIFEST_FILE).write_bytes(manifest.canonical())
    return manifest


def _base_of(state: State, manifest: Manifest) -> InstalledBase:
    """The installed base a pack was made for.

    Raises:
        NotFoundError: it is not installed, or another one has its name.
    """
    bases = state.home.current().bases
    wanted = manifest.base
    found = next((b for b in bases if b.fingerprint == wanted.fingerprint), None)
    if found is not None:
        return found
    same = next((b for b in bases if b.name == wanted.name), None)
    if same is not None:
        raise NotFoundError(
            f"{manifest.name} was made for the base {wanted.name} ({wanted.fingerprint[:12]}), and "
            f"the one installed under that name is another ({same.fingerprint[:12]})"
        )
    raise NotFoundError(
        f"{manifest.name} was made for the base {wanted.name}, which is not installed",
        hint=f"`mbpm base install {wanted.name}` installs it",
    )


def _rows(
    state: State, subject: _Subject, data: list[str] | None, recipe: str | None
) -> Sequence[Example]:
    """What to measure on; rows that training asked too are left out where that is known."""
    from trainer.held_out import read_held_out, without_asked

    kept = read_held_out(subject.folder) if subject.folder is not None else None
    if data or recipe is not None:
        rows = _given(state, data, recipe)
        left = without_asked(rows, kept.asked if kept is not None else None)
        if len(left) < len(rows):
            state.out.warn(
                f"{len(rows) - len(left)} of {len(rows)} rows left out: training asked the same"
            )
        return left
    if kept is not None:
        return kept.examples
    if subject.manifest.recipe is not None:
        return _given(state, None, _recipe_of(state, subject.manifest))
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
