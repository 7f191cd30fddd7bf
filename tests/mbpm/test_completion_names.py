"""Names for the shell's completion."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mbpm.home import Home
from mbpm.registries.completion import available, installed
from registry_index.tree import index_path
from tests.support.cli import Cli
from tests.support.static import serve

Publish = Callable[..., None]


def test_nothing_is_there(tmp_path: Path) -> None:
    assert installed(Home(tmp_path / "none")) == []
    assert available(Home(tmp_path / "none"), "med") == ["medical"]


def test_installed_configured_and_cached(
    cli: Cli, registry: Path, publish: Publish, tmp_path: Path
) -> None:
    publish("alpha")
    publish("alto")
    cli.ok("registry", "add", "team", registry)
    home = Home(cli.home)
    assert available(home, "al") == ["alpha", "alto"]
    cli.ok("install", "alpha", "--yes")
    assert installed(home) == ["alpha"]
    assert installed(home, "b") == []
    cli.ok("registry", "remove", "team")
    assert available(home, "al") == ["alpha"]
    with serve(registry) as site:
        cli.ok("registry", "add", "far", site.url)
        site.forget()
        assert available(home, "al") == ["alpha", "alto"]
        assert available(home, "al", limit=1) == ["alpha"]
        assert site.asked == []


@pytest.mark.parametrize("name", ["a", "ab", "abc", "abcd", "a.b-c", "abcde-12"])
def test_every_layout_of_the_index(tmp_path: Path, name: str) -> None:
    home = Home(tmp_path / "home")
    home.path.mkdir()
    root = tmp_path / "registry"
    (home.path / "registries.toml").write_text(f'[registries.r]\naddress = "{root}"\n')
    file = root / "index" / index_path(name)
    file.parent.mkdir(parents=True)
    file.write_text("")
    for length in range(1, len(name) + 1):
        assert name in available(home, name[:length])
    assert available(home, name + "x") == []


def test_damaged_files_are_passed_over(cli: Cli, tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    cache = home.path / "cache" / "registries" / "x"
    cache.mkdir(parents=True)
    (cache / "index.sqlite").write_bytes(b"junk" * 1000)
    (home.path / "registries.toml").write_text("junk")
    home.pointer.write_text("7\n")
    home.generation_path(7).parent.mkdir()
    home.generation_path(7).write_text('{"packs": [{"name": "ok"}, {"name": "\\u001b[2J"}]}')
    assert installed(home) == ["ok"]
    assert available(home, "") == ["medical", "ok"]


def test_it_imports_nothing_slow(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from mbpm.home import Home;"
        "from mbpm.registries.completion import available;"
        f"available(Home(Path({str(tmp_path)!r})), 'm');"
        "print([m for m in ('torch', 'numpy', 'httpx', 'rich', 'pydantic') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr
