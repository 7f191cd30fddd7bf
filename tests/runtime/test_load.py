"""Loading a base with its packs: the table saves time and decides nothing."""

from __future__ import annotations

import shutil
from pathlib import Path
from unittest import mock

import numpy as np
import pytest

from runtime.chat_format import ChatFormat
from runtime.features import features
from runtime.load import decide, load
from runtime.router import BaseRouting, PackRouting
from runtime.routing_table import Row, build_table
from runtime.sampling import Sampling
from runtime.session import Routed
from runtime.tokenizer import Tokenizer
from runtime.torch_engine import TorchEngine
from specs.base_card import BASE_ROUTING_FILE, CARD_FILE, WEIGHTS_FILE, BaseCard
from specs.errors import DoesNotFitError
from specs.manifest import MANIFEST_FILE, ROUTING_FILE, Manifest
from tests.support.packs import pack_toml
from tests.support.tiny_base import make_tiny_base

QUESTIONS = ["What is a hinge?", "in the thin thing", ""]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def whitening(base: Path) -> BaseRouting:
    card = BaseCard.read(base / CARD_FILE)
    return BaseRouting.load(base / BASE_ROUTING_FILE, card.fingerprint)


@pytest.fixture
def packs(base: Path, whitening: BaseRouting, tmp_path: Path) -> list[Path]:
    """Installed folders as far as routing looks at them."""
    rng = np.random.default_rng(0)
    folders = []
    for name in ("legal", "medical"):
        folder = tmp_path / name
        folder.mkdir()
        prototype = rng.standard_normal((1, whitening.mean.size)).astype(np.float32)
        routing = PackRouting(whitening.fingerprint, prototype, 0.2, 1.0, 0.0)
        (folder / ROUTING_FILE).write_bytes(routing.save())
        files = ("adapter.safetensors", ROUTING_FILE, "evals.json", "README.md")
        value = pack_toml(name) | {
            "base": {"name": "tiny", "fingerprint": whitening.fingerprint},
            "blobs": [
                {"path": f, "size": 0, "sha256": "0" * 64, "chunks": []} for f in sorted(files)
            ],
        }
        manifest = Manifest.from_object(value, "test")
        (folder / MANIFEST_FILE).write_bytes(manifest.canonical())
        folders.append(folder)
    return folders


@pytest.fixture
def table(packs: list[Path], whitening: BaseRouting, tmp_path: Path) -> Path:
    rows = [
        Row(
            p.name,
            Manifest.read(p / MANIFEST_FILE).digest(),
            PackRouting.load(p / ROUTING_FILE, whitening),
        )
        for p in packs
    ]
    file = tmp_path / "router.safetensors"
    file.write_bytes(build_table(whitening, rows))
    return file


@pytest.mark.parametrize("question", QUESTIONS)
def test_with_the_table_as_without(
    base: Path, packs: list[Path], table: Path, question: str
) -> None:
    without = decide(base, packs, question, device="cpu")
    assert without is not None
    with mock.patch.object(PackRouting, "load") as unread:
        assert decide(base, packs, question, device="cpu", router_table=table) == without
    unread.assert_not_called()


def test_a_damaged_stale_or_missing_table_changes_nothing(
    base: Path, packs: list[Path], table: Path, tmp_path: Path
) -> None:
    expected = decide(base, packs, QUESTIONS[0], device="cpu")
    good = table.read_bytes()
    for raw in (good[:-1] + bytes([good[-1] ^ 1]), good[: len(good) // 2], b"", b"{}" * 100):
        table.write_bytes(raw)
        assert decide(base, packs, QUESTIONS[0], device="cpu", router_table=table) == expected
    for missing in (tmp_path / "nowhere" / "router.safetensors", tmp_path):
        assert decide(base, packs, QUESTIONS[0], device="cpu", router_table=missing) == expected
    # of more packs than there are now
    table.write_bytes(good)
    fewer = decide(base, packs[:1], QUESTIONS[0], device="cpu", router_table=table)
    assert fewer is not None
    assert [s.pack for s in fewer.scores] == ["legal"]


def test_a_session_uses_the_table_and_decides_alike(
    base: Path, packs: list[Path], table: Path
) -> None:
    expected = decide(base, packs, QUESTIONS[0], device="cpu")
    assert expected is not None
    for file in (packs[0] / ROUTING_FILE, packs[1] / ROUTING_FILE):
        file.unlink()  # the table alone knows now
    loaded = load(base, packs, device="cpu", router_table=table)
    messages = [{"role": "user", "content": QUESTIONS[0]}]
    with mock.patch.object(TorchEngine, "load_adapter", side_effect=AssertionError):
        events = loaded.session().answer(messages, Sampling(), max_tokens=1)
        routed = next(e for e in events if isinstance(e, Routed))
    assert routed.decision.pack == expected.pack
    for one, other in zip(routed.decision.scores, expected.scores, strict=True):
        assert one.pack == other.pack
        assert one.score == pytest.approx(other.score, abs=1e-4)


def test_where_nothing_can_be_routed_there_is_no_decision(
    base: Path, packs: list[Path], tmp_path: Path
) -> None:
    assert decide(base, [], "x", device="cpu") is None
    uncalibrated = tmp_path / "uncalibrated"
    shutil.copytree(base, uncalibrated)
    (uncalibrated / BASE_ROUTING_FILE).unlink()
    assert decide(uncalibrated, packs, "x", device="cpu") is None


def test_a_question_longer_than_the_base_reads(base: Path, packs: list[Path]) -> None:
    with pytest.raises(DoesNotFitError, match="the question is too long") as caught:
        decide(base, packs, "x" * 2000, device="cpu")
    assert caught.value.hint is None


def test_the_first_layers_alone_see_what_the_whole_base_sees(base: Path) -> None:
    weights = base / WEIGHTS_FILE
    chat = ChatFormat.from_gguf(weights, Tokenizer.from_gguf(weights))
    whole, part = TorchEngine(base, device="cpu"), TorchEngine(base, device="cpu", layers=2)
    expected = features(whole, chat, QUESTIONS, 1)
    np.testing.assert_array_equal(features(part, chat, QUESTIONS, 1), expected)
    assert part.memory()["weights"] < whole.memory()["weights"]
