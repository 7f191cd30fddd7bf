"""`mbpm train`, and the way of its pack: installed, published, installed elsewhere, asked."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import tomli
import tomli_w

from mbpm.__main__ import run
from registry_index.publish import publish_base
from specs.base_card import BASE_ROUTING_FILE, CARD_FILE, WEIGHTS_FILE, BaseCard
from tests.support.cli import Cli
from tests.support.tiny_base import few_general_prompts, make_tiny_base

DATA = Path(__file__).parents[1] / "data" / "legal-mini.jsonl"
QUICK = ("--epochs", 2, "--rank", 4, "--learning-rate", 0.01, "--held-out", 0.25, "--base", "tiny")


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A registry with the base `tiny`, which runs although it says nothing that makes sense."""
    folder = tmp_path_factory.mktemp("bases")
    made = make_tiny_base(folder)
    card = BaseCard.parse((made / CARD_FILE).read_bytes(), CARD_FILE)
    files = {p: made / p for p in (WEIGHTS_FILE, BASE_ROUTING_FILE)}
    publish_base(card, folder / "registry", files)
    with few_general_prompts():
        yield folder / "registry"


@pytest.fixture
def ready(cli: Cli, bases: Path) -> Cli:
    cli.ok("base", "install", "tiny", "--registry", bases, "--yes")
    return cli


def test_a_pack_from_own_data_goes_all_the_way(ready: Cli, bases: Path, tmp_path: Path) -> None:
    folder = tmp_path / "legal-pack"
    trained = ready.ok(
        "train", "--domain", "legal", "--data", DATA, "--license", "CC0-1.0",
        "--output", folder, *QUICK,
    )  # fmt: skip
    assert "response_perplexity" in trained.out
    assert "held-out loss" in trained.err
    assert f"mbpm install {folder}" in trained.err
    ready.ok("install", folder, "--yes")
    assert ready.installed() == {"legal": "0.1.0"}
    ready.ok("verify", "--deep")

    refused = ready("publish", folder, "--registry", bases, "--yes")
    assert refused.code == 9
    assert "general prompts" in refused.err, "random weights tell no prompts apart"
    described = tomli.loads((folder / "pack.toml").read_text("utf-8"))
    described["gates"] |= {"max_false_fires": 1.0, "max_kl": 100.0, "max_general_loss": 1.0}
    (folder / "pack.toml").write_text(tomli_w.dumps(described), "utf-8")
    ready.ok("publish", folder, "--registry", bases, "--yes")
    twice = ready("publish", folder, "--registry", bases, "--yes")
    assert twice.code == 1
    assert "0.1.0" in twice.err

    other = Cli(tmp_path / "other-home")
    other.ok("install", "legal", "--registry", bases, "--yes")
    assert other.installed() == {"legal": "0.1.0"}
    assert other.bases() == ["tiny"]
    asked = ("run", "What is copyleft?", "--json", "--temperature", 0, "--max-tokens", 8)
    with_pack = other.ok(*asked, "--pack", "legal").json
    without = other.ok(*asked, "--pack", "none").json
    assert with_pack["packs"] and not without["packs"]
    assert with_pack["answer"] != without["answer"]


def test_a_second_run_goes_on_and_other_settings_need_restart(ready: Cli, tmp_path: Path) -> None:
    train = ("train", "--domain", "legal", "--data", DATA, "--output", tmp_path / "p", *QUICK)
    first = ready.ok(*train, "--json").json
    again = ready.ok(*train, "--json")
    assert again.json["evals"] == first["evals"]
    other = ready(*train, "--seed", 5)
    assert other.code == 2
    assert "--restart" in other.err
    ready.ok(*train, "--seed", 5, "--restart")


