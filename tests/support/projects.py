"""A project folder for tests, and the command line run in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tomli

from tests.support.cli import Cli, Result

HEAD = """\
# Our packs
format = 1

[project]
name = "clinic"

[registries]
local = "../registry"
"""


class ProjectCli:
    """`mbpm … --project FOLDER` on a home."""

    def __init__(self, cli: Cli, folder: Path, packs: str = "", head: str = HEAD) -> None:
        self.cli = cli
        self.folder = folder
        folder.mkdir(exist_ok=True)
        self.write(packs, head)

    def write(self, packs: str, head: str = HEAD) -> None:
        """Write mbpm.toml: `head`, then the lines of `[packs]`."""
        self.toml.write_text(f"{head}\n[packs]\n{packs}")

    @property
    def toml(self) -> Path:
        """The file mbpm.toml."""
        return self.folder / "mbpm.toml"

    @property
    def lock(self) -> Path:
        """The file mbpm.lock."""
        return self.folder / "mbpm.lock"

    def __call__(self, *arguments: object, answer: str | None = None) -> Result:
        """Run a command of the project."""
        return self.cli(*arguments, "--project", self.folder, answer=answer)

    def ok(self, *arguments: object) -> Result:
        """Run a command that must succeed."""
        return self.cli.ok(*arguments, "--project", self.folder)

    def bytes(self) -> tuple[bytes | None, bytes | None]:
        """Both files."""
        files = (self.toml, self.lock)
        found = [f.read_bytes() if f.exists() else None for f in files]
        return found[0], found[1]

    def locked(self) -> dict[str, str]:
        """Name -> version of the lock's packs."""
        return {p["name"]: p["version"] for p in self.document().get("packs", [])}

    def document(self) -> dict[str, Any]:
        """The lock's content."""
        return tomli.loads(self.lock.read_text())

    def edit_lock(self, old: str, new: str) -> None:
        """Change the lock as somebody with an editor would."""
        text = self.lock.read_text()
        assert text.count(old) >= 1, old
        self.lock.write_text(text.replace(old, new))

    def installed(self, profile: str = "clinic") -> dict[str, str]:
        """Name -> version of what the profile holds."""
        document = self.cli.ok("--profile", profile, "list", "--json").json
        return {p["name"]: p["version"] for p in document["packs"]}
