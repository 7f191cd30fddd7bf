"""The table of a base's packs: it says what the packs say, or is not believed."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save

from runtime.chat_format import ChatFormat
from runtime.features import features
from runtime.router import BaseRouting, PackRouting, Router, fit_pack
from runtime.routing_table import ALIKE, Row, build_table, read_table
from runtime.tokenizer import Tokenizer
from runtime.torch_engine import TorchEngine
from specs.base_card import BASE_ROUTING_FILE, CARD_FILE, WEIGHTS_FILE, BaseCard
from specs.errors import IntegrityError
from specs.safetensors_header import read_header
from tests.support.real_home import FRUIT, GENERAL
from trainer.data.natural_questions import natural_questions

D = 40
RNG = np.random.default_rng(5)
BASE = BaseRouting(
    "b" * 64,
    3,
    RNG.standard_normal(D).astype(np.float32),
    (RNG.standard_normal((D, D)) / 4).astype(np.float16).astype(np.float32),
)
OTHER = BaseRouting("c" * 64, 3, BASE.mean, BASE.whitening)


def routing(prototype: np.ndarray | None = None) -> PackRouting:
    if prototype is None:
        prototype = RNG.standard_normal((1, D))
    threshold, recall, fires = RNG.uniform(0.1, 0.9, 3)
    return PackRouting(
        BASE.fingerprint,
        np.atleast_2d(prototype).astype(np.float32),
        float(threshold),
        float(recall),
        float(fires),
    )


PACKS = {name: routing() for name in ("law", "medicine", "a-third")} | {
    "weather": routing(RNG.standard_normal((3, D)))
}
MANIFESTS = {name: f"{i:064x}" for i, name in enumerate(PACKS)}
ROWS = [Row(n, MANIFESTS[n], r) for n, r in PACKS.items()]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "router.safetensors"
    file.write_bytes(build_table(BASE, ROWS))
    return file


def test_decisions_are_those_of_the_packs_read_one_by_one(file: Path, tmp_path: Path) -> None:
    alone = {}
    for name, pack in PACKS.items():
        single = tmp_path / f"{name}.safetensors"
        single.write_bytes(pack.save())
        alone[name] = PackRouting.load(single, BASE)
    one_by_one = Router(BASE, alone)
    together = Router(BASE, read_table(file).routings(BASE, MANIFESTS))
    chosen = set()
    for feature in RNG.standard_normal((300, D)).astype(np.float32) * 3:
        expected = one_by_one.decide(feature)
        assert together.decide(feature) == expected  # every score to the last bit
        chosen.add(expected.pack)
    assert len(chosen) == len(PACKS) + 1


def test_any_safetensors_reader_reads_it(file: Path) -> None:
    prototypes = load_file(file)["prototypes"]
    names = [row[0] for row in json.loads(read_header(file).metadata["packs"])]
    assert names == sorted(PACKS)
    together = np.concatenate([PACKS[name].prototypes for name in names])
    np.testing.assert_array_equal(prototypes, together)


def test_a_table_of_another_base_or_other_packs_does_not_fit(file: Path) -> None:
    table = read_table(file)
    with pytest.raises(IntegrityError, match="another base"):
        table.routings(OTHER, MANIFESTS)
    fewer = dict(list(MANIFESTS.items())[1:])
    upgraded = MANIFESTS | {"law": "f" * 64}
    renamed = {("lore" if n == "law" else n): d for n, d in MANIFESTS.items()}
    for others in (fewer, upgraded, renamed, MANIFESTS | {"more": "e" * 64}, {}):
        with pytest.raises(IntegrityError, match="other packs"):
            table.routings(BASE, others)


def test_prototypes_that_are_no_numbers_or_of_another_width(tmp_path: Path) -> None:
    file = tmp_path / "t"
    bad = PackRouting(BASE.fingerprint, np.full((1, D), np.nan, np.float32), 0.5, 1.0, 0.0)
    wide = PackRouting(BASE.fingerprint, np.ones((1, 2 * D), np.float32), 0.5, 1.0, 0.0)
    for pack in (bad, wide):
        file.write_bytes(build_table(BASE, [Row("law", "1" * 64, pack)]))
        with pytest.raises(IntegrityError, match="do not fit"):
            read_table(file).routings(BASE, {"law": "1" * 64})


@settings(max_examples=150, deadline=None)
@given(at=st.integers(0, 1 << 20), value=st.integers(0, 255))
def test_no_damaged_byte_is_believed(
    tmp_path_factory: pytest.TempPathFactory, at: int, value: int
) -> None:
    file = tmp_path_factory.getbasetemp() / "damaged.safetensors"
    raw = bytearray(build_table(BASE, ROWS))
    at %= len(raw)
    changed = raw[at] != value
    raw[at] = value
    file.write_bytes(raw)
    try:
        found = read_table(file).routings(BASE, MANIFESTS)
    except IntegrityError:
        assert changed
        return
    # white space between the header's parts says nothing
    for name, pack in PACKS.items():
        assert found[name].threshold == pack.threshold
        np.testing.assert_array_equal(found[name].prototypes, pack.prototypes)


@pytest.mark.parametrize("cut", [0, 5, 100, -1])
def test_a_truncated_table(file: Path, cut: int) -> None:
    file.write_bytes(file.read_bytes()[:cut])
    with pytest.raises(IntegrityError):
        read_table(file)


def test_other_files_are_no_tables(file: Path) -> None:
    for raw in (
        save({"prototypes": np.ones((1, D), np.float32)}),
        save({"prototypes": np.ones((1, D), np.float32)}, {"format": "1"}),
        save({"prototype": np.ones(D, np.float32)}, {"format": "1", "base": "b" * 64}),
        BASE.save(),
        struct.pack("<Q", 1 << 40) + b"{}",
        b"SQLite format 3\0" * 20,
    ):
        file.write_bytes(raw)
        with pytest.raises(IntegrityError):
            read_table(file)


def test_packs_that_answer_alike_are_found(tmp_path: Path) -> None:
    law, lease = routing(), routing()
    near = routing(law.prototypes[0] + 0.4 * RNG.standard_normal(D) * np.std(law.prototypes))
    rows = [Row("law", "1" * 64, law), Row("legal", "2" * 64, near), Row("lease", "3" * 64, lease)]
    file = tmp_path / "t"
    file.write_bytes(build_table(BASE, rows))
    (pair,) = read_table(file).rivals
    assert (pair.one, pair.other) == ("law", "legal")
    a, b = law.prototypes[0].astype(np.float64), near.prototypes[0].astype(np.float64)
    cosine = a @ b / np.linalg.norm(a) / np.linalg.norm(b)
    assert pair.similarity == pytest.approx(cosine, abs=1e-4)
    assert cosine > ALIKE


def test_the_same_ground_is_told_from_another_on_a_real_base(smollm2: Path, tmp_path: Path) -> None:
    """Packs of two halves of the same questions compete, one about something else does not."""
    weights = smollm2 / WEIGHTS_FILE
    chat = ChatFormat.from_gguf(weights, Tokenizer.from_gguf(weights))
    card = BaseCard.read(smollm2 / CARD_FILE)
    base = BaseRouting.load(smollm2 / BASE_ROUTING_FILE, card.fingerprint)
    engine = TorchEngine(smollm2, device="cpu", layers=base.layer + 1)
    medical = natural_questions("medical", 160, 0)
    ground = {"one": medical[::2], "two": medical[1::2], "fruit": FRUIT}
    general = features(engine, chat, GENERAL, base.layer)
    rows = []
    for number, (name, questions) in enumerate(ground.items()):
        own = features(engine, chat, questions, base.layer)
        rows.append(Row(name, f"{number:064x}", fit_pack(base, own, own, general)))
    (tmp_path / "t").write_bytes(build_table(base, rows))
    assert [{p.one, p.other} for p in read_table(tmp_path / "t").rivals] == [{"one", "two"}]


def test_a_pack_alone_has_no_rival(tmp_path: Path) -> None:
    (tmp_path / "t").write_bytes(build_table(BASE, ROWS[:1]))
    assert read_table(tmp_path / "t").rivals == ()