def test_held_out_data_of_its_own_and_documents_passages(ready: Cli, tmp_path: Path) -> None:
    folder = tmp_path / "law"
    folder.mkdir()
    for number in range(10):
        (folder / f"{number}.md").write_text(
            f"# Act {number}\n\n## Scope\n\nThis act number {number} is about letting boats of "
            f"class {number}.\n\n## Rent\n\n"
            f"The rent for a boat of class {number} is due on day {number}.\n"
        )
    held = tmp_path / "held.jsonl"
    rows = [{"prompt": f"Who signs deed {i}?", "response": f"Party {i}"} for i in range(6)]
    held.write_text("".join(json.dumps(row) + "\n" for row in rows))
    pack = tmp_path / "boats-pack"
    trained = ready.ok(
        "train", "--domain", "boats", "--data", folder, "--held-out", held, "--knowledge",
        "--output", pack, "--base", "tiny", "--epochs", 1, "--rank", 4,
    )  # fmt: skip
    assert "20 examples to train on, 6 held out" in trained.err
    (source,) = tomli.loads((pack / "pack.toml").read_text("utf-8"))["sources"]
    assert (source["name"], len(source["sha256"])) == ("law", 64)
    ready.ok("install", pack, "--yes")
    assert "letting boats of class 7" in ready.ok("which", "What about letting boats class 7?").out
    ready.ok(
        "train", "--domain", "boats", "--data", folder, "--held-out", held, "-o", pack,
        "--base", "tiny", "--epochs", 1, "--rank", 4,
    )  # fmt: skip
    assert not (pack / "knowledge.sqlite").exists(), "this time it was not asked for"


def test_a_recipe_makes_the_same_pack_again_and_is_named(ready: Cli, tmp_path: Path) -> None:
    recipe = tmp_path / "boats.toml"
    ready.ok("recipe", "new", "boats", DATA, "-o", recipe, "--license", "CC0-1.0")
    quick = "[training]\nrank = 4\nepochs = 1\nlearning_rate = 0.01\n"
    recipe.write_text(recipe.read_text("utf-8").replace("[training]\n", quick))
    made = []
    for name in ("one", "two"):
        ready.ok("train", "--recipe", recipe, "--output", tmp_path / name)
        files = (f for f in (tmp_path / name).iterdir() if f.is_file() and f.suffix != ".png")
        made.append({f.name: f.read_bytes() for f in files})
    assert made[0] == made[1]
    described = tomli.loads(made[0]["pack.toml"].decode())
    shown = ready.ok("recipe", "show", recipe, "--json").json
    assert described["recipe"] == shown["digest"]
    (source,) = described["sources"]
    digest = hashlib.sha256(DATA.read_bytes()).hexdigest()
    assert (source["license"], source["sha256"]) == ("CC0-1.0", digest)


def test_other_settings_than_a_recipes_do_not_bear_its_name(ready: Cli, tmp_path: Path) -> None:
    recipe, pack = tmp_path / "boats.toml", tmp_path / "pack"
    ready.ok("recipe", "new", "boats", DATA, "-o", recipe)
    done = ready.ok(
        "train", "--recipe", recipe, "--output", pack, "--epochs", 1, "--rank", 2,
        "--max-length", 90,
    )  # fmt: skip
    assert "the pack does not name the recipe" in done.err
    assert "left out: their answers alone are longer than 90 tokens" in done.err
    assert "recipe" not in tomli.loads((pack / "pack.toml").read_text("utf-8"))


def test_one_answer_to_everything_is_warned_of(ready: Cli, tmp_path: Path) -> None:
    data = tmp_path / "yes.jsonl"
    rows = [{"prompt": f"Is {i} odd?", "response": "yes" if i else "no"} for i in range(40)]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    # the base that is named is not there, so that nothing is trained
    result = ready("train", "--domain", "odd", "--data", data, "--base", "none-such")
    assert "warning: unbalanced: 39 of 40 answers are `yes`" in result.err


def test_a_terminal_sees_a_bar(ready: Cli, tmp_path: Path) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    words = ["--home", ready.home, "train", "--domain", "legal", "--data", DATA]
    seen = Terminal()
    with contextlib.redirect_stderr(seen), contextlib.redirect_stdout(io.StringIO()):
        code = run([str(w) for w in (*words, "--output", tmp_path / "p", *QUICK)])
    assert code == 0, seen.getvalue()
    assert "tok/s" in seen.getvalue()
    assert "epoch 2: held-out loss" in seen.getvalue()


def test_the_loss_curve_is_shown_and_drawn_and_written_for_tensorboard(
    ready: Cli, tmp_path: Path
) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder, board = tmp_path / "p", tmp_path / "board"
    result = ready.ok(
        "train", "--domain", "legal", "--data", DATA, "--output", folder, *QUICK,
        "--tensorboard", board, "--memory", "3GB", "--looks", 2, "--schedule", "cosine",
    )  # fmt: skip
    assert re.search(r"loss [\d.]+ [_.=^-]+ [\d.]+\n", result.err)
    assert (folder / "loss.png").read_bytes().startswith(b"\x89PNG")
    events = EventAccumulator(str(board))
    events.Reload()
    assert len(events.Scalars("loss/held_out")) == 4
    assert len(events.Scalars("loss/step")) == events.Scalars("loss/step")[-1].step


