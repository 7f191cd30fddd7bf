"""`mbpm install` of what is there already, or what somebody else installs meanwhile."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.cli import Cli

Publish = Callable[..., None]


def test_somebody_else_installed_it_meanwhile(
    cli: Cli, registry: Path, publish: Publish, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish("alpha")
    publish("beta")

    def other(*_: object, **__: object) -> None:
        monkeypatch.undo()
        cli.ok("install", "alpha", "--registry", registry, "--yes")

    monkeypatch.setattr("mbpm.output.Output.confirm", other)
    result = cli.ok("install", "alpha", "beta", "--registry", registry)
    assert "installed beta 1.0.0" in result.err
    assert "installed alpha" not in result.err
    assert "alpha 1.0.0 is installed already" in result.err
    cli.ok("remove", "beta", "--yes")
    monkeypatch.setattr("mbpm.output.Output.confirm", lambda *_, **__: undo(cli, monkeypatch))
    document = cli.ok("install", "beta", "--registry", registry, "--json").json
    assert document["changed"] is False
    assert document["plan"]["packs"] == []


def test_somebody_else_needs_meanwhile_what_is_wanted(
    cli: Cli, registry: Path, publish: Publish, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish("alpha")
    publish("beta", requires={"alpha": "1"})

    def other(*_: object, **__: object) -> None:
        monkeypatch.undo()
        cli.ok("install", "beta", "--registry", registry, "--yes")

    monkeypatch.setattr("mbpm.output.Output.confirm", other)
    assert "alpha 1.0.0: wanted itself" in cli.ok("install", "alpha", "--registry", registry).err
    assert cli.installed() == {"alpha": "1.0.0", "beta": "1.0.0"}


def undo(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    cli.ok("undo", "--yes")


def test_what_is_there_already_opens_no_registry(
    cli: Cli, registry: Path, publish: Publish
) -> None:
    publish("alpha")
    cli.ok("install", "alpha", "--registry", registry, "--yes")
    code = (
        "import sys; from mbpm.__main__ import run; assert run(sys.argv[1:]) == 0; "
        "print([m for m in ('mbpm.catalogue', 'resolvelib', 'mbpm.resolver.decide') "
        "if m in sys.modules])"
    )
    words = [sys.executable, "-c", code, "--home", str(cli.home), "install", "alpha"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout == "[]\n"
    assert "alpha 1.0.0 is installed already" in done.stderr
