"""The router on clouds whose truth is known, and its files."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from runtime.router import BaseRouting, PackRouting, Router, fit_base, fit_pack
from specs.errors import IntegrityError, UsageError
from specs.safetensors_header import read_header

D = 24
BASE = "b" * 64


class Clouds:
    """General prompts of five kinds, and two packs' prompts beside them, on unequal axes."""

    def __init__(self, seed: int = 0, distance: float = 6.0) -> None:
        self.random = np.random.default_rng(seed)
        self.scales = self.random.uniform(0.1, 30, D)
        self.kinds = [self._centre() for _ in range(5)]
        self.packs = {name: self._centre() * distance / 2 for name in ("law", "medicine")}

    def _centre(self) -> np.ndarray:
        direction = self.random.standard_normal(D)
        return 2 * direction / np.linalg.norm(direction)

    def _around(self, centre: np.ndarray, count: int) -> np.ndarray:
        points = (centre + self.random.standard_normal((count, D)) * 0.5) * self.scales + 3
        return points.astype(np.float32)

    def general(self, count: int) -> tuple[np.ndarray, list[str]]:
        parts = [self._around(c, count // 5) for c in self.kinds]
        return np.concatenate(parts), [str(i) for i in range(5) for _ in range(count // 5)]

    def own(self, pack: str, count: int) -> np.ndarray:
        return self._around(self.packs[pack], count)

    def base(self) -> BaseRouting:
        return fit_base(*self.general(500), fingerprint=BASE, layer=7)

    def pack(self, base: BaseRouting, name: str, count: int = 100) -> PackRouting:
        return fit_pack(base, self.own(name, count), self.own(name, 50), self.general(400)[0])


@pytest.fixture
def clouds() -> Clouds:
    return Clouds()


@pytest.fixture
def router(clouds: Clouds) -> Router:
    base = clouds.base()
    return Router(base, {name: clouds.pack(base, name) for name in clouds.packs})


def test_own_prompts_choose_their_pack(clouds: Clouds, router: Router) -> None:
    for name in clouds.packs:
        chosen = [router.decide(f).pack for f in clouds.own(name, 200)]
        assert chosen.count(name) >= 190


def test_general_prompts_choose_no_pack(clouds: Clouds, router: Router) -> None:
    chosen = [router.decide(f).pack for f in clouds.general(500)[0]]
    assert chosen.count(None) >= 475


def test_a_few_prompts_of_its_own_suffice(clouds: Clouds) -> None:
    base = clouds.base()
    router = Router(base, {"law": clouds.pack(base, "law", count=10)})
    assert [router.decide(f).pack for f in clouds.own("law", 100)].count("law") >= 90
    assert [router.decide(f).pack for f in clouds.general(500)[0]].count("law") <= 25


def test_scores_run_from_the_general_prompt_to_the_own_one(clouds: Clouds) -> None:
    base = clouds.base()
    train = clouds.own("law", 300)
    pack = fit_pack(base, train, clouds.own("law", 50), clouds.general(400)[0])
    assert np.mean(pack.score(base.whiten(train))) == pytest.approx(1, abs=1e-3)
    assert np.mean(pack.score(base.whiten(clouds.general(2000)[0]))) == pytest.approx(0, abs=0.1)
    assert 0 < pack.threshold < 1


def test_recall_and_false_fires_are_what_fresh_prompts_show(clouds: Clouds) -> None:
    clouds = Clouds(seed=3, distance=2.0)
    base = clouds.base()
    pack = fit_pack(base, clouds.own("law", 300), clouds.own("law", 500), clouds.general(1000)[0])
    fresh = pack.score(base.whiten(clouds.own("law", 2000))) >= pack.threshold
    fires = pack.score(base.whiten(clouds.general(5000)[0])) >= pack.threshold
    assert 0.3 < pack.recall < 1  # overlapping clouds: neither figure is trivial
    assert np.mean(fresh) == pytest.approx(pack.recall, abs=0.06)
    assert np.mean(fires) == pytest.approx(pack.false_fires, abs=0.02)


def test_whitening_does_not_mind_the_scale_of_an_axis(clouds: Clouds) -> None:
    features, kinds = clouds.general(500)
    own = clouds.own("law", 100)
    stretch = np.geomspace(0.1, 10, D).astype(np.float32)
    scores = []
    for s in (np.ones(D, np.float32), stretch):
        base = fit_base(features * s, kinds, fingerprint=BASE, layer=7)
        pack = fit_pack(base, own[:80] * s, own[80:] * s, features * s)
        scores.append(pack.score(base.whiten(own * s)))
    np.testing.assert_allclose(scores[0], scores[1], atol=0.02)


def test_a_large_kind_does_not_drown_the_others(clouds: Clouds) -> None:
    features, kinds = clouds.general(100)
    more = np.repeat(features[:20], 50, axis=0)
    plain = fit_base(features, kinds, fingerprint=BASE, layer=7)
    drowned = fit_base(
        np.concatenate([features, more]), kinds + ["0"] * len(more), fingerprint=BASE, layer=7
    )
    towards = np.linalg.norm((features[:20].mean(0) - plain.mean) / clouds.scales)
    moved = np.linalg.norm((drowned.mean - plain.mean) / clouds.scales)
    assert moved < 0.7 * towards


def test_the_reason_says_what_happened(clouds: Clouds, router: Router) -> None:
    decision = router.decide(clouds.own("law", 1)[0])
    first, second = decision.scores
    assert (first.pack, second.pack) == ("law", "medicine")
    assert first.score >= first.threshold
    assert f"above its threshold {first.threshold:.2f}" in first.reason
    assert f"below its threshold {second.threshold:.2f}" in second.reason


def test_of_two_packs_that_pass_the_one_further_above_wins(clouds: Clouds) -> None:
    base = clouds.base()
    pack = clouds.pack(base, "law")
    eager = replace(pack, threshold=0.0)
    router = Router(base, {"careful": pack, "eager": eager})
    decision = router.decide(clouds.own("law", 1)[0])
    assert {s.pack for s in decision.scores if s.score >= s.threshold} == {"careful", "eager"}
    best = decision.scores[0].pack
    assert decision.pack == best
    assert f"but {best} is further above its own" in decision.scores[1].reason


def test_without_packs_the_base_is_alone(clouds: Clouds) -> None:
    decision = Router(clouds.base(), {}).decide(clouds.own("law", 1)[0])
    assert decision.pack is None
    assert decision.scores == ()


@pytest.mark.parametrize("few", ["own", "general"])
def test_too_few_prompts_are_refused(clouds: Clouds, few: str) -> None:
    base = clouds.base()
    own, general = clouds.own("law", 100), clouds.general(100)[0]
    with pytest.raises(UsageError, match=f"3 {few} prompts are too few"):
        fit_pack(
            base,
            own[:3] if few == "own" else own,
            own,
            general[:3] if few == "general" else general,
        )


def test_files_come_back_with_the_same_decisions(
    clouds: Clouds, router: Router, tmp_path: Path
) -> None:
    base = clouds.base()
    pack = clouds.pack(base, "law")
    base_file, pack_file = tmp_path / "base.safetensors", tmp_path / "pack.safetensors"
    base_file.write_bytes(base.save())
    pack_file.write_bytes(pack.save())
    read_header(base_file)
    loaded = BaseRouting.load(base_file, BASE)
    again = PackRouting.load(pack_file, loaded)
    assert loaded.layer == 7
    assert (again.threshold, again.recall, again.false_fires) == (
        pack.threshold, pack.recall, pack.false_fires,
    )  # fmt: skip
    features = clouds.own("law", 20)
    np.testing.assert_array_equal(
        again.score(loaded.whiten(features)), pack.score(base.whiten(features))
    )


def test_routing_data_of_another_base_is_refused(clouds: Clouds, tmp_path: Path) -> None:
    base = clouds.base()
    file = tmp_path / "routing.safetensors"
    file.write_bytes(clouds.pack(base, "law").save())
    other = replace(base, fingerprint="c" * 64)
    with pytest.raises(IntegrityError, match="made for base bbbbbbbbbbbb, not cccccccccccc"):
        PackRouting.load(file, other)
    file.write_bytes(base.save())
    with pytest.raises(IntegrityError, match="made for base"):
        BaseRouting.load(file, "c" * 64)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prototype": np.full(D, np.nan, np.float32)}, "NaN"),
        ({"prototype": np.ones(D + 1, np.float32)}, "does not fit"),
        ({"prototype": np.ones((D, 1), np.float32)}, "of 1 dimensions"),
        ({"prototype": np.ones(D, np.int32)}, "of 1 dimensions"),
        ({"prototypes": np.ones((2, D + 1), np.float32)}, "`prototypes` does not fit"),
        ({"prototypes": np.ones((17, D), np.float32)}, "at most 16 of 24 numbers"),
        ({"prototypes": np.ones((0, D), np.float32)}, "does not fit"),
        ({"prototypes": np.ones(D, np.float32)}, "of 2 dimensions"),
        ({"other": np.ones(D, np.float32)}, "has no tensor"),
        ({"threshold": "high"}, "`threshold` is not a number"),
        ({"threshold": "inf"}, "`threshold` is not a number"),
        ({"format": "2"}, "format 1"),
        ({"validation": "no list"}, "`validation` is not a list of at most 64 questions"),
        ({"negatives": "[1]"}, "`negatives` is not a list"),
        ({"negatives": "[" * 5000}, "`negatives` is not a list"),
        ({"validation": json.dumps(["q"] * 65)}, "`validation` is not a list"),
        ({"validation": json.dumps(["q" * 501])}, "`validation` is not a list"),
    ],
)
def test_damaged_routing_data_is_refused(
    clouds: Clouds, tmp_path: Path, change: dict[str, object], message: str
) -> None:
    base, file = clouds.base(), tmp_path / "routing.safetensors"
    file.write_bytes(clouds.pack(base, "law").save())
    metadata = {**read_header(file).metadata}
    tensors = dict(load_file(file))
    for key, value in change.items():
        if isinstance(value, str):
            metadata[key] = value
        else:
            tensors = {key: value}
    save_file(tensors, file, metadata)
    with pytest.raises(IntegrityError, match=message):
        PackRouting.load(file, base)


def test_two_kinds_of_prompts_get_two_prototypes(clouds: Clouds, tmp_path: Path) -> None:
    base, file = clouds.base(), tmp_path / "routing.safetensors"
    mixed, unseen = (
        np.concatenate([clouds.own(name, count) for name in clouds.packs]) for count in (100, 50)
    )
    general = clouds.general(400)[0]
    one, two = (fit_pack(base, mixed, unseen, general, kinds=kinds) for kinds in (1, 2))
    assert (len(one.prototypes), len(two.prototypes)) == (1, 2)
    for name in clouds.packs:
        # an average prompt of either kind scores 1
        assert two.score(base.whiten(clouds.own(name, 200))).mean() == pytest.approx(1, abs=0.1)
    assert two.recall == 1.0
    file.write_bytes(two.save())
    assert set(load_file(file)) == {"prototypes"}
    again = PackRouting.load(file, base)
    np.testing.assert_array_equal(again.score(base.whiten(unseen)), two.score(base.whiten(unseen)))
    router = Router(base, {"both": again})
    assert [router.decide(clouds.own(n, 1)[0]).pack for n in clouds.packs] == ["both", "both"]
    file.write_bytes(one.save())
    assert set(load_file(file)) == {"prototype"}, "the form that every version reads"


def test_a_kind_of_few_prompts_gets_none(clouds: Clouds) -> None:
    base, general = clouds.base(), clouds.general(400)[0]
    law, medicine = clouds.own("law", 100), clouds.own("medicine", 7)
    pack = fit_pack(base, np.concatenate([law, medicine]), law, general, kinds=2)
    assert len(pack.prototypes) == 1
    same = np.repeat(law[:1], 20, axis=0)
    assert len(fit_pack(base, same, law, general, kinds=4).prototypes) == 1


def test_questions_come_back(clouds: Clouds, tmp_path: Path) -> None:
    base, file = clouds.base(), tmp_path / "routing.safetensors"
    asked = {"validation": ("What is a lien?", "Was ist § 5?"), "negatives": ("What is a lion?",)}
    pack = replace(clouds.pack(base, "law"), **asked)
    file.write_bytes(pack.save())
    again = PackRouting.load(file, base)
    assert (again.validation, again.negatives) == (pack.validation, pack.negatives)
    file.write_bytes(clouds.pack(base, "law").save())
    assert PackRouting.load(file, base).validation == ()


def test_the_same_card_has_the_same_bytes(clouds: Clouds) -> None:
    base = clouds.base()
    made = replace(clouds.pack(base, "law"), validation=("What is a lien?",))
    assert len({made.save() for _ in range(12)}) == 1
    assert len({base.save() for _ in range(12)}) == 1


def test_hard_negatives_are_told_apart(clouds: Clouds) -> None:
    """A neighbour half-way to the pack's own prompts, which no general prompt is near."""
    clouds.packs["neighbour"] = (
        clouds.packs["law"] * 0.6 + clouds._centre() * np.linalg.norm(clouds.packs["law"]) * 0.3
    )
    base = clouds.base()
    own, held, general = clouds.own("law", 200), clouds.own("law", 200), clouds.general(400)[0]
    plain = fit_pack(base, own, held, general)
    hard = fit_pack(base, own, held, general, clouds.own("neighbour", 40))
    fresh = base.whiten(clouds.own("neighbour", 300))
    fires = [np.mean(p.score(fresh) >= p.threshold) for p in (plain, hard)]
    assert fires[0] > 0.5
    assert fires[1] < fires[0] / 2
    assert hard.recall >= 0.9
    assert np.mean(hard.score(base.whiten(own))) == pytest.approx(1, abs=1e-3)


def test_hard_negatives_may_lie_where_a_kind_does(clouds: Clouds) -> None:
    """Half-way to them lies the middle of that kind: little is left to tell it by."""
    clouds.packs["weak"] = clouds.packs["medicine"] * 0.5
    base, general = clouds.base(), clouds.general(400)[0]
    own = np.concatenate([clouds.own("law", 200), clouds.own("weak", 200)])
    hard = clouds.own("medicine", 60)
    pack = fit_pack(base, own, clouds.own("law", 100), general, hard, kinds=2)
    assert pack.recall >= 0.9, "the other kind is not hurt"
    assert np.mean(pack.score(base.whiten(clouds.own("medicine", 100))) >= pack.threshold) < 0.1
    # alone, it is told apart as well as it can be
    assert fit_pack(base, own[200:], own[200:], general, hard).recall > 0


def test_more_numbers_than_prototypes_are_not_read(clouds: Clouds, tmp_path: Path) -> None:
    base, file = clouds.base(), tmp_path / "routing.safetensors"
    file.write_bytes(clouds.pack(base, "law").save())
    tensors = {**load_file(file), "more": np.ones((16, D), np.float32)}
    save_file(tensors, file, {**read_header(file).metadata})
    with pytest.raises(IntegrityError, match="do not fit the base's features"):
        PackRouting.load(file, base)


def test_a_truncated_file_is_refused(clouds: Clouds, tmp_path: Path) -> None:
    file = tmp_path / "routing.safetensors"
    file.write_bytes(clouds.base().save()[:-10])
    with pytest.raises(IntegrityError, match=r"routing\.safetensors"):
        BaseRouting.load(file, BASE)
