"""docs/commands.md says what `--help` says."""

from __future__ import annotations

import pytest

from mbpm.app import COMMANDS, load
from mbpm.reference import PAGE, reference


def test_page_is_what_help_says() -> None:
    assert PAGE.read_text("utf-8") == reference(), "run `make reference`"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_shows_an_example(name: str) -> None:
    command = load(name)
    for part in getattr(command, "commands", {name: command}).values():
        assert "\n\n$ " in part.help, part.name


def test_texts_have_no_marks_of_the_help_renderer() -> None:
    assert "\\[" not in reference()
