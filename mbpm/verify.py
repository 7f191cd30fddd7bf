"""Checking what is installed: bytes, manifests, the attach proof, and on request its behaviour."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mbpm.home import Home
from mbpm.inventory import wrong_chunk
from specs.base_card import CARD_FILE, WEIGHTS_FILE, BaseCard
from specs.blobs import Blob
from specs.errors import IntegrityError, MbpmError, NotFoundError
from specs.generation import Generation, InstalledBase, InstalledPack
from specs.manifest import MANIFEST_FILE


@dataclass
class Check:
    """What was found out about one pack or base."""

    kind: str
    name: str
    version: str
    """A base has none."""
    problems: list[str] = field(default_factory=list)
    size: int = 0
    """Bytes that were hashed."""
    kept: dict[Path, str] = field(default_factory=dict)
    """The problems of files that are made anew when they are gone."""
    canaries: int | None = None
    """Recorded answers that were replayed; None without `--deep`."""

    @property
    def mend(self) -> str:
        """The command that repairs it."""
        base = "base " if self.kind == "base" else ""
        return f"mbpm {base}install {self.name} --reinstall"


def installed_packs(home: Home, names: Sequence[str]) -> list[InstalledPack]:
    """The installed packs called `names`, or all of them.

    Raises:
        NotFoundError: one is not installed; the hint names one that sounds alike.
    """
    found = {p.name: p for p in home.current().packs}
    return [found[n] for n in _pick(names, found, "pack", "mbpm list")]


def installed_bases(home: Home, names: Sequence[str]) -> list[InstalledBase]:
    """The installed bases called `names`, or all of them; raises as `installed_packs`."""
    found = {b.name: b for b in home.current().bases}
    return [found[n] for n in _pick(names, found, "base", "mbpm base list")]


def _pick(
    names: Sequence[str], found: Mapping[str, object], what: str, command: str
) -> Sequence[str]:
    for name in names:
        if name not in found:
            close = difflib.get_close_matches(name, found, n=1)
            hint = f"did you mean `{close[0]}`?" if close else f"`{command}` shows what there is"
            raise NotFoundError(f"{what} `{name}` is not installed", hint=hint)
    return names or list(found)


def steady(home: Home, look: Callable[[], list[Check]]) -> list[Check]:
    """What `look` finds; looked at again where it met with what others took away meanwhile.

    Raises:
        MbpmError: as `look`.
    """
    while True:
        number = home.current().number
        try:
            checks = look()
        except MbpmError:
            if home.current().number == number:
                raise
            continue
        if home.current().number == number or not any(c.problems for c in checks):
            return checks


def check_pack(home: Home, pack: InstalledPack, generation: Generation) -> Check:
    """Hash every file of an installed pack, in store and folder, and prove that it attaches."""
    from registry_index.contents import check_contents, prove_attach

    check = Check("pack", pack.name, pack.version)
    try:
        manifest = home.store.manifest(pack.manifest)
    except MbpmError as error:
        check.problems.append(error.message)
        return check
    folder = home.store.pack_path(pack.manifest)
    _check_document(folder / MANIFEST_FILE, manifest.canonical(), check)
    _check_blobs(home, folder, manifest.blobs, check)
    base = next((b for b in generation.bases if b.name == pack.base), None)
    if base is None:
        check.problems.append(f"its base {pack.base} is not installed")
        return check
    if not check.problems:
        files = {b.path: folder / b.path for b in manifest.blobs}
        try:
            check_contents(manifest, files)
            prove_attach(manifest, files, home.store.card(base.card))
        except MbpmError as error:
            check.problems.append(error.message)
    return check


def check_base(home: Home, base: InstalledBase) -> Check:
    """Hash every file of an installed base, in the store and in its folder."""
    check = Check("base", base.name, "")
    try:
        card = home.store.card(base.card)
    except MbpmError as error:
        check.problems.append(error.message)
        return check
    folder = home.store.base_path(base.card)
    _check_document(folder / CARD_FILE, card.canonical(), check)
    _check_blobs(home, folder, [f.blob for f in card.files], check)
    _check_kept(folder, card.fingerprint, check)
    return check


def _check_kept(folder: Path, fingerprint: str, check: Check) -> None:
    """What was made of the weights and the tokenizer for a faster start, if it was."""
    sound = not check.problems  # only then there is something to compare with
    for file in sorted(folder.glob("packed*.bin")):
        from runtime.kept_file import verify_kept
        from runtime.kept_text import TEXT_FILE, verify_text

        try:
            check.size += verify_kept(file)
            if sound and file.name == TEXT_FILE:
                verify_text(file, fingerprint)
        except (MbpmError, OSError) as error:
            check.kept[file] = error.message if isinstance(error, MbpmError) else str(error)
    check.problems += check.kept.values()


def _check_document(file: Path, expected: bytes, check: Check) -> None:
    try:
        raw = file.read_bytes()
    except OSError as error:
        check.problems.append(f"{file}: {(error.strerror or str(error)).lower()}")
        return
    if raw != expected:
        check.problems.append(f"{file}: was changed")


def _check_blobs(home: Home, folder: Path, blobs: Iterable[Blob], check: Check) -> None:
    for blob in blobs:
        stored, placed = home.store.blob_path(blob.sha256), folder / blob.path
        # one inode under two names is hashed once
        files = [placed] if _same(stored, placed) else [stored, placed]
        for file in files:
            if problem := wrong_chunk(file, blob):
                check.problems.append(f"{file}: {problem}")
        check.size += blob.size


def _same(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:
        return False


def check_behaviour(home: Home, packs: Sequence[tuple[InstalledPack, Check]]) -> list[Check]:
    """Replay the recorded answers of sound packs on their bases, loading each base once.

    Args:
        home: Where they are.
        packs: Packs with the check they passed; what is found is added to it.

    Returns:
        One more check per base: that its weights have the fingerprint its card states.
    """
    from runtime.canaries import replay
    from runtime.load import load

    generation = home.current()
    checks = []
    for base in generation.bases:
        mine = [(p, c) for p, c in packs if p.base == base.name]
        if not mine:
            continue
        check = check_base(home, base)
        checks.append(check)
        if check.problems:
            continue
        folder = home.base_dir(base)
        try:
            check.problems += _check_fingerprint(folder / WEIGHTS_FILE, home.store.card(base.card))
            loaded = load(folder, [])
        except IntegrityError as error:
            check.problems.append(error.message)
            continue
        for pack, found in mine:
            manifest = home.store.manifest(pack.manifest)
            slot = loaded.engine.load_adapter(home.pack_dir(pack))
            found.problems += replay(loaded.engine, loaded.chat_format, manifest, slot)
            found.canaries = len(manifest.canaries)
            loaded.engine.unload_adapter(slot)
    return checks


def _check_fingerprint(weights: Path, card: BaseCard) -> list[str]:
    from runtime.gguf_file import fingerprint, open_gguf

    found = fingerprint(open_gguf(weights))
    if found == card.fingerprint:
        return []
    return [f"{weights}: has fingerprint {found[:12]}, and its card says {card.fingerprint[:12]}"]
