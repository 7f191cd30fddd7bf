"""`mbpm owner`: which pack or base a file belongs to."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mbpm.state import State
from specs.errors import NotFoundError

if TYPE_CHECKING:
    from mbpm.home import Home
    from mbpm.owners import OwnedFile, Owner

_DIGEST = re.compile(r"(?:sha256:)?([0-9a-f]{8,64})")
_LARGE = 64 * 1024 * 1024
Matches = Callable[["Owner", "OwnedFile"], bool]


def command(
    ctx: typer.Context,
    what: Annotated[
        str,
        typer.Argument(
            metavar="PATH|DIGEST", help="A file, or a SHA-256 digest or at least 8 digits of one"
        ),
    ],
) -> None:
    """Tell which packs and bases a file belongs to; as `dpkg -S`.

    A file of the store is known by its place, any other file by its bytes. Packs of other profiles
    and of earlier generations count too. What several of them share is in the store once, and has
    several owners.

    $ mbpm owner ~/Downloads/adapter.safetensors
    $ mbpm owner 3ff84d0a
    """
    from mbpm.owners import owners

    state: State = ctx.obj
    home, out = state.home, state.out
    digest = _DIGEST.fullmatch(what)
    path = Path(what).expanduser()
    if digest is not None and not path.exists():
        words = f"a file with the digest {digest[1]}"
        matches = _by_digest(digest[1])
    else:
        words = f"{path}, or a file with the same bytes"
        matches = _by_path(state, path)
    found = [(o, f) for o in owners(home) for f in o.files if matches(o, f)]
    if not found:
        raise NotFoundError(
            f"no pack or base has {words}", hint="`mbpm files NAME` lists the files of a pack"
        )
    out.result({"owners": [_document(home, o, f) for o, f in found]})
    for owner, file in found:
        out.line(f"{owner.title}: {file.name}{_where(home, owner)}")


def _by_digest(start: str) -> Matches:
    return lambda owner, file: file.sha256.startswith(start)


def _by_path(state: State, path: Path) -> Matches:
    """What a file is, by its place in the store or else by its bytes.

    Raises:
        NotFoundError: it is not there, or is a folder that is no pack's.
    """
    store = state.home.store.root.resolve()
    real = path.resolve()
    parts = real.relative_to(store).parts if real.is_relative_to(store) else ()
    if len(parts) == 4 and parts[0] == "blobs":
        return lambda owner, file: file.sha256 == parts[3]
    if len(parts) in (2, 3) and parts[0] in ("packs", "bases"):
        names = parts[2:]
        return lambda owner, file: (
            owner.document == parts[1] and (not names or file.name == names[0])
        )
    if not real.is_file():
        problem = "is a folder" if real.is_dir() else "no such file"
        raise NotFoundError(f"{path}: {problem}", hint="name a file or a SHA-256 digest")
    digest = _hash(state, real)
    return lambda owner, file: file.sha256 == digest


def _hash(state: State, file: Path) -> str:
    size, whole = file.stat().st_size, hashlib.sha256()
    if size < _LARGE:
        whole.update(file.read_bytes())
        return whole.hexdigest()
    with state.out.progress(f"reading {file.name}", size) as progress, file.open("rb") as stream:
        for piece in iter(lambda: stream.read(1 << 20), b""):
            whole.update(piece)
            progress.advance(len(piece))
    return whole.hexdigest()


def _where(home: Home, owner: Owner) -> str:
    """Where an owner is, unless it is simply installed."""
    profile = "" if owner.profile == home.profile else f"profile {owner.profile}"
    if owner.installed:
        return f" (installed in {profile})" if profile else ""
    return f" (kept for generation {owner.generation}{' of ' + profile if profile else ''})"


def _document(home: Home, owner: Owner, file: OwnedFile) -> dict[str, Any]:
    return {
        "kind": owner.kind,
        "name": owner.name,
        "version": owner.version or None,
        "file": file.name,
        "size": file.size,
        "sha256": file.sha256,
        "profile": owner.profile,
        "generation": owner.generation,
        "installed": owner.installed and owner.profile == home.profile,
    }
