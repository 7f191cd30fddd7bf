"""`mbpm import` and `mbpm export`: from a folder, a file or the Hub to a pack, and back."""

from __future__ import annotations

import json
import re
import shutil
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mbpm.hub_adapter import gguf_kind
from registry_index.publish import publish_base
from specs.base_card import BASE_ROUTING_FILE, CARD_FILE, WEIGHTS_FILE, BaseCard
from specs.evals import Evals
from specs.manifest import Manifest
from tests.support.adapters import random_adapter, write_pack
from tests.support.cli import Cli
from tests.support.model_hub import COMMIT, FakeHub, fake_hub
from tests.support.tiny_base import few_general_prompts, make_tiny_base
from trainer.interchange.export import export

LEGAL = Path(__file__).parents[1] / "data" / "legal-mini.jsonl"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A registry with the base `tiny`, and adapters for it: folders `peft`, `gguf`."""
    folder = tmp_path_factory.mktemp("made")
    base = make_tiny_base(folder)
    card = BaseCard.read(base / CARD_FILE)
    files = {p: base / p for p in (WEIGHTS_FILE, BASE_ROUTING_FILE)}
    publish_base(card, folder / "registry", files)
    pack = write_pack(folder / "p", card, random_adapter(card, 4, 1), 4, 8.0, "full")
    manifest = Manifest.read(pack / "manifest.json")
    for to in ("peft", "gguf"):
        (folder / to).mkdir()
        export(base, pack, manifest, to, folder / to, say=lambda _: None)  # type: ignore[arg-type]
    card_text = "---\nlicense: apache-2.0\nlibrary_name: peft\n---\n# An adapter\n"
    (folder / "peft" / "README.md").write_text(card_text)
    return folder


@pytest.fixture
def ready(cli: Cli, made: Path) -> Cli:
    cli.ok("base", "install", "tiny", "--registry", made / "registry", "--yes")
    return cli


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, made: Path) -> Iterator[FakeHub]:
    with fake_hub(monkeypatch, tmp_path / "hub-cache") as hub:
        hub.add("ada/recipes-lora", made / "peft")
        yield hub


def test_a_peft_folder_becomes_a_pack_that_is_installed_asked_and_not_published(
    ready: Cli, made: Path, tmp_path: Path
) -> None:
    pack = tmp_path / "recipes-pack"
    done = ready.ok("import", made / "peft", "--name", "recipes", "--output", pack)
    assert "max difference" in done.out and "same likeliest token 100.0%" in done.out
    assert "licence  Apache-2.0" in done.out
    assert "acts on full" in done.out
    assert "cannot be proven" not in done.err, "our own export names its base"
    assert "nothing was measured" in done.err and "`mbpm run --pack recipes`" in done.err
    ready.ok("install", pack, "--yes")
    ready.ok("verify", "--deep")
    asked = ("run", "What is copyleft?", "--json", "--temperature", 0, "--max-tokens", 8)
    assert ready.ok(*asked, "--pack", "recipes").json["packs"] == ["recipes"]
    for canary in Manifest.read(next((ready.home / "store").rglob("manifest.json"))).canaries:
        assert canary.base != canary.pack
    assert ready.ok(*asked).json["packs"] == [], "no question is routed to it"
    assert "nothing was measured" in ready.ok("show", "recipes").out

    refused = ready("publish", pack, "--registry", made / "registry", "--yes")
    assert refused.code == 9
    assert "nothing was measured" in refused.err


def test_with_questions_it_is_routed_and_can_be_measured(
    ready: Cli, made: Path, tmp_path: Path
) -> None:
    pack = tmp_path / "legal-pack"
    with few_general_prompts():
        done = ready.ok(
            "import", made / "peft", "--name", "legal", "--data", LEGAL, "--output", pack
        )
        assert f"`mbpm eval {pack} --save`" in done.err
        evals = Evals.read(pack / "evals.json")
        assert evals.metrics == () and evals.routing is not None and evals.routing.own_rows > 10
        measured = ready.ok("eval", pack, "--save", "--limit", 10, "--json").json
    assert measured["saved"] is True
    evals = Evals.read(pack / "evals.json")
    assert evals.metrics and evals.off_domain is not None


def test_a_gguf_adapter_becomes_a_pack(ready: Cli, made: Path, tmp_path: Path) -> None:
    file = made / "gguf" / "adapter.gguf"
    done = ready.ok("import", file, "--output", tmp_path / "p", "--json", "--license", "MIT").json
    assert done["pack"] == {"name": "adapter", "version": "0.1.0", "license": "MIT"}
    assert done["base"]["proven"] is True
    assert done["adapter"]["activation"] == "full"
    assert done["agreement"]["max_difference"] < 1e-3
    assert done["agreement"]["effect"] > 0.1


def test_from_the_hub(ready: Cli, hub: FakeHub, tmp_path: Path) -> None:
    done = ready.ok("import", "hf:ada/recipes-lora", "--output", tmp_path / "p", "--json").json
    assert done["pack"]["name"] == "recipes-lora"
    assert done["pack"]["license"] == "Apache-2.0"
    toml = (tmp_path / "p" / "pack.toml").read_text()
    assert "hf:ada/recipes-lora" in toml and COMMIT in toml
    again = ready.ok("import", f"hf:ada/recipes-lora@{COMMIT}", "--output", tmp_path / "q")
    assert "imported recipes-lora" in again.out


def test_a_gguf_file_of_the_hub_is_fetched_if_it_is_an_adapter(
    ready: Cli, hub: FakeHub, made: Path, tmp_path: Path
) -> None:
    hub.add("ada/recipes-gguf", made / "gguf")
    done = ready.ok("import", "hf:ada/recipes-gguf", "--output", tmp_path / "p", "--json").json
    assert done["agreement"]["max_difference"] < 1e-3
    weights = next(made.rglob(WEIGHTS_FILE))
    hub.repos["ada/model"] = {"model.gguf": weights.read_bytes()}
    hub.requests.clear()
    result = ready("import", "hf:ada/model", "--output", tmp_path / "q")
    assert result.code == 2
    assert "hf:ada/model: model.gguf is no adapter" in result.err
    assert "mbpm base install" in result.err
    asked = [r for r in hub.requests if "model.gguf" in r]
    assert len(asked) == 1, "its first bytes alone"


@given(st.binary(max_size=64), st.integers(min_value=0))
def test_the_first_bytes_of_a_file_that_is_none_say_nothing(data: bytes, pairs: int) -> None:
    assert gguf_kind(data) is None
    head = b"GGUF" + struct.pack("<IQQ", 3, 0, pairs % (1 << 64))
    assert gguf_kind(head + data) is None


@pytest.mark.parametrize(
    ("reference", "code", "words"),
    [
        ("hf:ada/nothing", 3, "no such repository at the hub"),
        ("hf:ada/recipes-lora@v9", 3, "no such revision at the hub"),
        ("hf:ada", 2, "OWNER/NAME"),
        ("hf:ada/pickled", 2, "pickle"),
        ("hf:ada/empty", 2, "no adapter"),
    ],
)
def test_what_the_hub_does_not_have(
    ready: Cli, hub: FakeHub, tmp_path: Path, reference: str, code: int, words: str
) -> None:
    hub.repos["ada/pickled"] = {"adapter_config.json": b"{}", "adapter_model.bin": b"x"}
    hub.repos["ada/empty"] = {"README.md": b"# nothing"}
    result = ready("import", reference, "--output", tmp_path / "p")
    assert result.code == code, result
    assert words in result.err
    assert not (tmp_path / "p").exists()
    assert not any("adapter_model.bin" in r for r in hub.requests)


@pytest.mark.parametrize(
    ("status", "error", "code"),
    [(403, "GatedRepo", 7), (401, None, 7), (500, None, 6)],
)
def test_a_hub_that_refuses(
    ready: Cli, hub: FakeHub, tmp_path: Path, status: int, error: str | None, code: int
) -> None:
    hub.status, hub.code = status, error
    result = ready("import", "hf:ada/recipes-lora", "--output", tmp_path / "p")
    assert result.code == code, result


def test_offline_asks_nobody(ready: Cli, hub: FakeHub, tmp_path: Path) -> None:
    result = ready("--offline", "import", "hf:ada/recipes-lora", "--output", tmp_path / "p")
    assert result.code == 6
    assert hub.requests == []


def test_without_a_fingerprint_the_base_is_not_proven(
    ready: Cli, made: Path, tmp_path: Path
) -> None:
    from safetensors.torch import load_file, save_file

    folder = Path(shutil.copytree(made / "peft", tmp_path / "theirs"))
    weights = folder / "adapter_model.safetensors"
    save_file(load_file(weights), weights)
    config = folder / "adapter_config.json"
    values = json.loads(config.read_text()) | {"base_model_name_or_path": "someone/Other-1B"}
    config.write_text(json.dumps(values))
    (folder / "README.md").unlink()
    result = ready.ok("import", folder, "--output", tmp_path / "p")
    assert "names `someone/Other-1B` as its base" in result.err
    assert "cannot be proven" in result.err
    assert "no licence is known" in result.err


def test_wrong_arguments(ready: Cli, made: Path, tmp_path: Path) -> None:
    there = tmp_path / "there"
    there.mkdir()
    (there / "x").write_text("x")
    for arguments, code, words in (
        (("import", tmp_path / "nowhere"), 3, "no such file"),
        (("import", "ada/recipes-lora"), 3, "hf:ada/recipes-lora"),
        (("import", made / "peft", "--output", there), 2, "is there already"),
        (("import", made / "peft", "--name", "No Name"), 2, "No Name"),
        (("import", made / "peft", "--base", "other"), 3, "other"),
        (("import", made / "registry"), 3, "adapter_config.json"),
        (("import", made / "peft" / "adapter_model.safetensors"), 2, "no adapter"),
        (("export", "nowhere", "--to", "peft", tmp_path / "x"), 3, "nowhere"),
        (("export", "nowhere", "--to", "onnx", tmp_path / "x"), 2, "onnx"),
        (("export", "p", "--to", "peft", "--type", "F16", tmp_path / "x"), 2, "merged-gguf"),
        (("export", "p", "--to", "gguf", there), 2, "no empty folder"),
        (("export", "p", "--to", "merged-gguf", "--type", "Q9", tmp_path / "x"), 2, "Q9"),
    ):
        result = ready(*arguments)
        assert result.code == code, (arguments, result)
        assert words in result.err, (arguments, result)


def test_no_base_installed(cli: Cli, made: Path, tmp_path: Path) -> None:
    result = cli("import", made / "peft", "--output", tmp_path / "p")
    assert result.code == 3
    assert "mbpm base install" in result.err


@pytest.mark.parametrize("to", ["peft", "gguf", "merged-gguf", "ollama"])
def test_an_installed_pack_is_exported(ready: Cli, made: Path, tmp_path: Path, to: str) -> None:
    pack = tmp_path / "recipes-pack"
    ready.ok("import", made / "peft", "--name", "recipes", "--output", pack)
    ready.ok("install", pack, "--yes")
    if to == "gguf":
        # what a killed command leaves, in a folder that was there
        left = tmp_path / "out" / ".partial"
        left.mkdir(parents=True)
        (left / "adapter.gguf").write_bytes(b"GGU")
    elif to == "peft":
        left = tmp_path / ".out.partial"
        left.mkdir()
        (left / "adapter_model.safetensors").write_bytes(b"{")
    done = ready.ok("export", "recipes", "--to", to, tmp_path / "out", "--json").json
    assert not (tmp_path / ".out.partial").exists()
    assert {f.name for f in (tmp_path / "out").iterdir()} == set(done["files"])
    assert any("routing" in what for what in done["lost"])
    assert done["agreement"]["positions"] > 50
    if to in ("peft", "gguf"):
        assert done["agreement"]["max_difference"] == 0
        assert ready.ok("export", str(pack), "--to", to, tmp_path / "again").out
    if to == "ollama":
        said = instructions((tmp_path / "out" / "Modelfile").read_text())
        assert (tmp_path / "out" / said["FROM"][0]).is_file()
        assert said["TEMPLATE"][0].endswith("<|im_start|>assistant\n")
        assert {"stop <|im_start|>", "stop <|im_end|>"} <= set(said["PARAMETER"])
        assert said["LICENSE"]


def instructions(text: str) -> dict[str, list[str]]:
    """A Modelfile as Ollama's parser reads it: a word, a space, a value to the end of the line or
    of its quotation marks. It takes no other words, and none for adapters any more."""
    known = "FROM|TEMPLATE|SYSTEM|PARAMETER|LICENSE|MESSAGE|REQUIRES|RENDERER|PARSER|DRAFT"
    one = re.compile(rf'({known}) +(?:"""(.*?)"""|((?:\w+ +)?)(?:"([^"\n]*)"|([^"\n]+)))\n+', re.S)
    found: dict[str, list[str]] = {}
    at = 0
    while at < len(text):
        match = one.match(text, at)
        assert match is not None, text[at : at + 80]
        name, *parts = match.groups()
        found.setdefault(name, []).append("".join(part or "" for part in parts))
        at = match.end()
    return found


def test_an_export_that_is_interrupted_leaves_nothing(
    ready: Cli, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pack = tmp_path / "recipes-pack"
    ready.ok("import", made / "peft", "--name", "recipes", "--output", pack)

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("trainer.interchange.export._compare", interrupted)
        assert ready("export", pack, "--to", "gguf", tmp_path / "out").code == 130
    assert [f.name for f in tmp_path.iterdir() if "out" in f.name] == []
    ready.ok("export", pack, "--to", "gguf", tmp_path / "out")
