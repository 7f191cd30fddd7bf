"""`mbpm eval`, on a base of random weights and a pack that was really trained on it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from registry_index.packing import build_manifest
from registry_index.publish import publish_base
from specs.base_card import BASE_ROUTING_FILE, CARD_FILE, WEIGHTS_FILE, BaseCard
from specs.evals import Evals
from tests.support.cli import Cli
from tests.support.packs import pack_folder
from tests.support.tiny_base import few_general_prompts, make_tiny_base

DATA = Path(__file__).parents[1] / "data" / "legal-mini.jsonl"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Cli, Path]]:
    """A home with the base `tiny`, and the folder of a pack that was trained on it."""
    folder = tmp_path_factory.mktemp("world")
    made = make_tiny_base(folder)
    card = BaseCard.parse((made / CARD_FILE).read_bytes(), CARD_FILE)
    publish_base(
        card, folder / "registry", {p: made / p for p in (WEIGHTS_FILE, BASE_ROUTING_FILE)}
    )
    cli = Cli(folder / "home")
    with few_general_prompts():
        cli.ok("base", "install", "tiny", "--registry", folder / "registry", "--yes")
        cli.ok(
            "train", "--domain", "legal", "--data", DATA, "--output", folder / "legal-pack",
            "--epochs", 2, "--rank", 4, "--learning-rate", 0.01, "--held-out", 0.25,
        )  # fmt: skip
        yield cli, folder / "legal-pack"


@pytest.fixture
def pack(world: tuple[Cli, Path], tmp_path: Path) -> Path:
    """A copy of the pack folder."""
    return Path(shutil.copytree(world[1], tmp_path / "legal-pack"))


def rows(path: Path, count: int, answer: str = "a tenancy", **more: object) -> Path:
    lines = [
        json.dumps({"prompt": f"What is number {i}?", "response": answer, **more})
        for i in range(count)
    ]
    path.write_text("\n".join(lines), "utf-8")
    return path


def test_a_folder_is_measured_on_what_training_held_out(
    world: tuple[Cli, Path], pack: Path
) -> None:
    cli, _ = world
    trained = Evals.read(pack / "evals.json")
    document = cli.ok("eval", pack, "--json").json
    again = Evals.from_object(document["evals"], "evals")
    # measured on the same rows with the same seed by the same engine
    assert again.metrics == trained.metrics
    assert again.routing == trained.routing
    assert again.off_domain == trained.off_domain
    assert again.notes == trained.notes != ()
    assert again.off_domain is not None
    assert again.off_domain.identical
    assert again.off_domain.active.mean > 0
    assert document["gates"]["passed"] is (document["gates"]["failed"] == [])
    assert document["saved"] is False


def test_save_keeps_it_in_the_folder_and_draws_it(world: tuple[Cli, Path], pack: Path) -> None:
    cli, _ = world
    result = cli.ok("eval", pack, "--limit", 4, "--save")
    kept = Evals.read(pack / "evals.json")
    assert kept.metrics[0].rows == 4
    assert "Measured on 4 of" in kept.notes[-1]
    assert "| response_perplexity |" in (pack / "README.md").read_text("utf-8")
    picture = (pack / "evals.svg").read_text("utf-8")
    assert picture.startswith("<svg ")
    assert all(m.name in picture for m in (*kept.metrics, *kept.off_domain.suites))  # type: ignore[union-attr]
    assert "bit for bit the same" in result.out
    assert "KL to the base" in result.out
    assert "95 % interval" in result.out
    build_manifest(pack)  # the picture and the rows are in nobody's way


def test_figures_of_another_adapter_are_refused_and_made_again(
    world: tuple[Cli, Path], pack: Path, tmp_path: Path
) -> None:
    cli, _ = world
    tensors = load_file(pack / "adapter.safetensors")
    save_file({n: t * np.float16(0.5) for n, t in tensors.items()}, pack / "adapter.safetensors")
    for command in (("pack",), ("publish", "--registry", tmp_path / "registry", "--force")):
        refused = cli(command[0], pack, *command[1:])
        assert refused.code == 5
        assert "its figures are of another adapter" in refused.err
        assert "--save` keeps" not in refused.err
    assert "`--save` keeps this" in cli.ok("eval", pack, "--limit", 4).err
    cli.ok("eval", pack, "--save")
    build_manifest(pack)


def test_an_archive_and_an_installed_pack(
    world: tuple[Cli, Path], pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cli, _ = world
    monkeypatch.chdir(tmp_path)
    data = rows(tmp_path / "mine.jsonl", 3, kind="numbers")
    cli.ok("pack", pack)
    (archive,) = tmp_path.glob("*.mbpack")
    cli.ok("install", pack, "--yes")
    found = [
        cli.ok("eval", what, "--data", data, "--json").json["evals"]["metrics"]
        for what in (archive, "legal")
    ]
    assert found[0] == found[1]
    assert [m["name"] for m in found[0]] == ["response_perplexity", "exact_match_numbers"]
    for what in (archive, "legal"):
        refused = cli("eval", what, "--data", data, "--save")
        assert refused.code == 2
        assert "never changes" in refused.err
    without = cli("eval", "legal")
    assert without.code == 2
    assert "`--data FILE`" in without.err
    cli.ok("remove", "legal", "--yes")


def test_rows_that_training_asked_are_left_out(
    world: tuple[Cli, Path], pack: Path, tmp_path: Path
) -> None:
    cli, _ = world
    refused = cli("eval", pack, "--data", rows_of_training(pack, tmp_path))
    assert refused.code == 2
    assert "rows ask what training asked too" in refused.err
    mixed = tmp_path / "mixed.jsonl"
    own = rows(tmp_path / "own.jsonl", 3).read_text("utf-8")
    mixed.write_text(f"{own}\n{(tmp_path / 'asked.jsonl').read_text('utf-8')}", "utf-8")
    result = cli.ok("eval", pack, "--data", mixed)
    assert "rows left out: training asked the same" in result.err


def rows_of_training(pack: Path, tmp_path: Path) -> Path:
    """The lines of the data that are not in the held-out rows."""
    held = (pack / "evaluation" / "held-out.jsonl").read_text("utf-8")
    lines = [
        line
        for line in DATA.read_text("utf-8").splitlines()
        if json.dumps(json.loads(line)["prompt"], ensure_ascii=False) not in held
    ]
    assert len(lines) > 16
    file = tmp_path / "asked.jsonl"
    file.write_text("\n".join(lines), "utf-8")
    return file


def test_the_base_alone(world: tuple[Cli, Path], tmp_path: Path) -> None:
    cli, _ = world
    result = cli.ok("eval", "--base", "tiny", "--data", rows(tmp_path / "mine.jsonl", 4))
    assert result.out.splitlines()[0].split()[:2] == ["metric", "base"]
    document = cli.ok("eval", "--base", "--json", "--limit", 12).json
    names = [m["name"] for m in document["metrics"]]
    assert "choice_accuracy_general" in names
    for metric in document["metrics"]:
        assert metric["low"] <= metric["value"] <= metric["high"]
    assert document["base"]["name"] == "tiny"


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ((), 2, "say what to evaluate"),
        (("nothing-there",), 3, "neither an installed pack nor a folder or archive"),
        (("--base", "other"), 3, "the base `other` is not installed"),
        (("--base", "--save"), 2, "are for packs"),
        (("x", "--data", "a", "--recipe", "b"), 2, "give one of them"),
        (("x", "--limit", "0"), 2, "limit"),
        (("x", "--picture", "nowhere/x.svg"), 3, "nowhere: no such folder"),
    ],
)
def test_what_cannot_be_evaluated(
    world: tuple[Cli, Path], words: tuple[str, ...], code: int, said: str
) -> None:
    result = world[0]("eval", *words)
    assert result.code == code
    assert said in result.err


def test_one_row_and_no_rows(world: tuple[Cli, Path], pack: Path, tmp_path: Path) -> None:
    cli, _ = world
    one = cli("eval", pack, "--data", rows(tmp_path / "one.jsonl", 1))
    assert one.code == 2
    assert "form 1 group, and an interval needs 2" in one.err
    assert "measuring" not in one.err
    (tmp_path / "none.jsonl").write_text("")
    none = cli("eval", pack, "--data", tmp_path / "none.jsonl")
    assert none.code == 2
    assert "is empty" in none.err
    (pack / "evaluation" / "held-out.jsonl").write_text("")
    kept = cli("eval", pack)
    assert kept.code == 2
    assert "no held-out rows" in kept.err


def test_a_pack_for_another_base(world: tuple[Cli, Path], tmp_path: Path) -> None:
    cli, _ = world
    folder = pack_folder(tmp_path / "p", "law", base={"name": "huge"})
    missing = cli("eval", folder, "--data", rows(tmp_path / "r.jsonl", 3))
    assert missing.code == 3
    assert "made for the base huge, which is not installed" in missing.err
    same_name = cli("eval", pack_folder(tmp_path / "q", "law"), "--data", tmp_path / "r.jsonl")
    assert same_name.code == 3
    assert "the one installed under that name is another" in same_name.err


def test_damaged_held_out_rows(world: tuple[Cli, Path], pack: Path) -> None:
    file = pack / "evaluation" / "held-out.jsonl"
    file.write_text(file.read_text("utf-8") + '{"messages": [], "group": "x"}\n', "utf-8")
    result = world[0]("eval", pack)
    assert result.code == 2
    assert "`messages` is empty" in result.err
