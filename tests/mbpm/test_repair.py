"""`mbpm repair` and `mbpm reinstall`: damaged bytes come back, good ones are not fetched again."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from mbpm.home import Home
from mbpm.output import Output
from mbpm.registries import origins
from mbpm.transaction import writer
from registry_index.publish import publish_base
from registry_index.tree import Registry
from specs.blobs import CHUNK_BYTES
from tests.support.cli import Cli
from tests.support.packs import tiny_base

Publish = Callable[..., None]


def killed(*_: object) -> None:
    raise KeyboardInterrupt


def overwrite(file: Path, offset: int, data: bytes) -> None:
    file.chmod(0o644)
    with file.open("r+b") as stream:
        stream.seek(offset)
        stream.write(data)


@pytest.fixture
def alpha(cli: Cli, registry: Path, publish: Publish) -> Path:
    """The installed adapter of `alpha`."""
    publish("alpha")
    cli.ok("install", "alpha", "--registry", registry, "--yes")
    (folder,) = Home(cli.home).pack_dirs()
    return folder / "adapter.safetensors"


def test_nothing_damaged(cli: Cli, alpha: Path) -> None:
    assert "every byte is right" in cli.ok("repair").err
    assert "every byte is right" in cli.ok("reinstall", "alpha").err


@pytest.mark.parametrize("command", [("repair",), ("reinstall", "alpha")])
def test_changed_byte(cli: Cli, alpha: Path, command: tuple[str, ...]) -> None:
    overwrite(alpha, 100, b"\0\1\2")
    assert cli("verify").code == 5
    result = cli.ok(*command, "--yes")
    assert "repair     alpha 1.0.0" in result.out
    cli.ok("verify")


def test_lost_file(cli: Cli, alpha: Path) -> None:
    alpha.unlink()
    cli.ok("repair", "--yes")
    cli.ok("verify")


def test_lost_manifest(cli: Cli, alpha: Path) -> None:
    home = Home(cli.home)
    (pack,) = home.current().packs
    home.store.blob_path(pack.manifest).unlink()
    assert cli("verify").code == 5
    cli.ok("repair", "--yes")
    cli.ok("verify")


def test_base_is_mended_too(cli: Cli, alpha: Path) -> None:
    home = Home(cli.home)
    (base,) = home.current().bases
    overwrite(home.base_dir(base) / "weights.gguf", 0, b"!")
    result = cli.ok("repair", "--yes")
    assert "repair     base tiny" in result.out
    cli.ok("verify")


def test_only_the_bad_chunk_is_needed(cli: Cli, tmp_path: Path) -> None:
    """Where the source lost all but one chunk, a repair of that chunk still works."""
    registry = tmp_path / "registry"
    files = tmp_path / "files"
    weights = bytes(range(256)) * (3 * CHUNK_BYTES // 256)
    publish_base(tiny_base(files, weights=weights), registry)
    cli.ok("base", "install", "tiny", "--registry", registry, "--yes")
    home = Home(cli.home)
    (base,) = home.current().bases
    overwrite(home.base_dir(base) / "weights.gguf", CHUNK_BYTES + 5, b"!!")
    source = files / "tiny.gguf"
    overwrite(source, 0, bytes(CHUNK_BYTES))
    overwrite(source, 2 * CHUNK_BYTES, bytes(CHUNK_BYTES))
    cli.ok("repair", "--registry", registry, "--yes")
    cli.ok("verify")


def test_cannot_be_had_any_more(cli: Cli, alpha: Path, registry: Path) -> None:
    overwrite(alpha, 100, b"\0\1\2")
    shutil.rmtree(registry)
    result = cli("repair", "--yes")
    assert result.code != 0
    assert "hint:" in result.err
    assert cli.installed() == {"alpha": "1.0.0"}, "what was installed is still listed"


@pytest.mark.parametrize("text", ["", "seven", "99", "-1", "1\n1"])
def test_damaged_pointer(cli: Cli, registry: Path, publish: Publish, text: str) -> None:
    publish("alpha")
    publish("beta")
    for name in ("alpha", "beta"):
        cli.ok("install", name, "--registry", registry, "--yes")
    (cli.home / "current").write_text(text)
    result = cli("list")
    assert result.code == 5
    assert "`mbpm repair`" in result.err
    shown = cli.ok("repair", "--dry-run")
    assert "repair     go back to generation 2" in shown.out
    assert (cli.home / "current").read_text() == text
    cli.ok("repair", "--yes")
    assert cli.installed() == {"alpha": "1.0.0", "beta": "1.0.0"}
    cli.ok("verify")


def test_damaged_generation(cli: Cli, registry: Path, publish: Publish) -> None:
    publish("alpha")
    publish("beta")
    for name in ("alpha", "beta"):
        cli.ok("install", name, "--registry", registry, "--yes")
    (cli.home / "generations" / "2.json").write_text("{")
    cli.ok("repair", "--yes")
    assert cli.installed() == {"alpha": "1.0.0"}
    cli.ok("install", "beta", "--yes", "--registry", registry)
    (cli.home / "current").write_text("?")
    for file in (cli.home / "generations").iterdir():
        file.write_bytes(b"\xff")
    cli.ok("repair", "--yes")
    assert cli.installed() == {}
    cli.ok("install", "alpha", "--yes", "--registry", registry)
    cli.ok("verify")


def test_damaged_record_of_origins_keeps_nobody_stuck(
    cli: Cli, registry: Path, alpha: Path, publish: Publish
) -> None:
    publish("beta")
    cli.ok("install", "beta", "--registry", registry, "--yes")
    (cli.home / "origins.json").write_text("{")
    result = cli("remove", "beta", "--yes")
    assert result.code == 5
    assert "`mbpm repair`" in result.err
    assert cli.installed() == {"alpha": "1.0.0", "beta": "1.0.0"}, "nothing was changed"
    assert "origins.json" in cli("doctor").out
    assert "origins.json, from what was installed" in cli.ok("repair", "--dry-run").out
    cli.ok("repair", "--yes")
    cli.ok("remove", "beta", "--yes")
    assert origins.read(Home(cli.home)) == {"alpha": str(registry), "beta": str(registry)}


def test_origins_damaged_after_the_change_counted(
    cli: Cli, registry: Path, alpha: Path, publish: Publish, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = Home(cli.home)
    monkeypatch.setattr("mbpm.triggers.run_triggers", killed)
    with pytest.raises(KeyboardInterrupt), writer(home, Output(), "mbpm remove alpha") as right:
        right.commit([], home.current().bases)
    monkeypatch.undo()
    (cli.home / "origins.json").write_text("{")
    cli.ok("gc", "--yes")
    cli.ok("repair", "--yes")
    assert not home.journal.exists()


def test_hint_names_the_profile_that_is_damaged(cli: Cli, alpha: Path, registry: Path) -> None:
    cli.ok("--profile", "other", "install", "alpha", "--registry", registry, "--yes")
    (cli.home / "profiles" / "other" / "current").write_text("?")
    result = cli("gc")
    assert result.code == 5
    assert "`mbpm --profile other repair`" in result.err
    cli.ok("--profile", "other", "repair", "--yes")
    cli.ok("gc")


def test_base_that_its_registry_describes_otherwise_now(cli: Cli, registry: Path) -> None:
    cli.ok("base", "install", "tiny", "--registry", registry, "--yes")
    card = Registry(registry).base("tiny")
    publish_base(card.model_copy(update={"description": "In other words"}), registry)
    home = Home(cli.home)
    overwrite(home.base_dir(home.current().bases[0]) / "weights.gguf", 0, b"!")
    cli.ok("repair", "--registry", registry, "--yes")
    cli.ok("verify")
    assert "every byte is right" in cli.ok("repair", "--registry", registry).err
