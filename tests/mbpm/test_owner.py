"""`mbpm owner`."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.cli import Cli

Publish = Callable[..., None]


@pytest.fixture
def alpha(cli: Cli, registry: Path, publish: Publish) -> Cli:
    """A home with the packs `alpha` and `beta`, which share a licence."""
    publish("alpha", files={"LICENSE": b"the same words"})
    publish("beta", files={"LICENSE": b"the same words"})
    cli.ok("install", "alpha", "beta", "--registry", registry, "--yes")
    return cli


def store_file(cli: Cli, pack: str, name: str) -> Path:
    """A file in the folder of an installed pack or base."""
    (found,) = (
        Path(f["path"])
        for f in cli.ok("files", pack, "--json").json["files"]
        if Path(f["path"]).name == name
    )
    return found


def digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def test_by_place(alpha: Cli) -> None:
    file = store_file(alpha, "alpha", "evals.json")
    assert alpha.ok("owner", file).out == "alpha 1.0.0: evals.json\n"
    assert len(alpha.ok("owner", file.parent).out.splitlines()) == 6


def test_a_blob_by_place_even_when_damaged(alpha: Cli) -> None:
    sha256 = digest(store_file(alpha, "alpha", "evals.json"))
    blob = alpha.home / "store" / "blobs" / "sha256" / sha256[:2] / sha256
    blob.chmod(0o600)
    blob.write_bytes(b"something else")
    assert alpha.ok("owner", blob).out == "alpha 1.0.0: evals.json\n"


def test_by_bytes_of_any_file(alpha: Cli, tmp_path: Path) -> None:
    copy = tmp_path / "found-somewhere.bin"
    copy.write_bytes(store_file(alpha, "tiny", "weights.gguf").read_bytes())
    assert alpha.ok("owner", copy).out == "base tiny: weights.gguf\n"
    link = tmp_path / "link"
    link.symlink_to(store_file(alpha, "beta", "evals.json"))
    assert alpha.ok("owner", link).out == "beta 1.0.0: evals.json\n"


def test_by_digest(alpha: Cli) -> None:
    sha256 = digest(store_file(alpha, "alpha", "adapter.safetensors"))
    for text in (sha256, f"sha256:{sha256}", sha256[:8]):
        assert alpha.ok("owner", text).out == "alpha 1.0.0: adapter.safetensors\n"
    manifest = store_file(alpha, "alpha", "manifest.json").parent.name
    assert alpha.ok("owner", manifest).out == "alpha 1.0.0: manifest.json\n"


def test_several_owners(alpha: Cli) -> None:
    shared = hashlib.sha256(b"the same words").hexdigest()
    assert alpha.ok("owner", shared).out == "alpha 1.0.0: LICENSE\nbeta 1.0.0: LICENSE\n"
    document = alpha.ok("owner", shared, "--json").json
    assert [(o["name"], o["file"], o["installed"]) for o in document["owners"]] == [
        ("alpha", "LICENSE", True),
        ("beta", "LICENSE", True),
    ]


def test_kept_for_an_earlier_generation(alpha: Cli) -> None:
    file = store_file(alpha, "alpha", "evals.json")
    alpha.ok("remove", "alpha", "--yes")
    assert alpha.ok("owner", file).out == "alpha 1.0.0: evals.json (kept for generation 1)\n"
    assert alpha.ok("owner", file, "--json").json["owners"][0]["installed"] is False


def test_installed_in_another_profile(alpha: Cli) -> None:
    file = store_file(alpha, "alpha", "evals.json")
    result = alpha.ok("--profile", "other", "owner", file)
    assert result.out == "alpha 1.0.0: evals.json (installed in profile default)\n"


def test_nobody(alpha: Cli, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.write_text("mine alone")
    for argument, words in (
        (mine, "no pack or base has"),
        ("0" * 64, "no pack or base has a file with the digest"),
        (tmp_path / "missing", "no such file"),
        (tmp_path, "is a folder"),
        ("word", "no such file"),
    ):
        result = alpha("owner", argument)
        assert result.code == 3
        assert words in result.err


def test_an_empty_home(cli: Cli, tmp_path: Path) -> None:
    assert cli("owner", "0" * 64).code == 3
    assert not cli.home.exists()
