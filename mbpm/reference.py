"""The reference of all commands as Markdown, from the same texts as `--help`.

`python -m mbpm.reference` writes docs/commands.md, and with `--check` tells whether it is true.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mbpm.app import COMMANDS, GLOBAL_PANEL, load, root

PAGE = Path(__file__).resolve().parent.parent / "docs" / "commands.md"
_HEAD = """\
# Commands

Written by `python -m mbpm.reference` from what `--help` shows. Exit codes are listed in
[exit-codes.md](exit-codes.md); with `--json` every command but `chat` prints one document.
"""


def reference() -> str:
    """The whole page."""
    parts = [_HEAD, *_options("Global options, before or after any command", root(), shared=True)]
    panel = ""
    for name, entry in COMMANDS.items():
        if entry.panel != panel:
            panel = entry.panel
            parts += [f"## {panel}", ""]
        parts += _command(f"mbpm {name}", load(name))
    return "\n".join(parts).rstrip() + "\n"


def _command(path: str, command: Any) -> Iterator[str]:
    children = getattr(command, "commands", {})
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    words = [_word(a) for a in arguments] if not children else ["COMMAND"]
    yield f"### {path}"
    yield ""
    yield f"`{' '.join([path, '[OPTIONS]', *words])}`"
    yield ""
    for paragraph in (command.help or "").split("\n\n"):
        yield f"```console\n{paragraph}\n```" if paragraph.startswith("$ ") else paragraph
        yield ""
    rows = [(f"`{_word(a)}`", _text(a)) for a in arguments]
    yield from _table("argument", rows)
    yield from _options("", command)
    for name, child in children.items():
        yield from _command(f"{path} {name}", child)


def _word(argument: Any) -> str:
    name = argument.metavar or argument.name.upper()
    word = f"{name}..." if argument.nargs == -1 else name
    return word if argument.required else f"[{word}]"


def _options(title: str, command: Any, *, shared: bool = False) -> Iterator[str]:
    rows = []
    for option in command.params:
        known = getattr(option, "rich_help_panel", None) == GLOBAL_PANEL
        if option.param_type_name == "option" and known == shared and not option.hidden:
            metavar = "" if option.is_flag else f" {option.metavar or option.name.upper()}"
            names = [*option.opts, *option.secondary_opts]
            rows.append((", ".join(f"`{n}{metavar}`" for n in names), _text(option)))
    if title and rows:
        yield from (f"## {title}", "")
    yield from _table("option", rows)


def _text(param: Any) -> str:
    return (param.help or "").replace(r"\[", "[").replace("|", r"\|")


def _table(kind: str, rows: list[tuple[str, str]]) -> Iterator[str]:
    if rows:
        yield f"| {kind} | |"
        yield "|---|---|"
        yield from (f"| {name} | {text} |" for name, text in rows)
        yield ""


def main(arguments: list[str]) -> int:
    """Write the page, or with `--check` compare it; the exit code."""
    text = reference()
    if arguments == ["--check"]:
        if PAGE.is_file() and PAGE.read_text("utf-8") == text:
            return 0
        print(f"error: {PAGE} is not what --help says", file=sys.stderr)
        print("\nhint: make reference", file=sys.stderr)
        return 1
    PAGE.write_text(text, "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
