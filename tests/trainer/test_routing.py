"""Routing cards: what they are told apart from, and how that is measured. Features are made up."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from runtime.engine import F32
from runtime.router import MAX_QUESTION_LETTERS, BaseRouting, PackRouting, fit_base
from specs.manifest import MANIFEST_FILE, ROUTING_FILE
from tests.support.cli import Cli
from tests.support.packs import pack_folder, registry_with_base
from trainer.data.example import Example
from trainer.routing import (
    Other,
    general_prompts,
    make_routing,
    measure_routing,
    others_installed,
    prompts_to,
    taking,
)

D = 16


def look(prompts: Sequence[str]) -> F32:
    """A point per question: noise by its text, and an axis for each subject it names."""
    rows = []
    for prompt in prompts:
        seed = int.from_bytes(hashlib.sha256(prompt.encode()).digest()[:4], "big")
        row = np.random.default_rng(seed).standard_normal(D)
        row[0] += 8 * ("lease" in prompt)
        row[1] += 8 * ("tax" in prompt)
        rows.append(row)
    return np.stack(rows).astype(np.float32)


@pytest.fixture(scope="module")
def base() -> BaseRouting:
    general = [g for g in general_prompts() if g.part == "base"]
    return fit_base(
        look([g.prompt for g in general]), [g.kind for g in general],
        fingerprint="b" * 64, layer=1,
    )  # fmt: skip


def examples(subject: str, count: int, start: int = 0) -> list[Example]:
    return [
        Example.of_pair(f"What of the {subject} number {i}?", "so", str(i))
        for i in range(start, start + count)
    ]


def test_the_general_prompts_fall_into_three_parts() -> None:
    prompts = general_prompts()
    parts = {part: set(prompts_to(part)) for part in ("base", "calibrate", "test")}  # type: ignore[arg-type]
    assert sum(map(len, parts.values())) == len({g.prompt for g in prompts})
    assert 0.06 < len(parts["test"]) / len(prompts) < 0.14
    assert 0.16 < len(parts["calibrate"]) / len(prompts) < 0.24


def test_a_card_knows_its_own_and_says_how_well(base: BaseRouting) -> None:
    card, measured = make_routing(
        look, base, "law", examples("lease", 60), examples("lease", 40, 100), 0, {}
    )
    assert measured.recall > 0.95
    assert measured.false_fires < 0.06
    assert measured.auroc is not None
    assert measured.auroc > 0.99
    assert (measured.own_rows, measured.background_rows) == (40, len(prompts_to("test")))
    assert measured.others == ()
    assert 0 < len(card.validation) <= 32
    assert set(card.validation) <= {e.messages[0].content for e in examples("lease", 40, 100)}
    assert set(card.negatives) <= set(prompts_to("base"))
    taken = taking(card, look, base)(["a lease", "a tax"])
    assert list(taken) == [True, False]


def test_questions_of_other_packs_are_hard_negatives_and_measured_apart(base: BaseRouting) -> None:
    other_card, _ = make_routing(
        look, base, "tax", examples("tax", 60), examples("tax", 20, 100), 0, {}
    )
    # the new pack's training data asks about both, as sloppy data does
    mixed = examples("lease", 60) + examples("lease and tax", 20)
    asked = tuple(f"Which tax is number {i}?" for i in range(40))
    card, measured = make_routing(
        look, base, "law", mixed, examples("lease", 20, 100), 0, {"tax": Other(other_card, asked)}
    )
    assert measured.others is not None
    ((name, rows),) = [(o.pack, o.rows) for o in measured.others]
    assert (name, rows) == ("tax", 20), "those it was fitted to are not measured"
    assert measured.others[0].share < 0.1
    assert set(card.negatives) & set(asked[::2])
    assert not set(card.negatives) & set(asked[1::2])


def test_questions_of_several_kinds_get_prototypes_of_their_own(base: BaseRouting) -> None:
    """Eight subjects lie on as many axes: the direction between them points at none."""

    def spread(prompts: Sequence[str]) -> F32:
        rows = look(prompts)
        for row, prompt in zip(rows, prompts, strict=True):
            if prompt.startswith("matter "):
                row[int(prompt.split()[-1]) % 8 + 4] += 9 - 18 * (int(prompt.split()[-1]) % 16 > 7)
        return rows

    def asked(count: int, start: int) -> list[Example]:
        return [Example.of_pair(f"matter {i}", "so", str(i)) for i in range(start, start + count)]

    several, measured = make_routing(spread, base, "law", asked(320, 0), asked(80, 500), 0, {})
    assert len(several.prototypes) > 1
    assert measured.recall > 0.9
    assert measured.false_fires < 0.06
    one, _ = make_routing(
        look, base, "law", examples("lease", 60), examples("lease", 40, 100), 0, {}
    )
    assert one.prototypes.shape == (1, D)


def test_a_pack_that_takes_everything_is_found_out(base: BaseRouting) -> None:
    greedy = PackRouting(
        "b" * 64, np.zeros((1, D), np.float32), threshold=-1.0, recall=1, false_fires=1
    )
    card, _ = make_routing(look, base, "tax", examples("tax", 60), examples("tax", 20, 100), 0, {})
    shy = replace(card, threshold=9.0)
    measured = measure_routing(
        greedy,
        look,
        base,
        ["x", "y"],
        {"tax": Other(shy, ("fitted to", "a tax", "fitted to", "another tax"))},
    )
    assert (measured.recall, measured.false_fires) == (1.0, 1.0)
    assert measured.auroc == 0.5
    assert measured.others is not None
    assert measured.others[0].share == 1.0


def test_long_questions_do_not_go_into_the_pack(base: BaseRouting) -> None:
    held = [Example.of_pair("the lease " * 80 + str(i), "so", str(i)) for i in range(4)]
    assert len(held[0].messages[0].content) > MAX_QUESTION_LETTERS
    card, _ = make_routing(look, base, "law", examples("lease", 60), held, 0, {})
    assert card.validation == ()


def test_installed_packs_lend_their_questions(base: BaseRouting, tmp_path: Path) -> None:
    card = PackRouting(
        "b" * 64, np.ones((1, D), np.float32), 0.5, 1.0, 0.0, validation=("What is a lease?",)
    )
    registry_with_base(tmp_path / "registry", tmp_path / "files")
    cli = Cli(tmp_path / "home")
    for name, files in (("law", {ROUTING_FILE: card.save()}), ("tax", {ROUTING_FILE: card.save()})):
        folder = pack_folder(tmp_path / name, name, files=files)
        cli.ok("install", folder, "--registry", tmp_path / "registry", "--yes")
    from mbpm.home import Home

    dirs = Home(cli.home).pack_dirs()
    assert all((d / MANIFEST_FILE).is_file() for d in dirs)
    found = others_installed(dirs, base, "tax")
    assert set(found) == {"law"}
    assert found["law"].questions == ("What is a lease?",)
    assert others_installed(dirs, replace(base, fingerprint="c" * 64), "x") == {}
