"""`mbpm bundle`, and `mbpm install` of what it makes."""

from __future__ import annotations

import hashlib
import json
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mbpm.catalogue import line_of
from registry_index.bundle import read_bundle, write_bundle
from registry_index.packing import build_manifest
from registry_index.tree import Registry, index_path
from specs.bundle import Bundle, BundledBase, BundledBlob, BundledPack
from tests.support.bundles import changed, entries
from tests.support.cli import Cli
from tests.support.packs import (
    adapter_tensors,
    pack_folder,
    published,
    registry_with_base,
    tiny_base,
)

Publish = Callable[..., None]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Where the bundle goes."""
    return tmp_path / "stick" / "packs.mbundle"


@pytest.fixture
def other(tmp_path: Path) -> Cli:
    """`mbpm` on another machine."""
    return Cli(tmp_path / "other-home")


@pytest.fixture
def no_sockets(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("somebody opened a socket")

    for name in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.fixture
def office(cli: Cli, registry: Path, publish: Publish) -> Cli:
    """A home with `letters` and what it needs."""
    publish("words", files={"LICENSE": b"the same words"})
    publish("tone", files={"LICENSE": b"the same words"})
    publish("letters", requires={"words": "1"}, recommends={"tone": "*"}, notes="News")
    cli.ok("install", "letters", "--registry", registry, "--yes")
    return cli


def rewrite(file: Path, **packs: Any) -> None:
    """Change what a bundle says of its packs: `letters={"registry": "…"}`."""
    raw = file.read_bytes()
    document = json.loads(entries(raw)[0][1])
    for pack in document["packs"]:
        pack |= packs.get(pack["line"]["name"], {})
    file.write_bytes(changed(raw, packs=document["packs"]))


@pytest.mark.usefixtures("no_sockets")
def test_everything_installed_goes_to_a_machine_without_network(
    office: Cli, registry: Path, file: Path, other: Cli, tmp_path: Path
) -> None:
    result = office.ok("bundle", "--output", file)
    assert "pack       letters 1.0.0\n" in result.out
    assert "pack       words 1.0.0 (required)\n" in result.out
    assert "base       tiny\n" in result.out
    assert [f.name for f in file.parent.iterdir()] == ["packs.mbundle"]
    label = str(registry)
    shutil.rmtree(registry)
    shutil.rmtree(tmp_path / "base-files")
    other.ok("--offline", "install", file, "--registry", label, "--yes")
    expected = office.ok("list", "--json").json
    there = other.ok("list", "--json").json
    assert there["packs"] == expected["packs"], "with marks, and the registry they are from"
    assert {p["registry"] for p in there["packs"]} == {label}
    assert [b["name"] for b in there["bases"]] == ["tiny"]
    other.ok("verify")
    assert other.ok("why", "words").out.startswith("words 1.0.0\n`-- letters 1.0.0 requires")


def test_asks_nobody_without_offline_either(
    office: Cli, file: Path, other: Cli, no_sockets: None
) -> None:
    office.ok("bundle", "--output", file)
    other.home.mkdir()
    (other.home / "registries.toml").write_text(
        'format = 1\n[registries.far]\naddress = "http://127.0.0.1:9/packs"\npriority = 900\n'
    )
    other.ok("install", file, "--yes")
    assert sorted(other.installed()) == ["letters", "tone", "words"]


def test_the_same_content_gives_the_same_bytes(office: Cli, file: Path, tmp_path: Path) -> None:
    office.ok("bundle", "--output", file)
    office.ok("bundle", "--output", tmp_path / "again.mbundle")
    assert (tmp_path / "again.mbundle").read_bytes() == file.read_bytes()
    names = [n for n, _ in entries(file.read_bytes())]
    assert names.count(f"blobs/{hashlib.sha256(b'the same words').hexdigest()}") == 1


def test_targets_as_an_empty_machine_would_get_them(
    office: Cli, registry: Path, publish: Publish, file: Path, other: Cli
) -> None:
    """Whatever is installed here, and whatever this machine has."""
    publish("words", "1.5.0")
    publish("big", requires={"__vram": ">=80", "words": "1"})
    result = office.ok("bundle", "big", "--registry", registry, "--output", file, "--json")
    assert [(p["name"], p["version"], p["auto"]) for p in result.json["packs"]] == [
        ("big", "1.0.0", False),
        ("words", "1.5.0", True),
    ]
    refused = other("install", file, "--yes")
    assert refused.code == 4
    assert "needs `__vram >=80`" in refused.err
    other.environ["MBPM_OVERRIDE_VRAM"] = "80"
    other.ok("install", file, "--yes")
    assert other.installed() == {"big": "1.0.0", "words": "1.5.0"}


def test_only_what_is_named(office: Cli, file: Path, other: Cli) -> None:
    office.ok("bundle", "--output", file)
    other.ok("install", file, "words", "--yes")
    assert other.installed() == {"words": "1.0.0"}
    assert other.ok("list", "--manual", "--json").json["packs"][0]["name"] == "words"
    other.ok("install", file, "letters@1", "--no-recommends", "--yes")
    assert sorted(other.installed()) == ["letters", "words"]
    assert other("install", file, "letters@2", "--yes").code == 3
    result = other("install", file, "latters", "--yes")
    assert result.code == 3
    assert "no pack `latters` in" in result.err
    assert "there is letters, tone, words" in result.err


def test_twice(office: Cli, file: Path, other: Cli) -> None:
    office.ok("bundle", "--output", file)
    other.ok("install", file, "--yes")
    result = other.ok("install", file, "--json")
    assert result.json["changed"] is False
    result = other.ok("install", file)
    assert "letters 1.0.0 is installed already" in result.err


def test_dry_runs_change_nothing(office: Cli, file: Path, other: Cli) -> None:
    document = office.ok("bundle", "--output", file, "--dry-run", "--json").json
    assert (document["written"], document["size"], document["fetch_bytes"]) == (False, None, 0)
    assert not file.parent.exists()
    office.ok("bundle", "--output", file)
    result = other.ok("install", file, "--dry-run")
    assert "install    letters 1.0.0" in result.out
    assert not other.home.exists()


def test_the_base_is_installed_there_already(
    office: Cli, registry: Path, file: Path, other: Cli
) -> None:
    office.ok("bundle", "--output", file)
    other.ok("base", "install", "tiny", "--registry", registry, "--yes")
    result = other.ok("--offline", "install", file, "--yes")
    assert "base tiny" not in result.out
    assert other.bases() == ["tiny"]
    other.ok("verify")


def test_beside_what_is_installed_there(
    cli: Cli, registry: Path, publish: Publish, file: Path, other: Cli
) -> None:
    """What is in the bundle comes as it is in it; the rest stays, and is not looked up."""
    publish("alpha")
    publish("words", "1.0.0")
    other.ok("install", "alpha", "words", "--registry", registry, "--yes")
    publish("words", "1.5.0")
    publish("letters", requires={"words": "1"})
    cli.ok("bundle", "letters", "--registry", registry, "--output", file)
    shutil.rmtree(registry)
    result = other.ok("--offline", "install", file, "--yes")
    assert "upgrade    words 1.0.0 -> 1.5.0" in result.out
    assert other.installed() == {"alpha": "1.0.0", "letters": "1.0.0", "words": "1.5.0"}


def test_in_conflict_with_what_is_installed_there(
    cli: Cli, registry: Path, publish: Publish, file: Path, other: Cli
) -> None:
    publish("alpha")
    publish("rival", conflicts={"alpha": "*"})
    other.ok("install", "alpha", "--registry", registry, "--yes")
    cli.ok("bundle", "rival", "--registry", registry, "--output", file)
    result = other("--offline", "install", file, "--yes")
    assert result.code == 4
    assert "rival 1.0.0 conflicts with alpha 1.0.0" in result.err
    assert other.installed() == {"alpha": "1.0.0"}


def test_a_base_alone(cli: Cli, registry: Path, file: Path, other: Cli) -> None:
    cli.ok("base", "install", "tiny", "--registry", registry, "--yes")
    cli.ok("bundle", "--output", file)
    result = other.ok("--offline", "install", file, "--yes")
    assert "install    base tiny" in result.out
    assert other.bases() == ["tiny"]
    assert "base tiny is installed already" in other.ok("install", file).err


def test_what_was_yanked_meanwhile(office: Cli, registry: Path, file: Path, other: Cli) -> None:
    index = registry / "index" / index_path("words")
    lines = [x.model_copy(update={"yanked": True}) for x in Registry(registry).lines("words")]
    index.write_bytes(b"".join(x.canonical() for x in lines))
    result = office.ok("bundle", "--output", file)
    assert "warning: words 1.0.0 was yanked from its registry" in result.err
    result = other.ok("--offline", "install", file, "--yes")
    assert "warning: words 1.0.0 was yanked from its registry" in result.err
    assert other.installed()["words"] == "1.0.0"
    refused = office("bundle", "words", "--registry", registry, "--output", file)
    assert refused.code == 4
    assert "is yanked" in refused.err


def test_a_prerelease(cli: Cli, registry: Path, publish: Publish, file: Path, other: Cli) -> None:
    publish("words", "2.0.0-beta.1")
    publish("letters", requires={"words": ">=2.0.0-beta.1"})
    cli.ok("bundle", "letters", "--registry", registry, "--output", file)
    other.ok("install", file, "--yes")
    assert other.installed()["words"] == "2.0.0-beta.1"


def test_upgrades_come_from_where_it_was_from(
    office: Cli, registry: Path, publish: Publish, file: Path, other: Cli
) -> None:
    office.ok("bundle", "--output", file)
    other.ok("registry", "add", "team", registry)
    other.ok("install", file, "--yes")
    publish("words", "1.1.0")
    assert [o["name"] for o in other.ok("outdated", "--json").json["packs"]] == ["words"]
    other.ok("upgrade", "--yes")
    assert other.installed()["words"] == "1.1.0"
    assert json.loads((other.home / "origins.json").read_text())["packs"] == {
        n: str(registry) for n in ("letters", "tone", "words")
    }


def test_a_registry_that_is_not_configured_there(office: Cli, file: Path, other: Cli) -> None:
    office.ok("bundle", "--output", file)
    address = "https://packs.example/team"
    rewrite(file, **{n: {"registry": address} for n in ("letters", "tone", "words")})
    result = other.ok("install", file, "--yes")
    assert f"`mbpm registry add NAME {address}`" in result.err
    result = other.ok("outdated")
    assert f"warning: `words` came from the registry {address}" in result.err


def test_no_other_registry_slips_in(
    office: Cli, registry: Path, publish: Publish, file: Path, other: Cli, tmp_path: Path
) -> None:
    """The registry a pack came from decides, also where it came in a bundle."""

    office.ok("bundle", "--output", file)
    other.ok("install", file, "--registry", registry, "--yes")
    elsewhere = tmp_path / "elsewhere"
    registry_with_base(elsewhere, tmp_path / "elsewhere-base")
    published(pack_folder(tmp_path / "evil", "words", "9.9.9"), elsewhere)
    other.ok("registry", "add", "elsewhere", elsewhere, "--priority", "900")
    other.ok("upgrade", "--yes")
    assert other.installed()["words"] == "1.0.0"


def test_repaired_from_the_original_registry(
    office: Cli, registry: Path, file: Path, other: Cli
) -> None:
    office.ok("bundle", "--output", file)
    other.ok("install", file, "--registry", registry, "--yes")
    folder = Path(other.ok("files", "words", "--json").json["folder"])
    for damaged in folder.rglob("adapter.safetensors"):
        damaged.chmod(0o600)
        damaged.write_bytes(b"x" * damaged.stat().st_size)
    assert other("verify").code == 5
    file.unlink()
    other.ok("reinstall", "words", "--yes")
    other.ok("verify")


def test_repaired_from_the_bundle_without_network(
    office: Cli, registry: Path, file: Path, other: Cli, no_sockets: None
) -> None:
    office.ok("bundle", "--output", file)
    other.ok("install", file, "--yes")
    shutil.rmtree(registry)
    folder = Path(other.ok("files", "words", "--json").json["folder"])
    adapter = folder / "adapter.safetensors"
    adapter.chmod(0o600)
    adapter.write_bytes(b"x" * adapter.stat().st_size)
    other.ok("--offline", "install", file, "words", "--reinstall", "--yes")
    other.ok("verify")


def test_a_pack_from_no_registry(
    cli: Cli, registry: Path, publish: Publish, file: Path, other: Cli, tmp_path: Path
) -> None:
    folder = pack_folder(tmp_path / "mine", "mine")
    cli.ok("bundle", folder, "--registry", registry, "--output", file)
    first = file.read_bytes()
    cli.ok("bundle", folder, "--registry", registry, "--output", file)
    assert file.read_bytes() == first
    other.ok("--offline", "install", file, "--yes")
    (record,) = other.ok("list", "--json").json["packs"]
    assert record["registry"] == f"bundle {file}"
    publish("mine", "2.0.0")
    other.ok("upgrade", "--registry", registry, "--yes")
    assert other.installed() == {"mine": "1.0.0"}, "nobody's to upgrade unless it is named"
    other.ok("upgrade", "mine", "--registry", registry, "--yes")
    assert other.installed() == {"mine": "2.0.0"}


def test_a_pack_from_no_registry_is_repaired_from_the_bundle(
    cli: Cli, registry: Path, file: Path, other: Cli, tmp_path: Path
) -> None:
    cli.ok("bundle", pack_folder(tmp_path / "m", "mine"), "--registry", registry, "-o", file)
    other.ok("install", file, "--yes")
    shutil.rmtree(other.home / "store" / "blobs")
    shutil.rmtree(other.home / "store" / "packs")
    other.ok("reinstall", "mine", "--registry", registry, "--yes")
    other.ok("files", "mine")
    make(file, tmp_path)
    shutil.rmtree(other.home / "store" / "packs")
    shutil.rmtree(other.home / "store" / "blobs")
    result = other("reinstall", "mine", "--registry", registry, "--yes")
    assert result.code == 4, "another bundle under the same name is not the same"


def test_passed_on(office: Cli, registry: Path, file: Path, other: Cli, tmp_path: Path) -> None:
    """From a machine that got it from a bundle itself."""
    office.ok("bundle", "--output", file)
    other.ok("install", file, "--registry", registry, "--yes")
    other.ok("bundle", "--output", tmp_path / "again.mbundle")
    assert (tmp_path / "again.mbundle").read_bytes() == file.read_bytes()


def test_what_the_store_lacks_is_fetched(office: Cli, file: Path, other: Cli) -> None:
    for blob in (office.home / "store" / "blobs").rglob("*"):
        if blob.is_file() and blob.read_bytes().startswith(b"# words"):
            blob.unlink()
    assert office.ok("bundle", "--output", file, "--json").json["fetch_bytes"] == len("# words\n")
    other.ok("install", file, "--yes")
    assert not list(file.parent.glob(".*"))


def test_goes_on_where_it_was_stopped(
    cli: Cli, registry: Path, publish: Publish, file: Path, tmp_path: Path
) -> None:
    publish("words")
    publish("letters", requires={"words": "1"})
    arguments = ["bundle", "letters", "--registry", registry, "--output", file]
    (readme,) = (
        b for b in (registry / "blobs").rglob("*") if b.is_file() and b.read_bytes() == b"# words\n"
    )
    away = readme.rename(tmp_path / "away")
    result = cli(*arguments)
    assert result.code == 3
    assert "README.md of words 1.0.0" in result.err
    assert not file.exists()
    (kept,) = file.parent.iterdir()
    assert kept.name == ".packs.mbundle.download"
    assert cli.ok(*arguments, "--dry-run", "--json").json["fetch_bytes"] > 0
    away.rename(readme)
    for here in (kept / "blobs").rglob("*"):
        if here.is_file():
            # it is not asked for again
            (registry / "blobs" / here.name[:2] / here.name).unlink(missing_ok=True)
    cli.ok(*arguments)
    assert [f.name for f in file.parent.iterdir()] == ["packs.mbundle"]


def test_a_damaged_store_is_noticed(office: Cli, file: Path) -> None:
    for blob in (office.home / "store" / "blobs").rglob("*"):
        if blob.is_file() and blob.read_bytes().startswith(b"# words"):
            blob.chmod(0o600)
            blob.write_bytes(b"# sword\n")
    result = office("bundle", "--output", file)
    assert result.code == 5
    assert "`mbpm verify`" in result.err
    assert not file.exists()


def test_nothing_to_bundle(cli: Cli, file: Path) -> None:
    result = cli("bundle", "--output", file)
    assert result.code == 3
    assert "nothing is installed" in result.err


def test_wrong_name(office: Cli, tmp_path: Path) -> None:
    result = office("bundle", "--output", tmp_path / "packs.zip")
    assert result.code == 2
    assert "packs.mbundle" in result.err


def test_where_a_bundle_does_not_go(office: Cli, file: Path) -> None:
    office.ok("bundle", "--output", file)
    result = office("download", file)
    assert result.code == 2
    assert f"`mbpm install {file}`" in result.err


# what a bundle says, against what is known


def test_another_registry_than_the_known_one(
    office: Cli, registry: Path, file: Path, tmp_path: Path
) -> None:
    office.ok("bundle", "--output", file)
    rewrite(file, words={"registry": "https://evil.example"})
    result = office("install", file, "--yes")
    assert result.code == 5
    assert "`words` comes from the registry https://evil.example" in result.err
    assert f"here it comes from {registry}" in result.err
    office.ok("remove", "letters", "words", "tone", "--yes")
    assert office("install", file, "--yes").code == 5, "removed is not forgotten"
    assert office.installed() == {}
    office.ok("install", file, "--registry", "https://evil.example", "--yes")
    assert len(office.installed()) == 3


def test_a_foreign_pack_that_claims_to_be_bundled(
    cli: Cli, registry: Path, publish: Publish, file: Path, other: Cli
) -> None:
    publish("medical", "0.1.0")
    cli.ok("bundle", "medical", "--registry", registry, "--output", file)
    rewrite(file, medical={"registry": "bundled"})
    result = other("install", file, "--yes")
    assert result.code == 5
    assert "from the registry bundled, whose medical 0.1.0 is another" in result.err
    assert not other.home.exists()


def test_a_pack_that_its_registry_does_not_have(
    office: Cli, registry: Path, file: Path, other: Cli, tmp_path: Path
) -> None:
    """Nobody becomes the origin of a name by what a bundle says."""
    office.ok("bundle", "--output", file)
    rewrite(file, words={"registry": "bundled"})
    result = other("install", file, "--yes")
    assert result.code == 5
    assert "`words` comes from the registry bundled, which has no such pack" in result.err
    empty = tmp_path / "empty"
    registry_with_base(empty, tmp_path / "empty-base")
    rewrite(file, words={"registry": str(empty)})
    other.ok("registry", "add", "team", empty)
    result = other("install", file, "--yes")
    assert result.code == 5
    assert "`words` comes from the registry team, which has no such pack" in result.err
    assert "`--registry team` takes the bundle's word for it" in result.err
    assert other.installed() == {} and not (other.home / "origins.json").exists()
    other.ok("install", file, "--registry", "team", "--yes")
    assert json.loads((other.home / "origins.json").read_text())["packs"]["words"] == str(empty)


def test_a_directory_that_nobody_named_here_is_no_origin(
    office: Cli, registry: Path, publish: Publish, file: Path, other: Cli
) -> None:
    """Whoever can write there would decide about later versions."""
    office.ok("bundle", "--output", file)
    result = other.ok("install", file, "--yes")
    assert f"`--registry {registry}` takes its word for it" in result.err
    packs = other.ok("list", "--json").json["packs"]
    assert {p["registry"] for p in packs} == {f"bundle {file}"}
    publish("words", "1.1.0")
    other.ok("upgrade", "--yes")
    assert other.installed()["words"] == "1.0.0"
    assert not (other.home / "origins.json").exists()
    other.ok("upgrade", "words", "--registry", registry, "--yes")
    assert other.installed()["words"] == "1.1.0"


def test_a_foreign_base_with_the_name_of_a_bundled_one(
    file: Path, other: Cli, tmp_path: Path
) -> None:
    """Only the bytes of such a base are taken from a bundle, and these are others."""
    make(file, tmp_path, base="smollm2-135m")
    result = other("install", file, "--yes")
    assert result.code == 5
    assert "which no registry offers" in result.err
    assert not (other.home / "current").exists()


# hostile content


def make(
    file: Path, tmp_path: Path, *, base: str = "tiny", readme: bytes | None = None, **pack: Any
) -> None:
    """A sound file around whatever pack."""
    card = tiny_base(tmp_path / "made-base", name=base)
    pack["base"] = {"name": base, "fingerprint": card.fingerprint}
    manifest, found = build_manifest(pack_folder(tmp_path / "made-pack", "law", **pack))
    files: dict[str, Path | bytes] = {b.sha256: found[b.path] for b in manifest.blobs}
    files |= {manifest.digest(): manifest.canonical(), card.digest(): card.canonical()}
    files[card.files[0].blob.sha256] = tmp_path / "made-base" / f"{base}.gguf"
    sizes = {d: len(f) if isinstance(f, bytes) else f.stat().st_size for d, f in files.items()}
    content = Bundle(
        packs=(BundledPack(line=line_of(manifest)),),
        bases=(BundledBase(name=base, card=card.digest()),),
        blobs=tuple(BundledBlob(sha256=d, size=sizes[d]) for d in sorted(sizes)),
    )
    file.parent.mkdir(parents=True, exist_ok=True)
    write_bundle(content, files, file)


def test_a_sound_one_to_compare_with(file: Path, other: Cli, tmp_path: Path) -> None:
    make(file, tmp_path)
    other.ok("install", file, "--yes")


def test_an_adapter_that_does_not_attach(file: Path, other: Cli, tmp_path: Path) -> None:
    tensors = {n.replace("q_proj", "o_proj"): t for n, t in adapter_tensors().items()}
    make(file, tmp_path, tensors=tensors)
    result = other("install", file, "--yes")
    assert result.code == 5
    assert "o_proj" in result.err
    assert other.installed() == {}


def test_a_wrong_byte_in_a_file(office: Cli, file: Path, other: Cli) -> None:
    office.ok("bundle", "--output", file)
    raw = bytearray(file.read_bytes())
    raw[raw.index(b"# words\n") + 2] ^= 1
    file.write_bytes(raw)
    result = other("install", file, "--yes")
    assert result.code == 5
    assert "README.md of words 1.0.0" in result.err
    assert other.installed() == {}
    assert other.bases() == []


def test_truncated(office: Cli, file: Path, other: Cli) -> None:
    office.ok("bundle", "--output", file)
    raw = file.read_bytes()
    file.write_bytes(raw[: len(raw) // 2])
    result = other("install", file, "--yes")
    assert result.code == 5
    assert "is truncated" in result.err
    assert not other.home.exists()


def test_something_else_under_the_name(file: Path, other: Cli) -> None:
    file.parent.mkdir()
    file.write_text("not a bundle at all")
    result = other("install", file, "--yes")
    assert result.code == 5
    assert "is not a bundle" in result.err
    assert other("install", file.with_name("missing.mbundle"), "--yes").code == 3


def test_is_read_as_it_was_written(office: Cli, file: Path) -> None:
    office.ok("bundle", "--output", file)
    opened = read_bundle(file)
    assert [p.line.notes for p in opened.content.packs] == ["News", "", ""]
    assert [p.auto for p in opened.content.packs] == [False, True, True]
