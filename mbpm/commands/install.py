"""`mbpm install`: packs, and the base they need."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Annotated

import typer

from mbpm.options import DryRun, NoRecommends, Prereleases, Registries, Yes, complete_known
from mbpm.state import State

if TYPE_CHECKING:
    from mbpm.change.steps import Offers


def command(
    ctx: typer.Context,
    targets: Annotated[
        list[str],
        typer.Argument(
            metavar="TARGET",
            help="NAME, NAME@REQUIREMENT (such as `medical@1.2`), a pack FOLDER, a FILE.mbpack, or "
            "a FILE.mbundle and, if not everything in it is wanted, names of packs",
            autocompletion=complete_known,
        ),
    ],
    registry: Registries = None,
    yes: Yes = False,
    dry_run: DryRun = False,
    reinstall: Annotated[
        bool, typer.Option("--reinstall", help="Check installed files and fetch what is damaged")
    ] = False,
    no_recommends: NoRecommends = False,
    pre: Prereleases = False,
) -> None:
    """Install packs, what they require, and the base they need.

    Shows the plan and asks. Nothing changes until everything was fetched and checked; then all of
    it changes at once. What is installed already stays at its version; `NAME@=1.2.0` changes to
    exactly that version, older ones included.

    From a bundle, packs and bases are taken as they are in it, and nothing is asked from anywhere
    else. Later upgrades come from the registries that the bundle names.

    $ mbpm install medical legal@1.2
    $ mbpm install ./my-pack --dry-run
    $ mbpm install lease@=2.0.1 --registry team --yes
    $ mbpm install packs.mbundle --offline
    """
    from mbpm.change import carry_out
    from mbpm.change.install import Goal, parse_target, prepare, reached

    state: State = ctx.obj
    goal = Goal(recommends=not no_recommends, prereleases=pre, reinstall=reinstall)
    catalogue: Callable[[], Offers]
    unknown: tuple[str, ...] = ()
    unproven: dict[str, list[str]] = {}
    if any(text.endswith(".mbundle") for text in targets):
        from mbpm.bundles import open_targets

        opened = open_targets(state.home, targets, registry or ())
        catalogue, unknown = (lambda: opened.catalogue), opened.unknown
        for name, directory in opened.unproven.items():
            unproven.setdefault(directory, []).append(name)
        goal = replace(
            goal, requests=opened.requests, bases=opened.bases, locked=opened.catalogue.locked()
        )
    else:
        goal = replace(goal, requests=tuple(parse_target(text) for text in targets))
        catalogue = cache(lambda: state.catalogue(registry))
    home = state.home
    carry_out(
        state,
        # where all of it is there, no registry is opened
        lambda: reached(home, goal) or prepare(home, goal, catalogue()),
        yes=yes,
        dry_run=dry_run,
    )
    for address in unknown:
        state.out.note(
            f"upgrades come from {address} once it is configured: "
            f"`mbpm registry add NAME {address}`"
        )
    for directory, names in unproven.items():
        state.out.note(
            f"{', '.join(names)}: from the bundle and not from {directory}, as it says, for that "
            f"is no registry here; `--registry {directory}` takes its word for it"
        )
