"""The short way to `mbpm run`: it says what Typer says, or nothing."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
import typer

from mbpm import app, place
from mbpm.home import Home
from mbpm.quick import GLOBAL, OPTIONS, run_options
from mbpm.state import State
from specs.errors import IntegrityError, MbpmError
from tests.support.cli import Cli
from tests.support.real_home import RealHome


def test_its_table_is_that_of_the_command() -> None:
    command = app.load("run")
    own = {p.opts[0]: p for p in command.params if p.param_type_name == "option"}
    assert set(own) == set(OPTIONS)
    assert {name for name, p in own.items() if p.is_flag} == {
        name for name, kind in OPTIONS.items() if kind is bool
    }
    known = {o for p in app.root().params for o in (*p.opts, *p.secondary_opts)}
    assert set(GLOBAL) <= known


def as_typer_has_it(
    line: list[str], monkeypatch: pytest.MonkeyPatch
) -> tuple[dict[str, Any], State] | None:
    """What the command is called with; None where the line is refused."""
    called: list[dict[str, Any]] = []

    def ask(state: State, question: str | None, **options: Any) -> None:
        called.append({"question": question, **options})

    monkeypatch.setattr("mbpm.commands.run.ask", ask)
    state = State()
    try:
        app.root().main(line, prog_name="mbpm", standalone_mode=False, obj=state)
    except (MbpmError, typer.Abort):
        return None
    except Exception as error:
        if not hasattr(error, "format_message"):
            raise
        return None
    return (called[0], state) if called else None


def seen(state: State) -> tuple[Any, ...]:
    return state.home_path, state.profile, state.offline, state.out.mode, state.out.no_color


def test_it_says_what_typer_says_or_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = random.Random(7)
    values = [
        "1",
        "0",
        "12",
        "0.5",
        "007",
        "1e3",
        "-1",
        "",
        "medical",
        "a b",
        "nan",
        "1_0",
        "٣",
        "~/x",
    ]
    words = ["Why?", "run", "What is 2 - 1?", "", "-", "--", "chat", "naïve", "--help"]
    understood = 0
    for _ in range(120):
        line = ["run", rng.choice(words[:3])]
        for name, kind in rng.sample([*OPTIONS.items(), *GLOBAL.items()], rng.randint(0, 4)):
            given = rng.choice(values[:6] if rng.random() < 0.8 else values)
            option = [name] if kind is bool else [name, given]
            if rng.random() < 0.2:
                option = [f"{name}={given}"]
            at = rng.randint(0, 1) * len(line) if name in GLOBAL else len(line)
            line[at:at] = option
        if rng.random() < 0.2:
            line.insert(rng.randint(0, len(line)), rng.choice(words))
        state = State()
        found = run_options(line, state)
        if found is None:
            assert seen(state) == seen(State())
            continue
        understood += 1
        expected = as_typer_has_it(line, monkeypatch)
        assert expected is not None, line
        options, typers = expected
        defaults = {k: v for k, v in options.items() if k not in found}
        assert {**defaults, **found} == options, line
        assert [type(v) for v in found.values()] == [type(options[k]) for k in found], line
        assert seen(state) == seen(typers), line
    assert understood > 40


def test_typer_and_pydantic_are_not_waited_for(real_home: RealHome) -> None:
    code = (
        "import sys; from mbpm.__main__ import run\n"
        f"code = run(['--home', {str(real_home.path)!r}, 'run', 'Hi', '--max-tokens', '1'])\n"
        "print(code, [m for m in ('typer', 'pydantic', 'torch') if m in sys.modules])"
    )
    import subprocess
    import sys

    for _ in range(2):  # the first start may have to pack the weights
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, timeout=120
        )
    assert done.stdout.splitlines()[-1] == "0 []", done.stderr


def test_the_same_place_as_by_reading_everything(real_home: RealHome) -> None:
    home = Home(real_home.path)
    found = place._seen(home, None, None)
    assert place.find(home, None, None) == found
    generation = home.current()
    base = home.default_base()
    from mbpm.triggers import router_table

    assert found == place.Place(
        base.name,
        home.base_dir(base),
        tuple(home.pack_dirs()),
        router_table(home, generation, base),
    )
    assert place._seen(home, base.name, generation.packs[0].name) == found
    assert place.find(home, base.name, generation.packs[0].name) == found


@pytest.mark.parametrize("harm", ["text", "number", "names", "missing", "a base's name", "pack"])
def test_what_is_odd_is_told_by_whoever_reads_everything(tmp_path: Path, harm: str) -> None:
    mbpm = Cli(tmp_path)
    assert mbpm("install", "medical", "--yes", "--no-recommends", "--dry-run").code == 0
    (tmp_path / "generations").mkdir(exist_ok=True)
    generation: dict[str, Any] = {
        "format": 1, "number": 1, "created": "", "command": "x",
        "bases": [{"name": "b", "fingerprint": "0" * 64, "card": "0" * 64}],
        "packs": [],
    }  # fmt: skip
    text = {
        "text": "x",
        "number": json.dumps({**generation, "number": 2}),
        "names": json.dumps({**generation, "bases": generation["bases"] * 2}),
        "missing": json.dumps({**generation, "bases": []}),
        "a base's name": json.dumps({**generation, "bases": [{"name": 1}]}),
        "pack": json.dumps(generation),
    }[harm]
    (tmp_path / "generations" / "1.json").write_text(text)
    (tmp_path / "current").write_text("1")
    done = mbpm("run", "Hi", "--pack", "nothing" if harm == "pack" else "none")
    assert done.code in (3, 5)
    assert done.err.startswith("error: ") and "Traceback" not in done.err


@pytest.mark.parametrize("text", ["+1", "1_0", "-1", "1.0", "x"])
def test_a_damaged_pointer_is_damaged_for_everybody(
    real_home: RealHome, tmp_path: Path, text: str
) -> None:
    (tmp_path / "generations").mkdir()
    generation = real_home.path / "generations" / f"{Home(real_home.path).current().number}.json"
    for number in (1, 10):
        value = {**json.loads(generation.read_text()), "number": number}
        (tmp_path / "generations" / f"{number}.json").write_text(json.dumps(value))
    (tmp_path / "store").symlink_to(real_home.path / "store")
    (tmp_path / "current").write_text("1")
    place._seen(Home(tmp_path), None, None)
    (tmp_path / "current").write_text(text)
    with pytest.raises(IntegrityError):
        place.find(Home(tmp_path), None, None)
