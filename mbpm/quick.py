"""`mbpm run "question"` with plain options, understood without Typer.

To read the description of the whole command line takes longer than to answer begins to take. So a
line that is as plain as this table is understood here; every other one, help and mistakes among
them, is Typer's. Where this says anything, Typer would say the same.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mbpm.state import State

OPTIONS: dict[str, type] = {
    "--pack": str,
    "--base": str,
    "--device": str,
    "--engine": str,
    "--precision": str,
    "--context": int,
    "--system": str,
    "--explain": bool,
    "--max-tokens": int,
    "--temperature": float,
    "--top-k": int,
    "--top-p": float,
    "--min-p": float,
    "--repetition-penalty": float,
    "--seed": int,
}
"""Of `run`; an option's value goes to the argument of its name."""
GLOBAL: dict[str, type] = {
    "--home": Path,
    "--profile": str,
    "--json": bool,
    "--quiet": bool,
    "-q": bool,
    "--offline": bool,
    "--no-color": bool,
}
_PLAIN = {int: re.compile(r"[0-9]{1,18}"), float: re.compile(r"[0-9]{1,9}(\.[0-9]{1,9})?")}


def run_options(arguments: Sequence[str], state: State) -> dict[str, Any] | None:
    """The question and options of a plain `mbpm run`; what it says of the state is done to it.

    Returns:
        Arguments for `mbpm.asking.ask`; None where Typer has to look.
    """
    if "run" not in arguments or "_MBPM_COMPLETE" in os.environ:
        return None
    given: dict[str, Any] = {}
    words: list[str] = []
    rest = list(arguments)
    while rest:
        word = rest.pop(0)
        if not word.startswith("-"):
            words.append(word)
            continue
        name, equals, value = word.partition("=")
        kind = GLOBAL.get(name) or (OPTIONS.get(name) if words else None)
        if kind is None or name in given or (equals and not name.startswith("--")):
            return None
        if kind is bool:
            if equals:
                return None
            given[name] = True
            continue
        if not equals:
            if not rest:
                return None
            value = rest.pop(0)
        if not value or value.startswith("-"):
            return None
        if kind in _PLAIN and not _PLAIN[kind].fullmatch(value):
            return None
        given[name] = kind(value)
    if len(words) != 2 or words[0] != "run" or not words[1]:
        return None
    _tell(state, given)
    options = {n[2:].replace("-", "_"): v for n, v in given.items() if n in OPTIONS}
    return {"question": words[1], **options}


def _tell(state: State, given: dict[str, Any]) -> None:
    if "--home" in given:
        state.home_path = given["--home"].expanduser()
    state.profile = given.get("--profile", state.profile)
    state.offline = state.offline or "--offline" in given
    state.out.no_color = state.out.no_color or "--no-color" in given
    if "--json" in given:
        state.out.mode = "json"
    elif "--quiet" in given or "-q" in given:
        state.out.mode = "quiet"
