"""`mbpm verify`."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mbpm import verify
from mbpm.home import Home
from registry_index.packing import build_manifest
from registry_index.publish import publish_base
from tests.support.cli import Cli
from tests.support.packs import RANK, adapter_tensors, pack_folder, published
from tests.support.tiny_base import write_tiny_base

Publish = Callable[..., None]


@pytest.fixture
def one(cli: Cli, registry: Path, publish: Publish) -> Cli:
    publish("alpha")
    cli.ok("install", "alpha", "--registry", registry, "--yes")
    return cli


def damage(file: Path, data: bytes | None = None) -> None:
    """Overwrite a file with a bit changed, or with `data`, as a bad disk or an editor would."""
    raw = bytearray(file.read_bytes())
    raw[len(raw) // 2] ^= 1
    file.chmod(0o644)
    file.write_bytes(bytes(raw) if data is None else data)


def test_all_is_well(one: Cli) -> None:
    result = one.ok("verify")
    assert [line.split()[:3] for line in result.out.splitlines()] == [
        ["ok", "alpha", "1.0.0"],
        ["ok", "base", "tiny"],
    ]
    document = one.ok("verify", "alpha", "--json").json
    assert document["ok"] is True
    assert [c["name"] for c in document["checks"]] == ["alpha"]


def test_nothing_installed(cli: Cli) -> None:
    assert "nothing is installed" in cli.ok("verify").err


def test_what_others_take_away_meanwhile_is_not_damaged(
    one: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    check = verify.check_base

    def slow(*arguments: Any) -> verify.Check:
        monkeypatch.undo()
        one.ok("remove", "alpha", "--yes")
        one.ok("base", "remove", "tiny", "--yes")
        one.ok("gc", "--yes")
        return check(*arguments)

    monkeypatch.setattr(verify, "check_base", slow)
    assert one.ok("verify", "--json").json == {"ok": True, "checks": []}


def test_unknown_pack(one: Cli) -> None:
    assert "did you mean `alpha`?" in one("verify", "alpa").err


@pytest.mark.parametrize("name", ["adapter.safetensors", "README.md", "manifest.json"])
def test_changed_file_is_named(one: Cli, name: str) -> None:
    (folder,) = Home(one.home).pack_dirs()
    damage(folder / name)
    result = one("verify")
    assert result.code == 5
    assert "damaged  alpha 1.0.0" in result.out
    assert "ok       base tiny" in result.out
    assert "`mbpm install alpha --reinstall` mends it" in result.err
    document = one("verify", "--json").json
    assert document["ok"] is False
    assert document["error"]["exit_code"] == 5
    assert document["checks"][0]["problems"]


@pytest.mark.parametrize("name", ["adapter.safetensors", "README.md", "manifest.json"])
def test_the_hint_works(one: Cli, registry: Path, name: str) -> None:
    (folder,) = Home(one.home).pack_dirs()
    damage(folder / name)
    one.ok("install", "alpha", "--reinstall", "--yes")
    one.ok("verify")
    result = one.ok("install", "alpha", "--reinstall", "--yes")
    assert "every byte of it is right" in result.err
    shutil.rmtree(registry)
    damage(folder / name)
    result = one("install", "alpha", "--reinstall", "--yes")
    assert result.code == 4
    assert f"cannot be had from {registry} any more" in result.err


def test_truncated_and_missing_files(one: Cli) -> None:
    (folder,) = Home(one.home).pack_dirs()
    file = folder / "adapter.safetensors"
    damage(file, file.read_bytes()[:-1])
    assert "adapter.safetensors: is truncated" in one("verify").out
    file.unlink()
    assert "adapter.safetensors: is missing" in one("verify").out


def test_damaged_base(one: Cli, registry: Path) -> None:
    home = Home(one.home)
    damage(home.base_dir(home.default_base()) / "weights.gguf")
    result = one("verify")
    assert result.code == 5
    assert "weights.gguf: chunk 0 has the wrong digest" in result.out
    assert "`mbpm base install tiny --reinstall`" in result.err
    assert one("base", "verify").code == 5
    one.ok("base", "install", "tiny", "--reinstall", "--yes", "--registry", registry)
    one.ok("base", "verify", "tiny")


@pytest.fixture
def deep(cli: Cli, tmp_path: Path) -> Callable[[float], None]:
    """Install a pack for a base that runs, its recorded answers shifted by some nats."""
    from runtime.canaries import record
    from runtime.load import load

    root = tmp_path / "registry"
    card = write_tiny_base(tmp_path / "tiny-base")
    publish_base(card, root)
    modules = {name: shape for name, shape in card.modules.items() if name.endswith("q_proj")}
    tensors = adapter_tensors(modules)
    changes = {
        "tensors": tensors,
        "fingerprint": card.fingerprint,
        "adapter": {"activation": "answer", "rank": RANK, "alpha": 4.0, "modules": len(modules)},
    }

    def install(shift: float) -> None:
        draft = pack_folder(tmp_path / "draft", "alpha", **changes)
        manifest, _ = build_manifest(draft)
        (draft / "manifest.json").write_bytes(manifest.canonical())
        loaded = load(tmp_path / "tiny-base", [])
        slot = loaded.engine.load_adapter(draft)
        made = record(loaded.engine, loaded.chat_format, ["thin things"], "answer", slot)
        canaries = [c.model_dump(mode="json") for c in made]
        assert canaries[0]["base"] != canaries[0]["pack"], "the adapter does something"
        for token in canaries[0]["pack"]:
            token["logprob"] -= shift
        published(pack_folder(tmp_path / "final", "alpha", canaries=canaries, **changes), root)
        cli.ok("install", "alpha", "--registry", root, "--yes")

    return install


def test_deep_replays_what_was_recorded(cli: Cli, deep: Callable[[float], None]) -> None:
    deep(0.0)
    result = cli.ok("verify", "--deep")
    assert "1 recorded answer)" in result.out
    assert "ok       base tiny" in result.out
    checks = cli.ok("verify", "alpha", "--deep", "--json").json["checks"]
    assert [(c["name"], c["canaries"]) for c in checks] == [("alpha", 1), ("tiny", None)]


def test_deep_notices_a_pack_that_says_something_else(
    cli: Cli, deep: Callable[[float], None]
) -> None:
    deep(1.0)
    cli.ok("verify")
    result = cli("verify", "--deep")
    assert result.code == 5
    assert "canary 'thin things': pack gives token" in result.out


def test_deep_notices_weights_that_are_not_the_base(cli: Cli, tmp_path: Path) -> None:
    """A registry may claim the fingerprint of a base for other weights; running it tells."""
    root = tmp_path / "registry"
    card = write_tiny_base(tmp_path / "tiny-base")
    publish_base(card.model_copy(update={"fingerprint": "f" * 64}), root)
    modules = {name: shape for name, shape in card.modules.items() if name.endswith("q_proj")}
    folder = pack_folder(
        tmp_path / "alpha",
        "alpha",
        tensors=adapter_tensors(modules),
        fingerprint="f" * 64,
        adapter={"activation": "full", "rank": RANK, "alpha": 4.0, "modules": len(modules)},
    )
    cli.ok("install", folder, "--registry", root, "--yes")
    result = cli("verify", "--deep")
    assert result.code == 5
    assert "weights.gguf: has fingerprint" in result.out
