"""`mbpm train --base FILE.toml`, and the way of its base: installed, asked, published."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.cli import Cli
from tests.support.tiny_base import few_general_prompts
from tests.trainer.test_pretrain import texts as texts  # the fixture

TOML = """\
format = 1
name = "toy"
description = "for tests"
license = "CC0-1.0"

[model]
layers = 2
hidden_size = 32
ffn_size = 64
heads = 2
kv_heads = 1
context_length = 512

[tokenizer]
vocab_size = 300

[training]
epochs = 1
window = 32
batch_tokens = 512
"""
LEGAL = Path(__file__).parents[1] / "data" / "legal-mini.jsonl"


@pytest.fixture
def file(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "toy.toml").write_text(TOML)
    with few_general_prompts():
        yield tmp_path / "toy.toml"


def test_a_base_of_ones_own_goes_all_the_way(
    cli: Cli, file: Path, texts: Path, tmp_path: Path
) -> None:
    folder, registry = tmp_path / "toy-base", tmp_path / "registry"
    trained = cli.ok("train", "--base", file, "--data", texts, "--output", folder)
    assert "bigrams" in trained.out and "bits per byte" in trained.out
    assert f"mbpm base install {folder}" in trained.err
    cli.ok("base", "install", folder, "--yes")
    assert cli.bases() == ["toy"]
    cli.ok("base", "verify")
    assert "installed already" in cli.ok("base", "install", folder, "--yes").err
    asked = ("run", "Anna saw", "--json", "--temperature", 0, "--max-tokens", 8)
    assert cli.ok(*asked).json["answer"]

    pack = tmp_path / "legal-pack"
    cli.ok(
        "train", "--domain", "legal", "--data", LEGAL, "--license", "CC0-1.0", "--output", pack,
        "--epochs", 1, "--rank", 2, "--held-out", 0.25, "--max-length", 400,
    )  # fmt: skip
    cli.ok("install", pack, "--yes")
    cli.ok("verify", "--deep")

    assert cli("publish", pack, "--registry", registry, "--yes", "--force").code == 3
    shown = cli.ok("base", "publish", folder, "--registry", registry, "--dry-run")
    assert "weights.gguf" in shown.out and not registry.exists()
    cli.ok("base", "publish", folder, "--registry", registry, "--yes")
    cli.ok("publish", pack, "--registry", registry, "--yes", "--force")
    other = Cli(tmp_path / "other-home")
    other.ok("install", "legal", "--registry", registry, "--yes")
    assert other.bases() == ["toy"]
    assert other.ok(*asked).json["answer"] == cli.ok(*asked).json["answer"]


def test_a_damaged_base_folder_is_not_installed(cli: Cli, tmp_path: Path, made: Path) -> None:
    weights = made / "weights.gguf"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1] + b"?")
    result = cli("base", "install", made, "--yes")
    assert result.code == 5
    assert "weights.gguf" in result.err
    weights.unlink()
    assert cli("base", "install", made, "--yes").code == 3
    weights.write_bytes(whole)
    nothing = cli("base", "install", tmp_path / "nowhere", "--yes")
    assert nothing.code == 3
    assert "card.json" in nothing.err


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """A base folder nothing can run: what is looked at is bytes."""
    from specs.base_card import CARD_FILE
    from tests.support.packs import tiny_base

    folder = tmp_path / "made"
    card = tiny_base(folder)
    (folder / "tiny.gguf").rename(folder / "weights.gguf")
    (folder / CARD_FILE).write_bytes(card.canonical())
    return folder


def test_a_base_from_a_folder_is_mended_from_there(cli: Cli, made: Path) -> None:
    cli.ok("base", "install", made, "--yes")
    (weights,) = (f for f in (cli.home / "store").rglob("weights.gguf") if f.is_file())
    weights.chmod(0o644)
    weights.write_bytes(b"x" * weights.stat().st_size)
    assert cli("base", "verify").code == 5
    cli.ok("repair", "--yes")
    cli.ok("base", "verify")


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ((), 2, "--data"),
        (("--data", "{texts}", "--rank", 4), 2, "--rank"),
        (("--data", "{texts}", "--domain", "x"), 2, "--domain"),
        (("--data", "{texts}", "--auto"), 2, "--auto"),
        (("--data", "{texts}", "--held-out", "0.1"), 2, "--held-out"),
        (("--data", "{texts}", "--memory", "4GB"), 2, "--memory"),
        (("--data", "nowhere"), 3, "nowhere"),
    ],
)
def test_wrong_arguments_are_named(
    cli: Cli, file: Path, texts: Path, arguments: tuple[object, ...], code: int, words: str
) -> None:
    given = [str(a).format(texts=texts) for a in arguments]
    result = cli("train", "--base", file, *given)
    assert result.code == code, result
    assert words in result.err


def test_a_wrong_configuration_names_file_and_field(
    cli: Cli, file: Path, texts: Path, tmp_path: Path
) -> None:
    file.write_text(TOML.replace("heads = 2", "heads = 3"))
    result = cli("train", "--base", file, "--data", texts)
    assert result.code == 5
    assert "toy.toml" in result.err and "heads" in result.err
    assert cli("train", "--base", tmp_path / "no.toml", "--data", texts).code == 3
    file.write_text('format = 1\nname = "t"\ndescription = "d"\nlicense = "MIT"\ncontinues = "x"\n')
    result = cli("train", "--base", file, "--data", texts)
    assert result.code == 3
    assert "mbpm base install x" in result.err
