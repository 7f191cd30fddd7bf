"""From data to a folder that packs, attaches, routes and replays its canaries."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from registry_index.packing import build_manifest
from runtime.canaries import replay
from runtime.chat_format import ChatFormat
from runtime.router import BaseRouting, PackRouting
from runtime.tokenizer import Tokenizer
from runtime.torch_engine import TorchEngine
from specs.base_card import BASE_ROUTING_FILE, CARD_FILE, WEIGHTS_FILE, BaseCard
from specs.errors import UsageError
from specs.evals import Evals
from specs.manifest import ADAPTER_FILE, EVALS_FILE, MANIFEST_FILE, README_FILE, ROUTING_FILE
from specs.pack_toml import PACK_TOML, read_pack_toml
from tests.support.tiny_base import few_general_prompts, make_tiny_base
from trainer.config import TrainingConfig
from trainer.data.example import Example
from trainer.data.reading import read_dataset
from trainer.data.split import split_by_group
from trainer.loop import StepReport
from trainer.make_pack import Made, make_pack
from trainer.pack_folder import PackSpec, write_pack_folder
from trainer.scoring import Tick, unwatched

DATA = Path(__file__).parents[1] / "data" / "legal-mini.jsonl"
SPEC = PackSpec("legal", "0.1.0", "legal", "legal words", "CC0-1.0")


@dataclass
class Silent:
    stages: list[str] = field(default_factory=list)

    def stage(self, text: str) -> None:
        self.stages.append(text)

    def step(self, report: StepReport) -> None:
        assert report.steps >= report.step

    def part(self, text: str, rows: int) -> Tick:
        return unwatched


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    made = make_tiny_base(tmp_path_factory.mktemp("bases"))
    card = BaseCard.parse((made / CARD_FILE).read_bytes(), CARD_FILE)
    assert {f.blob.path for f in card.files} == {WEIGHTS_FILE, BASE_ROUTING_FILE}
    with few_general_prompts():
        yield made


def made(base: Path, output: Path, **changes: object) -> Made:
    split = split_by_group(read_dataset(DATA), fraction=0.25, seed=0)
    config = TrainingConfig(
        rank=4, epochs=3, learning_rate=0.01, batch_tokens=1500, max_length=400
    ).model_copy(update=changes)
    return make_pack(
        base, SPEC, split.train, split.held_out, config, output, Silent(), device="cpu"
    )


@pytest.mark.parametrize("activation", ["answer", "full"])
def test_the_folder_holds_a_pack_that_is_what_was_measured(
    base: Path, tmp_path: Path, activation: str
) -> None:
    result = made(base, tmp_path / "legal", activation=activation)
    metric = result.evals.metrics[0]
    assert metric.name == "response_perplexity"
    assert metric.gain_low > 0, "training on a quarter of these rows must help on the others"
    (note,) = result.evals.notes
    assert "held-out rows also chose the best of 3 adapters" in note
    assert note in (tmp_path / "legal" / README_FILE).read_text("utf-8")
    assert read_pack_toml(tmp_path / "legal") == result.pack
    evals = (tmp_path / "legal" / EVALS_FILE).read_bytes()
    assert Evals.parse(evals, "evals") == result.evals

    manifest, files = build_manifest(tmp_path / "legal")
    assert manifest.adapter.activation == activation
    installed = tmp_path / "installed"
    installed.mkdir()
    for name, file in files.items():
        shutil.copyfile(file, installed / name)
    (installed / MANIFEST_FILE).write_bytes(manifest.canonical())

    engine = TorchEngine(base, device="cpu")
    tokenizer = Tokenizer.from_gguf(base / WEIGHTS_FILE)
    chat = ChatFormat.from_gguf(base / WEIGHTS_FILE, tokenizer)
    assert len(manifest.canaries) == 3
    assert list(replay(engine, chat, manifest, engine.load_adapter(installed))) == []

    routing = BaseRouting.load(base / BASE_ROUTING_FILE, manifest.base.fingerprint)
    pack = PackRouting.load(installed / ROUTING_FILE, routing)
    assert result.evals.routing is not None
    assert pack.recall == result.evals.routing.recall

    changed = load_file(installed / ADAPTER_FILE)
    for name in changed:
        if "lora_B" in name:
            changed[name] = torch.flip(changed[name], dims=[0]).contiguous() * 3
    save_file(changed, installed / ADAPTER_FILE)
    problems = list(replay(engine, chat, manifest, engine.load_adapter(installed)))
    assert problems
    assert all("pack gives token" in p for p in problems)


def test_a_base_without_routing_data_is_named(base: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    shutil.copytree(base, bare)
    (bare / BASE_ROUTING_FILE).unlink()
    with pytest.raises(UsageError, match=BASE_ROUTING_FILE):
        made(bare, tmp_path / "legal", epochs=1)


def test_questions_longer_than_the_base_reads_are_cut_and_take_no_part_in_routing(
    base: Path, tmp_path: Path
) -> None:
    context = BaseCard.read(base / CARD_FILE).context_length
    split = split_by_group(read_dataset(DATA), fraction=0.25, seed=0)
    long = Example.of_pair("a word of law " * context, "Too long to be read.", "long")
    config = TrainingConfig(
        rank=4, epochs=1, learning_rate=0.01, batch_tokens=1500, max_length=9 * context
    )
    result = make_pack(
        base, SPEC, [*split.train, long], [*split.held_out, long], config, tmp_path / "legal",
        Silent(), device="cpu",
    )  # fmt: skip
    assert result.evals.routing is not None
    assert result.evals.routing.own_rows == len({e.messages[0].content for e in split.held_out})


def test_answers_longer_than_the_limit_are_refused(base: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="longer than 16 tokens") as caught:
        made(base, tmp_path / "legal", max_length=16)
    assert caught.value.hint is not None and "--max-length" in caught.value.hint


def test_a_kill_while_a_pack_is_written_over_leaves_no_mixture(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "legal"
    result = made(base, folder, epochs=1)
    replace = Path.replace

    def killed(self: Path, target: Path) -> Path:
        if target.name == EVALS_FILE:
            raise KeyboardInterrupt
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", killed)
    tensors = load_file(folder / ADAPTER_FILE)
    with pytest.raises(KeyboardInterrupt):
        write_pack_folder(folder, result.pack, tensors, b"", result.evals)
    assert not (folder / PACK_TOML).exists()
