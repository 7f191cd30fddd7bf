"""Clocks that are wrong, and that jump: nothing waits for ever, and nothing is lost."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from datetime import datetime, timedelta, timezone, tzinfo
from pathlib import Path

import pytest

from mbpm import transaction
from mbpm.fetch import parts
from tests.support.cli import Cli

Publish = Callable[..., None]

YEARS = (1970, 2026, 2100, 1971, 2500)
DAY = 24 * 3600


@pytest.fixture
def set_clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """`set_clock(1970)`: what the machine takes for the present from now on."""

    def change(year: int) -> None:
        now = datetime(year, 1, 1, 12, tzinfo=timezone.utc)

        class Clock(datetime):
            @classmethod
            def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]
                return now.astimezone(tz)

        monkeypatch.setattr(transaction, "datetime", Clock)
        seconds = (now - datetime(1970, 1, 1, tzinfo=timezone.utc)) / timedelta(seconds=1)
        monkeypatch.setattr(time, "time", lambda: seconds)

    return change


def test_every_command_in_another_year(
    cli: Cli, registry: Path, publish: Publish, set_clock: Callable[[int], None]
) -> None:
    publish("alpha")
    publish("alpha", "2.0.0")
    given = ("--registry", registry, "--yes")
    commands = (
        ("install", "alpha@=1.0.0", *given),
        ("upgrade", *given),
        ("hold", "alpha"),
        ("undo", "--yes"),
        ("undo", "--yes"),
        ("redo", "--yes"),
        ("remove", "alpha", "--yes"),
        ("rollback", "1", "--yes"),
        ("repair", "--yes"),
        ("gc", "--yes"),
        ("clean", "--yes"),
    )
    for number, words in enumerate(commands):
        set_clock(YEARS[number % len(YEARS)])
        cli.ok(*words)
        cli.ok("verify")
        cli.ok("history")
    assert cli.installed() == {"alpha": "1.0.0"}
    rows = cli.ok("history", "--json").json["generations"]
    assert [r["number"] for r in rows] == [8, 7, 6, 5, 4, 3, 2, 1]
    assert [r["created"][:4] for r in rows[-2:]] == ["2026", "1970"]


@pytest.mark.parametrize("days", [-3650, -15, 15, 3650])
def test_part_of_another_machine_from_another_time(cli: Cli, days: int) -> None:
    """Whoever it was does not beat any more, whether its time is long ago or yet to come."""
    folder = cli.home / "store" / "parts"
    folder.mkdir(parents=True)
    part = folder / f"{'a' * 64}.elsewhere.123.{'1' * 32}.part"
    part.write_bytes(b"some bytes")
    then = time.time() + days * DAY
    os.utime(part, (then, then))
    adopted = parts.adopt(folder, "a" * 64)
    assert adopted is not None and adopted.read_bytes() == b"some bytes"
    adopted.rename(part)
    os.utime(part, (then, then))
    cli.ok("gc", "--yes")
    assert not part.exists()


def test_part_of_a_machine_whose_clock_is_a_little_ahead(cli: Cli) -> None:
    folder = cli.home / "store" / "parts"
    folder.mkdir(parents=True)
    part = folder / f"{'a' * 64}.elsewhere.123.{'1' * 32}.part"
    part.write_bytes(b"some bytes")
    then = time.time() + 60
    os.utime(part, (then, then))
    assert parts.adopt(folder, "a" * 64) is None
    cli.ok("clean", "--yes")
    assert part.exists(), "somebody may be at work on it"


def test_temporary_file_from_the_future(cli: Cli) -> None:
    cli.home.mkdir()
    left = cli.home / ".tokens.toml.0123"
    left.write_text("half")
    then = time.time() + 3650 * DAY
    os.utime(left, (then, then))
    cli.ok("gc", "--yes")
    assert not left.exists()


def test_owner_of_the_lock_from_the_future(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    from mbpm.lock import writer_lock
    from mbpm.output import Output

    monkeypatch.setenv("MBPM_LOCK_TIMEOUT", "0")
    with writer_lock(cli.home, Output("quiet")):
        monkeypatch.setattr(time, "time", lambda: 0.0)
        (cli.home / "staging").mkdir()
        result = cli("gc")
    assert result.code == 1
    assert "for 0 s" in result.err
