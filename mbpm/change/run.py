"""Showing a plan, asking, carrying it out and saying so: the end of every command that changes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from mbpm.change.show import done, show
from specs.errors import ResolutionError

if TYPE_CHECKING:
    from mbpm.change.steps import Prepared
    from mbpm.home import Home
    from mbpm.state import State
    from specs.generation import Cause, Generation


def carry_out(
    state: State,
    prepare: Callable[[], Prepared],
    *,
    yes: bool,
    dry_run: bool,
    cause: Cause = "change",
    restores: int | None = None,
    idle: str | None = None,
    more: Mapping[str, object] | None = None,
) -> Generation:
    """Plan, ask, do, and report; prints the JSON document too.

    Args:
        state: The command.
        prepare: Makes the plan; called again when something else was installed in between.
        yes: Do not ask.
        dry_run: Only show.
        cause: What the history says of it.
        restores: The generation whose content it repeats.
        idle: What to say when there is nothing to do.
        more: Other keys of the JSON document, or `changed` where something was already.

    Raises:
        MbpmError: as the plan, the question and `apply` do.
    """
    out, home = state.out, state.home
    prepared = prepare()
    plan = prepared.plan
    document = {"changed": False, **(more or {}), "plan": plan.model_dump(mode="json")}
    for sentence in prepared.satisfied:
        out.note(sentence)
    show(plan, out, _places(prepared, home), purge=bool(prepared.purged), marks=dry_run)
    if plan.empty or dry_run:
        if plan.empty and home.journal.exists() and not dry_run:
            # a killed command got as far as this; what it left is put right all the same
            from mbpm.transaction import writer

            with writer(home, out, state.command_line):
                pass
        if plan.empty and idle and not prepared.satisfied and not plan.kept_back:
            out.note(idle)
        out.result({**document, "generation": prepared.before.number})
        return prepared.before
    if plan.actions - {"mark"}:
        out.confirm("Go ahead?", yes=yes)
    from mbpm.change.apply import apply
    from mbpm.transaction import writer

    with writer(home, out, state.command_line) as right:
        did, generation = apply(
            right, prepared, prepare, state.network, out, cause=cause, restores=restores
        )
    if did is not prepared:
        for sentence in did.satisfied:
            out.note(sentence)
    done(did.plan, out)
    document |= {"plan": did.plan.model_dump(mode="json")}
    document["changed"] = document["changed"] or not did.plan.empty
    out.result({**document, "generation": generation.number})
    return generation


def _places(prepared: Prepared, home: Home) -> dict[str, str]:
    """The registries of what did not come from there before; the bundled one is not named."""
    if not prepared.plan.packs:
        return {}
    from mbpm.registries.config import display_names
    from specs.registries import BUNDLED

    old = {p.name: p.registry for p in prepared.before.packs}
    moved = {
        p.name: p.registry
        for p in prepared.plan.packs
        if p.registry not in ("", BUNDLED, old.get(p.name)) and p.action != "mark"
    }
    names = display_names(home.path, moved.values())
    return {name: names[label] for name, label in moved.items()}


def restore(
    state: State,
    target: Generation,
    *,
    cause: Cause,
    restores: int,
    yes: bool,
    dry_run: bool,
    since: int | None = None,
) -> None:
    """Go back to an earlier generation's packs and bases, in a new generation.

    Args:
        state: The command.
        target: What to go back to.
        cause: What the history says of it.
        restores: The target's number.
        yes: Do not ask.
        dry_run: Only show.
        since: The generation that has to count still, where it decided about the target.

    Raises:
        ResolutionError: another one counts.
        MbpmError: as `carry_out`.
    """
    from mbpm.change.restore import prepare_exact

    catalogue = state.catalogue()

    def prepare() -> Prepared:
        prepared = prepare_exact(state.home, target.packs, catalogue, bases=target.bases)
        # of the very state that the plan is for, which may be newer than what counts at any
        # other moment that is looked at
        if since is not None and prepared.before.number != since:
            raise ResolutionError(
                "what is installed changed in the meantime, and with it what the last change is",
                hint="run the same command again",
            )
        return prepared

    carry_out(
        state,
        prepare,
        yes=yes,
        dry_run=dry_run,
        cause=cause,
        restores=restores,
        idle=f"generation {target.number} holds what is installed already",
    )
