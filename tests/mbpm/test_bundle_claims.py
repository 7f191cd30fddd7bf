"""What bundles say of where packs come from, and bundles that are not sound."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from tests.support.bundles import make, rewrite
from tests.support.cli import Cli
from tests.support.packs import (
    adapter_tensors,
    pack_folder,
    published,
    registry_with_base,
)

Publish = Callable[..., None]


def test_a_registry_that_is_not_configured_there(office: Cli, mbundle: Path, other: Cli) -> None:
    office.ok("bundle", "--output", mbundle)
    address = "https://packs.example/team"
    rewrite(mbundle, **{n: {"registry": address} for n in ("letters", "tone", "words")})
    result = other.ok("install", mbundle, "--yes")
    assert f"`mbpm registry add NAME {address}`" in result.err
    result = other.ok("outdated")
    assert f"warning: `words` came from the registry {address}" in result.err


def test_no_other_registry_slips_in(
    office: Cli, registry: Path, publish: Publish, mbundle: Path, other: Cli, tmp_path: Path
) -> None:
    """The registry a pack came from decides, also where it came in a bundle."""

    office.ok("bundle", "--output", mbundle)
    other.ok("install", mbundle, "--registry", registry, "--yes")
    elsewhere = tmp_path / "elsewhere"
    registry_with_base(elsewhere, tmp_path / "elsewhere-base")
    published(pack_folder(tmp_path / "evil", "words", "9.9.9"), elsewhere)
    other.ok("registry", "add", "elsewhere", elsewhere, "--priority", "900")
    other.ok("upgrade", "--yes")
    assert other.installed()["words"] == "1.0.0"


def test_another_registry_than_the_known_one(
    office: Cli, registry: Path, mbundle: Path, tmp_path: Path
) -> None:
    office.ok("bundle", "--output", mbundle)
    rewrite(mbundle, words={"registry": "https://evil.example"})
    result = office("install", mbundle, "--yes")
    assert result.code == 5
    assert "`words` comes from the registry https://evil.example" in result.err
    assert f"here it comes from {registry}" in result.err
    office.ok("remove", "letters", "words", "tone", "--yes")
    assert office("install", mbundle, "--yes").code == 5, "removed is not forgotten"
    assert office.installed() == {}
    office.ok("install", mbundle, "--registry", "https://evil.example", "--yes")
    assert len(office.installed()) == 3


def test_a_foreign_pack_that_claims_to_be_bundled(
    cli: Cli, registry: Path, publish: Publish, mbundle: Path, other: Cli
) -> None:
    publish("medical", "0.1.0")
    cli.ok("bundle", "medical", "--registry", registry, "--output", mbundle)
    rewrite(mbundle, medical={"registry": "bundled"})
    result = other("install", mbundle, "--yes")
    assert result.code == 5
    assert "from the registry bundled, whose medical 0.1.0 is another" in result.err
    assert not other.home.exists()


def test_a_pack_that_its_registry_does_not_have(
    office: Cli, registry: Path, mbundle: Path, other: Cli, tmp_path: Path
) -> None:
    """Nobody becomes the origin of a name by what a bundle says."""
    office.ok("bundle", "--output", mbundle)
    rewrite(mbundle, words={"registry": "bundled"})
    result = other("install", mbundle, "--yes")
    assert result.code == 5
    assert "`words` comes from the registry bundled, which has no such pack" in result.err
    empty = tmp_path / "empty"
    registry_with_base(empty, tmp_path / "empty-base")
    rewrite(mbundle, words={"registry": str(empty)})
    other.ok("registry", "add", "team", empty)
    result = other("install", mbundle, "--yes")
    assert result.code == 5
    assert "`words` comes from the registry team, which has no such pack" in result.err
    assert "`--registry team` takes the bundle's word for it" in result.err
    assert other.installed() == {} and not (other.home / "origins.json").exists()
    other.ok("install", mbundle, "--registry", "team", "--yes")
    assert json.loads((other.home / "origins.json").read_text())["packs"]["words"] == str(empty)


def test_a_directory_that_nobody_named_here_is_no_origin(
    office: Cli, registry: Path, publish: Publish, mbundle: Path, other: Cli
) -> None:
    """Whoever can write there would decide about later versions."""
    office.ok("bundle", "--output", mbundle)
    result = other.ok("install", mbundle, "--yes")
    assert f"`--registry {registry}` takes its word for it" in result.err
    packs = other.ok("list", "--json").json["packs"]
    assert {p["registry"] for p in packs} == {f"bundle {mbundle}"}
    publish("words", "1.1.0")
    other.ok("upgrade", "--yes")
    assert other.installed()["words"] == "1.0.0"
    assert not (other.home / "origins.json").exists()
    other.ok("upgrade", "words", "--registry", registry, "--yes")
    assert other.installed()["words"] == "1.1.0"


def test_a_foreign_base_with_the_name_of_a_bundled_one(
    mbundle: Path, other: Cli, tmp_path: Path
) -> None:
    """Only the bytes of such a base are taken from a bundle, and these are others."""
    make(mbundle, tmp_path, base="smollm2-135m")
    result = other("install", mbundle, "--yes")
    assert result.code == 5
    assert "which no registry offers" in result.err
    assert not (other.home / "current").exists()


def test_a_sound_one_to_compare_with(mbundle: Path, other: Cli, tmp_path: Path) -> None:
    make(mbundle, tmp_path)
    other.ok("install", mbundle, "--yes")


def test_an_adapter_that_does_not_attach(mbundle: Path, other: Cli, tmp_path: Path) -> None:
    tensors = {n.replace("q_proj", "o_proj"): t for n, t in adapter_tensors().items()}
    make(mbundle, tmp_path, tensors=tensors)
    result = other("install", mbundle, "--yes")
    assert result.code == 5
    assert "o_proj" in result.err
    assert other.installed() == {}


def test_a_wrong_byte_in_a_file(office: Cli, mbundle: Path, other: Cli) -> None:
    office.ok("bundle", "--output", mbundle)
    raw = bytearray(mbundle.read_bytes())
    raw[raw.index(b"# words\n") + 2] ^= 1
    mbundle.write_bytes(raw)
    result = other("install", mbundle, "--yes")
    assert result.code == 5
    assert "README.md of words 1.0.0" in result.err
    assert other.installed() == {}
    assert other.bases() == []


def test_truncated(office: Cli, mbundle: Path, other: Cli) -> None:
    office.ok("bundle", "--output", mbundle)
    raw = mbundle.read_bytes()
    mbundle.write_bytes(raw[: len(raw) // 2])
    result = other("install", mbundle, "--yes")
    assert result.code == 5
    assert "is truncated" in result.err
    assert not other.home.exists()


def test_something_else_under_the_name(mbundle: Path, other: Cli) -> None:
    mbundle.parent.mkdir()
    mbundle.write_text("not a bundle at all")
    result = other("install", mbundle, "--yes")
    assert result.code == 5
    assert "is not a bundle" in result.err
    assert other("install", mbundle.with_name("missing.mbundle"), "--yes").code == 3
