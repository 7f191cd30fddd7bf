"""docs/commands.md says what `--help` says."""

from __future__ import annotations

from mbpm.app import COMMANDS
from mbpm.reference import PAGE, reference


def test_page_is_what_help_says() -> None:
    assert PAGE.read_text("utf-8") == reference(), "run `make reference`"


def test_every_command_is_there_with_an_example() -> None:
    text = reference()
    for name in COMMANDS:
        assert f"### mbpm {name}\n" in text


def test_texts_have_no_marks_of_the_help_renderer() -> None:
    assert "\\[" not in reference()
