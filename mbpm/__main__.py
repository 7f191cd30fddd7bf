"""The entry point: run the command line, turn every failure into one clear message."""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import sys
from pathlib import Path

from mbpm.output import print_version, silence_stdout
from mbpm.quick import run_options
from mbpm.state import State
from specs.errors import DoesNotFitError, MbpmError, UsageError, disk_full

INTERRUPTED = 130


def run(arguments: list[str]) -> int:
    """Run one command line and return its exit code; only defects raise."""
    state = State()
    try:
        state = State.from_environment(arguments, os.environ)
        code = _dispatch(arguments, state)
        sys.stdout.flush()
    except BrokenPipeError:
        with contextlib.suppress(OSError, ValueError):
            silence_stdout(sys.stdout)
        return 1
    except KeyboardInterrupt:
        print(file=sys.stderr)
        return INTERRUPTED
    except (MbpmError, OSError) as error:
        return _fail(error if isinstance(error, MbpmError) else explain(error), state)
    return code


def _dispatch(arguments: list[str], state: State) -> int:
    if arguments in (["--version"], ["-V"]):
        # what scripts ask most often needs no parser
        print_version(state.out)
        return 0
    # pydantic would look through every installed package for plugins; there are none for us
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    if (asked := run_options(arguments, state)) is not None:
        from mbpm.asking import ask

        ask(state, **asked)
        return 0
    import typer

    from mbpm.app import root

    try:
        code = root().main(arguments, prog_name="mbpm", standalone_mode=False, obj=state)
    except typer.Abort:
        return INTERRUPTED
    except Exception as error:
        # Typer's own errors have no public base class; they all can describe themselves.
        if not hasattr(error, "format_message"):
            raise
        if "--json" in arguments:
            state.out.mode = "json"
        raise _usage(error, arguments) from None
    return code if isinstance(code, int) else 0


def _usage(error: Exception, arguments: list[str]) -> UsageError:
    text: str = error.format_message().strip().rstrip(".")  # type: ignore[attr-defined]
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else "mbpm"
    return UsageError(text[:1].lower() + text[1:], hint=f"`{path} --help` shows what is accepted")


def explain(error: OSError) -> MbpmError:
    """An operating system's refusal in our words."""
    where = f"{error.filename}: " if error.filename is not None else ""
    reason = (error.strerror or str(error) or type(error).__name__).lower()
    if disk_full(error):
        return DoesNotFitError(
            f"{where}the disk is full ({reason})",
            hint="free some space, or put the home elsewhere with `--home DIR`; "
            "what was installed before is unchanged",
        )
    if error.errno == errno.EROFS:
        hint = "mount it for writing, or put the home elsewhere with `--home DIR`"
        return MbpmError(f"{where}{reason}", hint=hint)
    if isinstance(error, PermissionError):
        return MbpmError(
            f"{where}{reason}",
            hint="check who owns it, or put the home elsewhere with `--home DIR`",
        )
    return MbpmError(f"{where}{reason}")


def _fail(error: MbpmError, state: State) -> int:
    try:
        state.out.error(error)
        sys.stdout.flush()
    except BrokenPipeError:
        with contextlib.suppress(OSError, ValueError):
            silence_stdout(sys.stdout)
    return error.exit_code


def _open_what_is_closed() -> None:
    """Somebody who closes a standard stream wants nothing from it, which is no reason to fail."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open(mode))  # noqa: SIM115


def main() -> None:
    """`mbpm` on the command line."""
    # what is imported stays: looking through it again and again is time for nothing
    gc.set_threshold(100_000)
    _open_what_is_closed()
    for stream in (sys.stdout, sys.stderr):
        # a terminal that cannot show a character gets a mark instead of a crash
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