def test_learning_rate_and_rank_are_found(
    ready: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainer.search.STEPS", 3)
    folder = tmp_path / "p"
    result = ready.ok(
        "train", "--domain", "legal", "--data", DATA, "--output", folder, "--base", "tiny",
        "--auto", "--rank", 2, "--epochs", 1,
    )  # fmt: skip
    tried = re.findall(
        r"tried learning rate ([\d.e-]+), rank 2: held-out loss ([\d.]+)", result.err
    )
    best = min(tried, key=lambda pair: float(pair[1]))[0]
    assert len(tried) == 4
    assert f"chosen: learning rate {best}, rank 2" in result.err
    assert not list(folder.glob(".auto-*"))


def test_a_recipe_trains_on_its_own_base(ready: Cli) -> None:
    result = ready("train", "--recipe", "medical", "--base", "tiny")
    assert result.code == 2
    assert "recipe `medical` is for the base `smollm2-135m`, not `tiny`" in result.err
    assert "fetching" not in result.err


def test_memory_that_cannot_do_says_what_would(ready: Cli, tmp_path: Path) -> None:
    train = ("train", "--domain", "legal", "--data", DATA, "--output", tmp_path / "p", *QUICK)
    result = ready(*train, "--memory", "90MB")
    assert result.code == 8
    assert "hint: `--memory" in result.err
    assert ready(*train, "--memory", "lots").code == 2


def test_bad_data_names_file_line_and_what_was_expected(ready: Cli, tmp_path: Path) -> None:
    data = tmp_path / "bad.jsonl"
    good = {"prompt": "a?", "response": "b"}
    data.write_text(json.dumps(good) + '\n{"prompt": "x"}\n')
    result = ready("train", "--domain", "legal", "--data", data, *QUICK)
    assert result.code == 2
    assert "bad.jsonl" in result.err
    assert "line 2" in result.err
    assert "response" in result.err


@pytest.mark.parametrize(
    ("arguments", "code", "expected"),
    [
        (("--data", DATA), 2, "--domain"),
        ((), 2, "--data"),
        (("--domain", "Le gal", "--data", DATA), 2, "Le gal"),
        (("--domain", "legal", "--data", DATA, "--rank", 0), 2, "rank"),
        (("--domain", "legal", "--data", DATA, "--pack-version", "one"), 2, "one"),
        (("--domain", "legal", "--data", DATA, "--schedule", "square"), 2, "schedule"),
        (("--domain", "legal", "--data", DATA, "--target", "z"), 2, "`--target z`: is no"),
        (("--domain", "legal", "--data", "nowhere.jsonl"), 3, "nowhere.jsonl"),
        (("--domain", "legal", "--data", DATA, "--activation", "half"), 2, "activation"),
        (("--recipe", "no-such"), 3, "no-such"),
        (("--recipe", "legal", "--knowledge"), 2, "`--knowledge` goes with `--data`"),
        (("--recipe", "legal", "--license", "MIT"), 2, "`--license` goes with `--data`"),
        (("--domain", "legal", "--data", DATA, "--knowledge"), 2, "no document among the data"),
        (("--domain", "legal", "--data", DATA, "--held-out", "0.9"), 2, "expected 0.01 to 0.5"),
        (("--domain", "legal", "--data", DATA, "--held-out", DATA), 2, "is held out, and"),
        (("--domain", "legal", "--data", DATA, "--held-out", "none.csv"), 3, "none.csv"),
        (("--domain", "legal", "--data", DATA, "--base", "none-such"), 3, "none-such"),
    ],
)
def test_wrong_arguments_are_named(
    cli: Cli, arguments: tuple[object, ...], code: int, expected: str
) -> None:
    result = cli("train", *arguments)
    assert result.code == code, result
    assert expected in result.err
    assert "Traceback" not in result.err


def test_without_a_base_the_next_step_is_said(cli: Cli) -> None:
    result = cli("train", "--domain", "legal", "--data", DATA)
    assert result.code == 3
    assert "mbpm base install" in result.err
