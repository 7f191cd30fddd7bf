"""The command line itself: options, help, failures, start-up."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mbpm import app
from mbpm.__main__ import run
from tests.support.cli import Cli

MBPM = [sys.executable, "-m", "mbpm"]


def test_version(cli: Cli) -> None:
    from importlib.metadata import version

    assert cli.ok("--version").out == cli.ok("-V").out == f"mbpm {version('mbpm')}\n"
    assert cli.ok("--version", "--quiet").out == f"mbpm {version('mbpm')}\n"
    assert cli.ok("--version", "--json").json == {"version": version("mbpm")}


def test_help_lists_every_command_without_importing_one(cli: Cli) -> None:
    before = set(sys.modules)
    result = cli.ok("--help")
    for name, entry in app.COMMANDS.items():
        assert name in result.out
        assert entry.help.split()[0] in result.out
    assert not [m for m in set(sys.modules) - before if m.startswith("mbpm.commands.")]
    assert cli.ok().out.split() == result.out.split()


@pytest.mark.parametrize("name", app.COMMANDS)
def test_every_command_explains_itself_and_takes_the_global_options(cli: Cli, name: str) -> None:
    result = cli.ok(name, "--help")
    assert "--home" in result.out
    assert "--json" in result.out
    assert "--quiet" in result.out or "-q" in result.out


def test_unknown_command_suggests_one(cli: Cli) -> None:
    result = cli("instal")
    assert result.code == 2
    assert result.err == (
        "error: there is no command `instal`\n\nhint: did you mean `mbpm install`?\n"
    )
    assert "`mbpm --help`" in cli("xyzzy").err


@pytest.mark.parametrize(
    "arguments", [["--bogus"], ["install"], ["list", "extra"], ["base"], ["base", "remove"]]
)
def test_usage_errors_are_one_line_and_a_hint(cli: Cli, arguments: list[str]) -> None:
    result = cli(*arguments)
    assert result.code == 2
    assert result.out == ""
    assert result.err.startswith("error: ")
    assert "\n\nhint: `mbpm" in result.err


def test_usage_error_as_json(cli: Cli) -> None:
    error = cli("list", "--bogus", "--json").json["error"]
    assert error["exit_code"] == 2
    assert "--bogus" in error["message"]
    assert "mbpm list --help" in error["hint"]


def test_global_options_before_and_after(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home = str(tmp_path)
    for words in (
        ["--home", home, "--json", "list"],
        ["list", "--home", home, "--json"],
        ["--json", "list", "--home", home],
        ["base", "--json", "list", "--home", home],
        ["base", "list", "--json", "--home", home],
    ):
        assert run(words) == 0, words
        json.loads(capsys.readouterr().out)


def test_home_from_the_environment_gives_way_to_the_option(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "current").write_text("broken " + name)
    monkeypatch.setenv("MBPM_HOME", str(tmp_path / "one"))
    assert run(["list"]) == 5
    assert str(tmp_path / "one") in capsys.readouterr().err
    for words in (
        ["--home", str(tmp_path / "two"), "list"],
        ["list", "--home", str(tmp_path / "two")],
    ):
        assert run(words) == 5
        assert str(tmp_path / "two") in capsys.readouterr().err


def test_relative_home_is_where_the_command_was_typed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("h").mkdir()
    Path("h", "current").write_text("?")
    assert run(["--home", "h", "list"]) == 5
    assert str(tmp_path / "h") in capsys.readouterr().err


def test_odd_offline_variable(cli: Cli) -> None:
    cli.environ["MBPM_OFFLINE"] = "perhaps"
    assert cli("list").code == 2
    cli.environ["MBPM_OFFLINE"] = "1"
    assert cli("list").code == 0


def test_quiet_prints_no_remarks(cli: Cli) -> None:
    assert cli.ok("list").err != ""
    assert cli.ok("list", "--quiet").err == ""


def _fail_with(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    from mbpm.home import Home

    def fail(_self: Home) -> None:
        raise error

    monkeypatch.setattr(Home, "current", fail)


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (OSError(28, "No space left on device", "/x"), 8, "/x: the disk is full"),
        (PermissionError(13, "Permission denied", "/x"), 1, "/x: permission denied"),
        (OSError(5, "Input/output error"), 1, "input/output error"),
        (KeyboardInterrupt(), 130, ""),
        (BrokenPipeError(), 1, ""),
    ],
)
def test_failures_of_the_machine(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int, words: str
) -> None:
    _fail_with(monkeypatch, error)
    result = cli("list")
    assert result.code == code
    assert words in result.err
    assert "Traceback" not in result.err


def test_defects_are_not_hidden(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    _fail_with(monkeypatch, ZeroDivisionError())
    with pytest.raises(ZeroDivisionError):
        cli("list")


def test_closed_pipe_is_quiet(tmp_path: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [*MBPM, "--home", str(tmp_path), "--help"], stdout=write, stderr=subprocess.PIPE, text=True
    )
    os.close(write)
    assert done.stderr == ""
    assert done.returncode == 1


def completed(words: str, home: Path, folder: Path | None = None) -> list[str]:
    """What bash is offered for the last of these words."""
    environ = {
        **os.environ,
        "MBPM_HOME": str(home),
        "_MBPM_COMPLETE": "complete_bash",
        "COMP_WORDS": words,
        "COMP_CWORD": str(words.count(" ")),
    }
    done = subprocess.run(MBPM, env=environ, capture_output=True, text=True, cwd=folder)
    return done.stdout.split()


def test_shell_completion_knows_the_commands(tmp_path: Path) -> None:
    assert completed("mbpm in", tmp_path) == ["install", "init", "info"]


def test_shell_completion_knows_packs(cli: Cli, registry: Path, publish, tmp_path: Path) -> None:
    publish("alpha")
    publish("alpine")
    cli.ok("registry", "add", "team", registry)
    cli.ok("install", "alpha", "--yes")
    assert completed("mbpm remove al", cli.home) == ["alpha"]
    assert completed("mbpm install al", cli.home) == ["alpha", "alpine"]
    assert completed("mbpm mark auto al", cli.home) == ["alpha"]
    (tmp_path / "alder.mbpack").touch()
    (tmp_path / "alder").mkdir()
    assert completed("mbpm install al", cli.home, tmp_path) == ["alpha", "alpine", "alder.mbpack"]
    offered = completed("mbpm install ./ald", cli.home, tmp_path)
    assert offered == ["./alder", "./alder.mbpack"]


def test_shell_completion_knows_bases_registries_and_profiles(
    cli: Cli, registry: Path, publish
) -> None:
    publish("alpha")
    cli.ok("registry", "add", "team", registry)
    cli.ok("--profile", "work", "install", "alpha", "--yes")
    assert completed("mbpm base install t", cli.home) == ["tiny"]
    assert completed("mbpm base remove smol", cli.home) == ["smollm2-135m"]
    assert completed("mbpm install alpha --registry ", cli.home) == ["bundled", "team"]
    assert completed("mbpm registry remove t", cli.home) == ["team"]
    assert completed("mbpm --profile w", cli.home) == ["work"]
    assert completed("mbpm profile remove w", cli.home) == ["work"]


@pytest.mark.parametrize("words", [["--version"], ["list"], ["search"], ["show", "alpha"]])
def test_start_up_imports_nothing_heavy(
    cli: Cli, registry: Path, publish, words: list[str]
) -> None:
    publish("alpha")
    cli.ok("install", "alpha", "--registry", registry, "--yes")
    code = (
        "import sys\n"
        "from mbpm.__main__ import run\n"
        f"assert run(['--home', {str(cli.home)!r}, *{words!r}]) == 0\n"
        "heavy = {'torch', 'numpy', 'runtime', 'trainer', 'httpx', 'huggingface_hub', 'tokenizers',"
        " 'prompt_toolkit', 'filelock', 'gguf', 'safetensors', 'jinja2'}\n"
        "found = heavy & set(sys.modules)\n"
        "assert not found, found\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_help_keeps_what_stands_in_brackets_and_shows_no_type_for_flags(cli: Cli) -> None:
    text = " ".join(cli.ok("train", "--help").out.replace("│", " ").split())
    assert "[default: 2048]" in text
    assert "Name of the pack [default: the domain]" in text
    lines = [x for x in cli.ok("install", "--help").out.splitlines() if "--dry-run" in x]
    assert lines
    assert "bool" not in lines[0]


def test_help_flows_over_the_line_breaks_of_the_source(cli: Cli) -> None:
    assert "then all of it changes at once." in cli.ok("install", "--help").out


def test_unknown_command_as_json(cli: Cli) -> None:
    error = cli("instal", "--json").json["error"]
    assert error["hint"] == "did you mean `mbpm install`?"


@pytest.mark.skipif(sys.platform == "win32", reason="closes what a POSIX shell closes")
@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize("command", ["list", "--version", "gc"])
def test_closed_streams_are_no_reason_to_fail(tmp_path: Path, command: str, closed: str) -> None:
    line = f'"{sys.executable}" -m mbpm --home "{tmp_path / "home"}" {command} {closed}'
    done = subprocess.run(["sh", "-c", line], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="file names are text elsewhere")
@pytest.mark.parametrize("words", [["--home", "{}", "list"], ["install", "./{}/x"]])
def test_path_that_is_no_text_is_refused_before_anything_is_done(
    cli: Cli, words: list[str]
) -> None:
    result = cli(*(w.format("h\udcff") for w in words))
    assert result.code == 2
    assert "h\\udcff" in result.err and "is not UTF-8" in result.err
    assert cli.ok("history").out == ""
