"""`mbpm import`: an adapter from elsewhere as a pack folder."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mbpm.place import installed_base
from mbpm.state import State
from specs.errors import IntegrityError, NotFoundError, UsageError
from specs.manifest import DataSource

if TYPE_CHECKING:
    from mbpm.home import Home
    from specs.generation import InstalledBase
    from trainer.data.example import Example
    from trainer.interchange.importing import Imported
    from trainer.interchange.lora import Lora
    from trainer.pack_folder import PackSpec

UNKNOWN_LICENCE = "LicenseRef-unspecified"
MAX_CARD_BYTES = 1 << 20
_SPDX = {
    name.lower(): name
    for name in (
        "Apache-2.0", "MIT", "BSD-2-Clause", "BSD-3-Clause", "CC0-1.0", "CC-BY-4.0",
        "CC-BY-SA-4.0", "CC-BY-NC-4.0", "CC-BY-NC-SA-4.0", "MPL-2.0", "Unlicense", "ISC",
    )
}  # fmt: skip
"""How the Hub spells licences -> SPDX."""


def command(
    ctx: typer.Context,
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="`hf:OWNER/NAME` or `hf:OWNER/NAME@REVISION` of the Hugging Face Hub, a PEFT "
            "folder, or a GGUF adapter",
        ),
    ],
    base: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Its base [default: the installed one that it fits]"),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Name of the pack [default: after the source]"),
    ] = None,
    version: Annotated[str, typer.Option("--pack-version", help="Version of the pack")] = "0.1.0",
    domain: Annotated[
        str | None, typer.Option(metavar="NAME", help="What it is about [default: its name]")
    ] = None,
    description: Annotated[str | None, typer.Option(help="One line about the pack")] = None,
    licence: Annotated[
        str | None,
        typer.Option("--license", metavar="SPDX", help="Its licence [default: the model card's]"),
    ] = None,
    data: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SOURCE",
            help="Questions it is for, with answers, in the forms that `mbpm train` reads; half "
            "calibrate its routing, half are kept to measure it with",
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="FOLDER", help="Where the pack goes [default: ./NAME-pack]"
        ),
    ] = None,
    device: Annotated[str, typer.Option(metavar="auto|cpu|cuda", help="Where to run")] = "auto",
) -> None:
    """Make a pack folder of a LoRA adapter in PEFT's or llama.cpp's format.

    What a pack cannot say is refused by name: nothing is left out silently. The pack acts on every
    token, unless the adapter says that it acts from the answer on. Without `--data` no question is
    routed to it, because none of its own are known: `mbpm run --pack NAME` asks it.

    $ mbpm import hf:someone/smollm2-135m-recipes-lora
    $ mbpm import ./my-adapter --name recipes --license MIT
    $ mbpm import recipes.gguf --base smollm2-135m --data questions.jsonl
    """
    state: State = ctx.obj
    out = state.out
    found = _find(state, source)
    pack_name = name or _name_of(found.title)
    folder = output or Path(f"{pack_name}-pack")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(
            f"{folder}: is there already", hint="`--output FOLDER` names another place"
        )
    card_text = _card_text(found.card)
    spec = _spec(
        pack_name, version, domain, description or f"Imported from {found.title}",
        licence or _licence(card_text), found,
    )  # fmt: skip
    if base is not None:
        installed_base(state.home, state.home.current(), base)

    from trainer.interchange.importing import import_adapter

    record, lora = _fit(state.home, found.source, base)
    made = import_adapter(
        state.home.base_dir(record),
        lora,
        spec,
        folder,
        examples=_examples(state, data or ()),
        installed=state.home.pack_dirs(),
        device=device,
        say=out.note,
    )
    _show(state, made, folder, record)


@dataclass(frozen=True)
class _Source:
    """Where an adapter is, and what to call it."""

    title: str
    """`OWNER/NAME`, or the name of a folder or file."""
    source: Path
    card: Path | None
    record: str
    version: str = ""


def _find(state: State, text: str) -> _Source:
    from mbpm.hub_adapter import SCHEME, fetch

    if text.startswith(SCHEME):
        got = fetch(state, text)
        return _Source(got.repo, got.source, got.card, f"{SCHEME}{got.repo}", got.commit)
    path = Path(text).expanduser()
    if not path.exists():
        hint = None
        if re.fullmatch(r"[A-Za-z0-9._-]+/[A-Za-z0-9._-]+", text):
            hint = f"`mbpm import hf:{text}` takes it from the Hugging Face Hub"
        raise NotFoundError(f"{path}: no such file or folder", hint=hint)
    title = path.resolve().name if path.is_dir() else path.stem
    card = path / "README.md" if path.is_dir() else path.parent / "README.md"
    return _Source(title, path, card if card.is_file() else None, path.resolve().name)


def _name_of(title: str) -> str:
    """A pack's name after a repository or file."""
    last = title.rsplit("/", 1)[-1].lower()
    made = re.sub(r"[^a-z0-9]+", "-", last).strip("-")[:64].strip("-")
    if not made:
        raise UsageError(f"no name can be made of `{title}`", hint="`--name NAME` gives one")
    return made


def _card_text(file: Path | None) -> str:
    if file is None:
        return ""
    with file.open("rb") as stream:
        return stream.read(MAX_CARD_BYTES).decode("utf-8", "replace")


