"""`mbpm upgrade`: newer versions of what is installed."""

from __future__ import annotations

from collections.abc import Sequence

import typer

from mbpm.options import AllOrNames, DryRun, NoRecommends, Prereleases, Registries, Yes
from mbpm.state import State


def command(
    ctx: typer.Context,
    names: AllOrNames = None,
    registry: Registries = None,
    yes: Yes = False,
    dry_run: DryRun = False,
    no_recommends: NoRecommends = False,
    pre: Prereleases = False,
) -> None:
    """Upgrade packs to the newest versions that fit together. Removes nothing.

    New packs are installed where an upgrade requires them. What stays behind is listed with the
    reason; `mbpm full-upgrade` may also remove what is in the way. `mbpm changelog NAME` shows
    what is new.

    $ mbpm upgrade
    $ mbpm upgrade legal --dry-run
    """
    upgrade(
        ctx.obj,
        names or [],
        registry,
        yes=yes,
        dry_run=dry_run,
        recommends=not no_recommends,
        prereleases=pre,
        removable=False,
    )


def upgrade(
    state: State,
    names: Sequence[str],
    registry: Sequence[str] | None,
    *,
    yes: bool,
    dry_run: bool,
    recommends: bool,
    prereleases: bool,
    removable: bool,
) -> None:
    """Shared with `mbpm full-upgrade`."""
    from mbpm.change import carry_out
    from mbpm.change.install import Goal, prepare
    from mbpm.resolver import Request
    from mbpm.upgrades import lines_of
    from mbpm.verify import installed_packs

    records = installed_packs(state.home, names)
    found = [p.name for p in records]
    # a pack that is named may come from a registry although it was installed from a file
    requests = tuple(Request(n) for n in dict.fromkeys(names))
    goal = Goal(
        requests,
        upgrade=frozenset(found),
        removable=removable,
        recommends=recommends,
        prereleases=prereleases,
        keep_marks=True,
    )
    catalogue = state.catalogue(registry)
    for record in records:
        # nobody should take "up to date" for an answer where nobody was asked
        lines_of(state, record, catalogue)
    carry_out(
        state,
        lambda: prepare(state.home, goal, catalogue),
        yes=yes,
        dry_run=dry_run,
        idle="everything is up to date" if found else "no packs are installed",
    )
