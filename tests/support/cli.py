"""Running `mbpm` inside the test process, as the shell would see it."""

from __future__ import annotations

import contextlib
import io
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO
from unittest import mock

from mbpm.__main__ import run


@dataclass(frozen=True)
class Result:
    """How one command line ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one document on standard output."""
        return json.loads(self.out)


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Cli:
    """A home and the command line that works on it."""

    def __init__(self, home: Path, **environ: str) -> None:
        self.home = home
        self.environ = environ

    def __call__(
        self, *arguments: object, answer: str | None = None, stdin: TextIO | None = None
    ) -> Result:
        """Run a command; `answer` is what a person at a terminal types, `stdin` what is piped."""
        out, err = io.StringIO(), io.StringIO()
        if stdin is None:
            stdin = io.StringIO() if answer is None else _Terminal(answer)
        words = ["--home", str(self.home), *map(str, arguments)]
        with (
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
            mock.patch("sys.stdin", stdin),
            mock.patch.dict(os.environ, self.environ),
        ):
            code = run(words)
        return Result(code, out.getvalue(), err.getvalue())

    def ok(self, *arguments: object) -> Result:
        """Run a command that must succeed."""
        result = self(*arguments)
        assert result.code == 0, f"{arguments}: {result}"
        return result

    def installed(self) -> dict[str, str]:
        """Name -> version of the installed packs."""
        return {p["name"]: p["version"] for p in self.ok("list", "--json").json["packs"]}

    def bases(self) -> list[str]:
        """Names of the installed bases."""
        return [b["name"] for b in self.ok("list", "--json").json["bases"]]
