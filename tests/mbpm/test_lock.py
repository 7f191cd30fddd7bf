"""One writer at a time; readers never wait."""

from __future__ import annotations

import os
import platform
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mbpm.lock import writer_lock
from mbpm.output import Output
from tests.support.cli import Cli


@pytest.fixture
def held(cli: Cli, registry: Path, publish: Callable[..., None]) -> Cli:
    publish("alpha")
    cli.ok("install", "alpha", "--registry", registry, "--yes")
    return cli


def test_wait_is_bounded_and_names_the_owner(held: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MBPM_LOCK_TIMEOUT", "0.2")
    with writer_lock(held.home, Output("quiet")):
        result = held("remove", "alpha", "--yes")
        assert held.installed() == {"alpha": "1.0.0"}
    assert result.code == 1
    assert f"process {os.getpid()} on {platform.node()}, for 0 s" in result.err
    assert "`MBPM_LOCK_TIMEOUT`" in result.err
    held.ok("remove", "alpha", "--yes")


def test_waits_for_its_turn(held: Cli) -> None:
    inside, done = threading.Event(), threading.Event()

    def hold() -> None:
        with writer_lock(held.home, Output("quiet")):
            inside.set()
            done.wait(5)

    thread = threading.Thread(target=hold)
    thread.start()
    assert inside.wait(5)
    threading.Timer(0.2, done.set).start()
    held.ok("remove", "alpha", "--yes")
    thread.join()


def test_plan_that_went_stale(
    held: Cli, registry: Path, publish: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody removes what the plan counted on, between the question and the answer."""
    publish("beta", requires={"alpha": "1"})

    def meanwhile(_self: Output, _question: str, *, yes: bool) -> None:
        monkeypatch.undo()
        held.ok("remove", "alpha", "--yes")

    monkeypatch.setattr(Output, "confirm", meanwhile)
    result = held("install", "beta", "--registry", registry)
    assert result.code == 4
    assert "changed in the meantime" in result.err
    assert held.installed() == {}


def test_the_same_command_twice_at_once(
    held: Cli, registry: Path, publish: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    publish("beta", requires={"alpha": "1"})
    publish("gamma", requires={"beta": "1"})

    def meanwhile(_self: Output, _question: str, *, yes: bool) -> None:
        monkeypatch.undo()
        held.ok("install", "beta", "--registry", registry, "--yes")

    for name in ("beta", "gamma"):
        held("remove", "beta", "--yes")
        monkeypatch.setattr(Output, "confirm", meanwhile)
        held.ok("install", name, "--registry", registry)
        assert held.installed().keys() >= {"alpha", "beta", name}


def test_undo_of_what_is_not_the_last_change_any_more(
    held: Cli, registry: Path, publish: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    publish("beta")

    def meanwhile(_self: Output, _question: str, *, yes: bool) -> None:
        monkeypatch.undo()
        held.ok("hold", "alpha")

    held.ok("install", "beta", "--registry", registry, "--yes")
    monkeypatch.setattr(Output, "confirm", meanwhile)
    result = held("undo")
    assert result.code == 4
    assert "changed in the meantime" in result.err
    assert held.installed() == {"alpha": "1.0.0", "beta": "1.0.0"}
    held.ok("undo", "--yes")
    assert held.installed() == {"alpha": "1.0.0", "beta": "1.0.0"}, "the hold was taken back"


def test_undo_while_somebody_changes_something(
    held: Cli, registry: Path, publish: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between looking what the last change is and planning, where there is nothing to ask."""
    from mbpm.change import restore

    publish("beta")
    held.ok("install", "beta", "--registry", registry, "--yes")
    plan = restore.prepare_exact

    def meanwhile(*arguments: Any, **more: Any) -> object:
        monkeypatch.undo()
        held.ok("hold", "alpha")
        return plan(*arguments, **more)

    monkeypatch.setattr(restore, "prepare_exact", meanwhile)
    result = held("undo", "--yes")
    assert result.code == 4
    assert "changed in the meantime" in result.err
    assert held.installed() == {"alpha": "1.0.0", "beta": "1.0.0"}


def test_bytes_that_the_plan_counted_on_were_freed(
    held: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    def meanwhile(_self: Output, _question: str, *, yes: bool) -> None:
        monkeypatch.undo()
        held.ok("gc", "--yes")

    held.ok("remove", "alpha", "--yes")
    monkeypatch.setattr(Output, "confirm", meanwhile)
    result = held("undo")
    assert result.code == 4
    assert "changed in the meantime" in result.err
    held.ok("undo", "--yes")
    assert held.installed() == {"alpha": "1.0.0"}


def test_odd_timeout(held: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MBPM_LOCK_TIMEOUT", "soon")
    assert held("remove", "alpha", "--yes").code == 2
