"""`mbpm registry`: where packs come from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from mbpm.options import DryRun, complete_registries
from mbpm.state import State
from specs.registries import BUNDLED, DEFAULT_PRIORITY, MAX_PRIORITY

if TYPE_CHECKING:
    from mbpm.registries.config import Known
    from mbpm.registries.refresh import Refreshed
    from mbpm.registries.remote import RemoteRegistry
    from specs.registries import Entry, RegistryList

app = typer.Typer(
    add_completion=False,
    help="Add, rank, list, refresh and remove registries: where packs come from. The one that "
    "ships with mbpm, `bundled`, is always there.",
)

Priority = Annotated[
    int | None,
    typer.Option(
        "--priority",
        metavar="N",
        min=0,
        max=MAX_PRIORITY,
        help=f"Whose pack is taken where several have a new name: the highest "
        f"({DEFAULT_PRIORITY} unless given; `bundled` has 100)",
    ),
]


@app.command("add")
def add(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(help="What to call it here")],
    address: Annotated[str, typer.Argument(help="An http(s) address, or a directory")],
    priority: Priority = None,
    mirror: Annotated[
        list[str] | None,
        typer.Option(
            "--mirror",
            metavar="URL",
            help="Ask here first for the files of packs; may be repeated",
        ),
    ] = None,
    token: Annotated[
        str | None,
        typer.Option(
            "--token",
            metavar="TOKEN",
            help="Its token; better `--token-stdin`, which no list shows",
        ),
    ] = None,
    token_stdin: Annotated[
        bool, typer.Option("--token-stdin", help="Read its token from standard input")
    ] = False,
    dry_run: DryRun = False,
) -> None:
    """Add a registry, after looking whether there is one.

    A name that a pack was once taken under stays with the registry it came from, whatever others
    offer. Adding a registry again under the same name changes its priority, mirrors or token.

    $ mbpm registry add team https://packs.example.org --priority 200
    $ mbpm registry add share /mnt/packs
    """
    from mbpm.lock import writer_lock
    from mbpm.registries import config, tokens

    state: State = ctx.obj
    home = state.home.path
    entry, secret = _entry(state, name, address, priority, mirror), _secret(token, token_stdin)
    known = config.Known(name, entry.address, entry.priority, entry.mirrors)
    if secret is not None:
        _check_token(state, known)
    packs, problems = _look(state, known, secret)
    if not dry_run:
        with writer_lock(home, state.out):
            if secret is not None:
                kept = tokens.store(home, name, entry.address, secret)
                entry = entry.model_copy(update={"keyring": kept})
            config.write(home, config.with_entry(config.read(home), name, entry))
    for problem in problems:
        state.out.warn(problem)
    done = "would add" if dry_run else "added"
    state.out.note(f"{done} {name}, {entry.address}, with {packs:,} packs")
    stored = secret is not None and not dry_run
    state.out.result({"registry": _described(known), "packs": packs, "token_stored": stored})


def _entry(
    state: State, name: str, address: str, priority: int | None, mirrors: list[str] | None
) -> Entry:
    from mbpm.registries import config
    from specs.errors import IntegrityError, UsageError
    from specs.registries import Entry

    config.check_registry_name(name)
    address = config.address_of(address)
    found = config.read(state.home.path)
    old = found.registries.get(name)
    if old is not None and old.address != address:
        raise UsageError(
            f"`{name}` is configured already, for {old.address}",
            hint=f"choose another name, or `mbpm registry remove {name}` first",
        )
    value: dict[str, Any] = old.model_dump(mode="json") if old else {"address": address}
    if priority is not None:
        value["priority"] = priority
    if mirrors:
        value["mirrors"] = [config.address_of(m) for m in mirrors]
    try:
        entry = Entry.from_object(value, f"registry `{name}`")
    except IntegrityError as error:
        raise UsageError(error.message) from None
    config.with_entry(found, name, entry)
    return entry


def _secret(token: str | None, from_stdin: bool) -> str | None:
    import sys

    from mbpm.registries.tokens import check_token
    from specs.errors import UsageError

    if from_stdin and token is not None:
        raise UsageError("`--token` and `--token-stdin` exclude each other")
    if from_stdin:
        token = sys.stdin.readline(5000).strip()
    return None if token is None else check_token(token, "the token")


def _check_token(state: State, known: Known) -> None:
    from urllib.parse import urlsplit

    from specs.errors import UsageError

    if not known.remote:
        raise UsageError(f"{known.address}: a directory takes no token")
    host = urlsplit(known.address).hostname
    if known.address.startswith("http:") and host not in ("localhost", "127.0.0.1", "::1"):
        state.out.warn(f"the token goes to {host} unencrypted, for the address is not https")


def _look(state: State, known: Known, secret: str | None) -> tuple[int, list[str]]:
    """How many packs a registry has, and what is wrong with some; raises where there is none."""
    if not known.remote:
        return _count(known), []
    source = _remote(state, known, secret)
    result = source.refresh()
    source.close()
    return result.packs, result.problems


def _count(known: Known) -> int:
    from pathlib import Path

    from registry_index import bundled
    from registry_index.tree import Registry

    registry = bundled() if known.name == BUNDLED else Registry(Path(known.address))
    return len(registry.names())


def _remote(state: State, known: Known, secret: str | None = None) -> RemoteRegistry:
    from dataclasses import replace

    from mbpm.registries.remote import RemoteRegistry
    from mbpm.registries.tokens import Tokens

    network = state.network
    if secret is not None:
        tokens = Tokens(state.home.path, {known.address: secret})
        network = replace(network, authorize=tokens.authorize)
    out = state.out
    return RemoteRegistry(known, state.home.path, network, warn=out.warn, note=out.note)


@app.command("remove")
def remove(
    ctx: typer.Context,
    name: Annotated[
        str,
        typer.Argument(
            help="A registry of `mbpm registry list`", autocompletion=complete_registries
        ),
    ],
    dry_run: DryRun = False,
) -> None:
    """Remove a registry, its token and what is cached of it. Packs stay installed.

    $ mbpm registry remove team
    """
    from mbpm.files import remove as remove_folder
    from mbpm.lock import writer_lock
    from mbpm.registries import config, tokens
    from mbpm.registries.cache import folder_of
    from specs.errors import UsageError

    state: State = ctx.obj
    home = state.home.path
    if name == BUNDLED:
        raise UsageError(
            "the bundled registry is part of mbpm and cannot be removed",
            hint="`mbpm registry priority bundled 0` makes every other one come first",
        )
    entry = config.entry_of(config.read(home), name)
    if not dry_run:
        with writer_lock(home, state.out):
            config.write(home, config.without(config.read(home), name))
            tokens.forget(home, name, entry.address if entry.keyring else None)
            remove_folder(folder_of(home, entry.address))
    packs = [p.name for p in state.home.current().packs if p.registry == entry.address]
    state.out.note(f"{'would remove' if dry_run else 'removed'} {name}, {entry.address}")
    if packs:
        listed = ", ".join(packs[:5]) + (" …" if len(packs) > 5 else "")
        state.out.warn(f"installed packs came from it and get no upgrades now: {listed}")
    state.out.result({"removed": name, "address": entry.address, "packs": packs})


@app.command("priority")
def priority(
    ctx: typer.Context,
    name: Annotated[
        str,
        typer.Argument(
            help="A registry of `mbpm registry list`", autocompletion=complete_registries
        ),
    ],
    number: Annotated[
        int, typer.Argument(metavar="N", min=0, max=MAX_PRIORITY, help="The higher one comes first")
    ],
    dry_run: DryRun = False,
) -> None:
    """Set a registry's priority. It decides about names that nobody provided before.

    $ mbpm registry priority team 200
    """
    from mbpm.lock import writer_lock
    from mbpm.registries import config

    state: State = ctx.obj
    config.with_priority(config.read(state.home.path), name, number)
    if not dry_run:
        with writer_lock(state.home.path, state.out):
            found = config.with_priority(config.read(state.home.path), name, number)
            config.write(state.home.path, found)
    state.out.note(f"{name} {'would have' if dry_run else 'has'} priority {number}")
    state.out.result({"registry": name, "priority": number})


@app.command("list")
def list_registries(ctx: typer.Context) -> None:
    """List the registries, the one with the highest priority first; asks none of them.

    $ mbpm registry list
    """
    from mbpm.registries.config import in_order, read
    from mbpm.registries.tokens import Tokens

    state: State = ctx.obj
    tokens = Tokens(state.home.path)
    found: list[dict[str, Any]] = []
    for known in in_order(read(state.home.path)):
        token = known.remote and tokens.has(known.address)
        found.append({**_described(known), "token": token, **_facts(state, known)})
    state.out.result({"registries": found})
    rows = []
    for item in found:
        packs = "unknown" if item["packs"] is None else f"{item['packs']:,}"
        checked = item["checked"] or ("never" if "://" in item["address"] else "read in place")
        secret = "yes" if item["token"] else "no"
        rows.append([item["name"], str(item["priority"]), packs, checked, secret, item["address"]])
    state.out.table(["NAME", "PRIORITY", "PACKS", "CHECKED", "TOKEN", "ADDRESS"], rows)


def _described(known: Known) -> dict[str, Any]:
    return {
        "name": known.name,
        "address": known.address,
        "priority": known.priority,
        "mirrors": list(known.mirrors),
    }


def _facts(state: State, known: Known) -> dict[str, Any]:
    from datetime import datetime, timezone

    from specs.errors import MbpmError

    if not known.remote:
        try:
            return {"packs": _count(known), "checked": None}
        except MbpmError:
            return {"packs": None, "checked": None}
    from mbpm.registries.cache import facts

    said = facts(state.home.path, known.address)
    checked = said.get("checked")
    if not isinstance(checked, float):
        return {"packs": None, "checked": None}
    when = datetime.fromtimestamp(checked, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {"packs": said.get("packs"), "checked": when}


@app.command("refresh")
def refresh(
    ctx: typer.Context,
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="NAME",
            help="Registries; all remote ones if none is named",
            autocompletion=complete_registries,
        ),
    ] = None,
) -> None:
    """Ask remote registries what changed, and fetch that.

    Other commands do so by themselves where the last time was more than ten minutes ago.

    $ mbpm registry refresh team
    """
    from mbpm.registries.config import in_order, read
    from specs.errors import MbpmError

    state: State = ctx.obj
    found = read(state.home.path)
    wanted = _wanted(found, names, in_order(found))
    done: list[dict[str, Any]] = []
    failure: MbpmError | None = None
    for known in wanted:
        try:
            result = _remote(state, known).refresh()
        except MbpmError as error:
            # the others are refreshed all the same
            if failure is not None:
                state.out.warn(failure.message)
            failure = error
            continue
        done.append({**_described(known), **vars(result)})
        _tell(state, known, result)
    if failure is not None:
        failure.details["refreshed"] = done
        raise failure
    if not wanted:
        state.out.note("no remote registry is configured")
    state.out.result({"refreshed": done})


def _wanted(found: RegistryList, names: list[str] | None, known: list[Known]) -> list[Known]:
    from mbpm.registries.config import entry_of

    if not names:
        return [k for k in known if k.remote]
    for name in names:
        if name != BUNDLED:
            entry_of(found, name)
    return [k for k in known if k.name in names and k.remote]


def _tell(state: State, known: Known, result: Refreshed) -> None:
    from mbpm.output import size

    for problem in result.problems:
        state.out.warn(problem)
    if result.bare:
        state.out.note(f"{known.name}: has no summary; packs are found by their exact name only")
        return
    what = "nothing changed"
    if result.changed_pages:
        what = f"fetched {size(result.fetched_bytes)} of {size(result.total_bytes)}"
    state.out.note(f"{known.name}: {result.packs:,} packs, {what}")
