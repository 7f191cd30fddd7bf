"""`mbpm repair`: mend whatever is damaged."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import typer

from mbpm.options import DryRun, Registries, Yes
from mbpm.state import State


def command(
    ctx: typer.Context, registry: Registries = None, yes: Yes = False, dry_run: DryRun = False
) -> None:
    """Check every byte of everything installed, packs and bases, and mend what is damaged.

    Good parts of a damaged file are kept: only the bad ones are fetched. Where the record of what
    is installed is damaged itself, this goes back to the last one that can be read, and a damaged
    record of where names come from is made again from the history.

    $ mbpm repair --dry-run
    """
    mend = {"yes": yes, "dry_run": dry_run}
    if mend_pointer(ctx.obj, **mend) and mend_origins(ctx.obj, **mend):
        repair(ctx.obj, [], registry, bases=True, yes=yes, dry_run=dry_run)


def mend_pointer(state: State, *, yes: bool, dry_run: bool) -> bool:
    """Make the last generation that can be read the current one, where the current one cannot.

    Returns:
        Whether the current generation can be read now.
    """
    from mbpm.files import write_atomic
    from mbpm.lock import writer_lock
    from specs.errors import IntegrityError

    home, out = state.home, state.out
    try:
        home.current()
    except IntegrityError as error:
        number = home.last_readable()
        what = f"generation {number}" if number else "nothing installed"
        out.warn(error.message)
        out.line(f"repair     go back to {what}, the last state that can be read")
        if not dry_run:
            out.confirm("Go ahead?", yes=yes)
            with writer_lock(home.path, out):
                write_atomic(home.pointer, f"{number}\n".encode())
        else:
            out.result({"generation": number, "changed": False})
            return False
    return True


def mend_origins(state: State, *, yes: bool, dry_run: bool) -> bool:
    """Make the records of where names come from again, where they cannot be read.

    Returns:
        Whether they can be read now.
    """
    from mbpm.home import DEFAULT_PROFILE
    from mbpm.lock import writer_lock
    from mbpm.registries import origins
    from specs.errors import IntegrityError

    out, home = state.out, state.home
    for profile in (home.with_profile(DEFAULT_PROFILE), home):
        try:
            origins.read(profile)
        except IntegrityError as error:
            out.warn(error.message)
            out.line(f"repair     {origins.ORIGINS_FILE}, from what was installed so far")
            if dry_run:
                out.result({"generation": home.current().number, "changed": False})
                return False
            out.confirm("Go ahead?", yes=yes)
            with writer_lock(home.path, out):
                origins.rebuild(profile)
    return True


def repair(
    state: State,
    names: Sequence[str],
    registry: Sequence[str] | None,
    *,
    bases: bool,
    yes: bool,
    dry_run: bool,
) -> None:
    """Shared with `mbpm reinstall`."""
    from mbpm.change import carry_out
    from mbpm.change.install import prepare_repair
    from mbpm.verify import installed_packs

    dropped = _drop_damaged(state, yes=yes, dry_run=dry_run) if bases else False
    packs = installed_packs(state.home, names)
    catalogue = state.catalogue(registry)
    idle = "every byte is right" if packs or bases else "nothing is installed"
    if dropped:
        idle = "every other byte is right"
    carry_out(
        state,
        lambda: prepare_repair(state.home, packs, catalogue, bases=bases),
        yes=yes,
        dry_run=dry_run,
        idle=idle,
        more={"changed": dropped and not dry_run},
    )
    if bases and not dry_run:
        _run_failed_triggers(state)


def _drop_damaged(state: State, *, yes: bool, dry_run: bool) -> bool:
    """Free what was made of bases for a faster start, where it is damaged: it is made anew.

    Returns:
        Whether there was any.
    """
    from mbpm.files import remove
    from mbpm.lock import writer_lock
    from mbpm.verify import check_base

    home, out = state.home, state.out
    damaged: list[Path] = []
    for base in home.current().bases:
        for file, problem in check_base(home, base).kept.items():
            out.warn(problem)
            out.line(f"repair     {file.name} of base {base.name}: the next run makes it anew")
            damaged.append(file)
    if damaged and not dry_run:
        out.confirm("Go ahead?", yes=yes)
        with writer_lock(home.path, out):
            for file in damaged:
                try:
                    remove(file)
                except OSError as error:
                    out.warn(
                        f"{file}: cannot be removed ({(error.strerror or str(error)).lower()})"
                    )
    return bool(damaged)


def _run_failed_triggers(state: State) -> None:
    from mbpm.transaction import writer
    from mbpm.triggers import current_files, run_triggers

    home, out = state.home, state.out
    if not all(file.is_file() for file in current_files(home)):
        with writer(home, out, state.command_line):
            run_triggers(home, home.current(), out)