def _licence(card: str) -> str:
    """The SPDX form of `license:` in a model card's head."""
    head = re.match(r"---\r?\n(.*?)\r?\n---", card, re.DOTALL)
    line = (
        re.search(r"^license:\s*[\"']?([A-Za-z0-9.+-]+)", head[1], re.MULTILINE) if head else None
    )
    if line is None:
        return UNKNOWN_LICENCE
    said = line[1]
    return _SPDX.get(said.lower(), f"LicenseRef-{said}")


def _spec(
    name: str, version: str, domain: str | None, description: str, licence: str, found: _Source
) -> PackSpec:
    import hashlib

    from specs.names import check_name
    from specs.versions import Version
    from trainer.interchange.peft_config import WEIGHTS_FILE
    from trainer.pack_folder import PackSpec

    weights = found.source / WEIGHTS_FILE if found.source.is_dir() else found.source
    digest = None
    if weights.is_file():
        with weights.open("rb") as stream:
            whole = hashlib.sha256()
            while piece := stream.read(1 << 20):
                whole.update(piece)
            digest = whole.hexdigest()
    try:
        return PackSpec(
            name=check_name(name),
            version=Version(version).text,
            domain=check_name(domain or name),
            description=description,
            license=licence,
            sources=(
                DataSource(
                    name=found.record,
                    version=found.version,
                    sha256=digest,
                    license=licence,
                    note="the adapter this pack was imported from",
                ),
            ),
        )
    except ValueError as error:
        raise UsageError(str(error)) from None


def _fit(home: Home, source: Path, base: str | None) -> tuple[InstalledBase, Lora]:
    """The installed base that the adapter fits, and the adapter read for it."""
    from trainer.interchange.importing import read_adapter

    bases = [b for b in home.current().bases if base in (None, b.name)]
    if not bases:
        raise NotFoundError(
            "no base is installed, and an adapter is imported for one",
            hint="`mbpm base install smollm2-135m`",
        )
    fits: list[tuple[InstalledBase, Lora]] = []
    reasons: list[IntegrityError] = []
    for record in bases:
        try:
            fits.append((record, read_adapter(source, home.base_dir(record))))
        except IntegrityError as error:
            reasons.append(error)
    if not fits:
        raise reasons[0]
    if len(fits) > 1:
        proven = [f for f in fits if f[1].fingerprint == f[0].fingerprint]
        named = [f for f in fits if _alike(f[1].declared_base, f[0].name)]
        chosen = proven or named
        if len(chosen) != 1:
            raise UsageError(
                f"{source}: fits {' and '.join(f'`{b.name}`' for b, _ in fits)}",
                hint=f"`--base {fits[0][0].name}` says which it was made for",
            )
        return chosen[0]
    return fits[0]


def _alike(declared: str, name: str) -> bool:
    """Whether a declared model's name, such as `HuggingFaceTB/SmolLM2-135M-Instruct`, goes with a
    base's, such as `smollm2-135m`."""

    def letters(text: str) -> str:
        return re.sub(r"[^a-z0-9]", "", text.rsplit("/", 1)[-1].lower())

    return bool(declared) and letters(name) in letters(declared)


def _examples(state: State, data: Sequence[str]) -> list[Example]:
    from mbpm.training_data import opened
    from trainer.data.reading import read_files

    with opened(state, data) as found:
        return read_files(found.files)


def _show(state: State, made: Imported, folder: Path, base: InstalledBase) -> None:
    from mbpm.interchange import as_json, show

    out, pack = state.out, made.pack
    out.line(f"imported {pack.name} {pack.version} to {folder}")
    adapter = pack.adapter
    out.line(
        f"adapter  rank {adapter.rank}, alpha {adapter.alpha:g}, {adapter.modules} modules of "
        f"{base.name}, acts on {adapter.activation}"
    )
    out.line(f"licence  {pack.license}")
    show(out, made.agreement, made.lost)
    if not made.proven:
        said = (
            f"names `{made.declared_base}` as its base" if made.declared_base else "names no base"
        )
        matching = " (the name fits)" if _alike(made.declared_base, base.name) else ""
        out.warn(
            f"the adapter {said}{matching}; its shapes fit {base.name}, and more cannot be proven"
        )
    if pack.license == UNKNOWN_LICENCE:
        out.warn("no licence is known: `--license SPDX` states it")
    if made.routed:
        out.warn(
            "nothing was measured of what it answers, so `mbpm publish` will refuse it: "
            f"`mbpm eval {folder} --save` measures it"
        )
    else:
        out.warn(
            "nothing was measured of it, so `mbpm publish` will refuse it, and no question is "
            f"routed to it: `mbpm run --pack {pack.name}` asks it, `--data` gives it questions"
        )
    out.result({**_described(made, folder, base), **as_json(made.agreement, made.lost)})
    place = folder if len(folder.parts) > 1 else f"./{folder}"
    out.hint(f"`mbpm install {place}`")


def _described(made: Imported, folder: Path, base: InstalledBase) -> dict[str, Any]:
    pack = made.pack
    return {
        "folder": str(folder),
        "pack": {"name": pack.name, "version": pack.version, "license": pack.license},
        "base": {
            "name": base.name,
            "fingerprint": base.fingerprint,
            "declared": made.declared_base,
            "proven": made.proven,
        },
        "adapter": pack.adapter.model_dump(mode="json"),
    }
