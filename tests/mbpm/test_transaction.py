"""The journal: whatever it says, no crash, no lost state, and the next writer goes on."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mbpm.home import Home
from mbpm.output import Output
from mbpm.transaction import writer
from specs.errors import MbpmError
from tests.support.cli import Cli

Publish = Callable[..., None]

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)
QUICK = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture
def installed(cli: Cli, registry: Path, publish: Publish, tmp_path: Path) -> Path:
    """A home with alpha 2.0.0 in generation 2, and beta in the profile `work`; kept as it is."""
    publish("alpha")
    publish("beta")
    given = ("--registry", registry, "--yes")
    cli.ok("install", "alpha", *given)
    publish("alpha", "2.0.0")
    cli.ok("upgrade", *given)
    cli.ok("--profile", "work", "install", "beta", *given)
    return cli.home


def put_right(installed: Path, raw: bytes) -> None:
    """Give a copy of the home this journal; the next writer must leave everything as it was."""
    copy = installed.with_name("copy")
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(installed, copy)
    home = Home(copy)
    before = state(home)
    home.journal.write_bytes(raw)
    assert state(home) == before, "readers do not look at it"
    with writer(home, Output("quiet"), "mbpm"):
        pass
    assert state(home) == before
    assert not home.journal.exists() and not home.staging.exists()
    Cli(copy).ok("verify")
    Cli(copy).ok("--profile", "work", "verify")


def state(home: Home) -> dict[str, Any]:
    """What counts, and what counted, in every profile."""
    return {
        name: (profile.current(), list(profile.generations()))
        for name in home.profiles()
        for profile in [home.with_profile(name)]
    }


@given(raw=st.binary(max_size=80))
@QUICK
def test_any_bytes(installed: Path, raw: bytes) -> None:
    put_right(installed, raw)


@given(value=JSON)
@QUICK
def test_any_value(installed: Path, value: Any) -> None:
    put_right(installed, json.dumps(value).encode())


@given(data=st.data())
@QUICK
def test_any_journal(installed: Path, data: st.DataObject) -> None:
    """Also one that names generations and folders that are there, or lead out of the home."""
    packs = [p.name for p in (installed / "store" / "packs").iterdir()]
    bases = [p.name for p in (installed / "store" / "bases").iterdir()]
    digest = st.sampled_from([*packs, *bases, "a" * 64, "", "..", "../../generations", "/etc"])
    value = {
        "profile": st.sampled_from(["default", "work", "other", "../work", ""]),
        "to": st.integers(-2, 5) | st.sampled_from([1.0, 2.5, True, 10**30]),
        "folders": st.lists(
            st.tuples(st.sampled_from(["pack", "base", "blob"]), digest | JSON), max_size=3
        ),
    }
    drawn: dict[str, Any] = {key: data.draw(made | JSON) for key, made in value.items()}
    if data.draw(st.booleans()):
        drawn[data.draw(st.text(max_size=5))] = data.draw(JSON)
    put_right(installed, json.dumps(drawn).encode())


def test_generation_that_counted_once_is_never_rolled_back(installed: Path) -> None:
    for number in (1, 2, 3):
        journal = {"profile": "default", "to": number, "folders": []}
        put_right(installed, json.dumps(journal).encode())


def test_deep_journal(installed: Path) -> None:
    put_right(installed, b"[" * 100_000)
    put_right(installed, b'{"to": ' + b"9" * 10_000 + b"}")


def test_journal_of_a_change_that_does_not_count(installed: Path) -> None:
    """The generation ahead goes, and its number is used again."""
    home = Home(installed)
    ahead = home.generation_path(3)
    ahead.write_bytes(home.current().model_copy(update={"number": 3, "packs": ()}).canonical())
    home.journal.write_text(json.dumps({"profile": "default", "to": 3, "folders": []}))
    Cli(installed).ok("hold", "alpha")
    assert [(g.number, len(g.packs)) for g in home.generations()] == [(3, 1), (2, 1), (1, 1)]


def test_journal_of_a_damaged_profile_keeps_nobody_from_mending_it(installed: Path) -> None:
    home = Home(installed)
    home.journal.write_text(json.dumps({"profile": "work", "to": 1, "folders": []}))
    (installed / "profiles" / "work" / "current").write_text("seven")
    cli = Cli(installed)
    cli.ok("hold", "alpha")
    with pytest.raises(MbpmError):
        home.with_profile("work").current()
    cli.ok("--profile", "work", "repair", "--yes")
    assert home.with_profile("work").current().pack("beta") is not None
