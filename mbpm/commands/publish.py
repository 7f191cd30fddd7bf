"""`mbpm publish`: put a pack folder into a registry directory."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mbpm.commands.pack import describe, summary
from mbpm.options import DryRun, Yes
from mbpm.state import State
from specs.errors import UsageError


def command(
    ctx: typer.Context,
    folder: Annotated[Path, typer.Argument(help="A pack folder, as `mbpm train` makes it")],
    registry: Annotated[
        str, typer.Option(metavar="DIRECTORY", help="The registry; made where it is missing")
    ],
    force: Annotated[
        bool,
        typer.Option("--force", help="Publish although a gate failed, and record that"),
    ] = False,
    publisher: Annotated[
        str,
        typer.Option(
            metavar="TEXT",
            envvar="MBPM_PUBLISHER",
            help="Who publishes it, for the index: `Name <address>`",
        ),
    ] = "",
    dry_run: DryRun = False,
    yes: Yes = False,
) -> None:
    """Check a pack folder and publish it to a registry.

    The registry is a directory, such as what a web server hands out; an address is refused. What is
    published never changes: `mbpm yank` hides a version, and a new one needs a new number.

    Refused are a pack that does not attach to its base and a version that is published already;
    and, unless `--force` is given, a pack that fails a gate: its evals must show a gain on its own
    domain, little change elsewhere, and routing that keeps to its own questions.

    $ mbpm publish legal-pack --registry ~/packs --dry-run
    $ mbpm publish legal-pack --registry ~/packs
    """
    from registry_index.packing import build_manifest
    from registry_index.publish import check_release, publish
    from specs.pack_toml import read_pack_toml

    state: State = ctx.obj
    out = state.out
    root = directory(registry)
    gates = read_pack_toml(folder).gates
    manifest, files = build_manifest(folder)
    release = check_release(
        manifest, files, root, gates=gates, force=force, publisher=_publisher(publisher)
    )
    out.line(
        f"publish  {manifest.name} {manifest.version} to {root}"
        + (" (a new registry)" if release.new_registry else "")
    )
    describe(out, manifest, release.base, release.modules)
    if (main := release.line.evals) is not None:
        out.line(f"gain     {main.metric}: {main.base:.4g} -> {main.pack:.4g}, {main.rows} rows")
    if publisher:
        out.line(f"by       {publisher}")
    for reason in release.line.forced:
        out.warn(f"published in spite of this: {reason}")
    if not dry_run:
        out.confirm("Publish?", yes=yes)
        publish(release, root)
        out.note(f"published {manifest.name} {manifest.version}")
        if out.mode == "human":
            out.hint(f"install it with `mbpm install {manifest.name} --registry {root}`")
    out.result(
        {
            "registry": str(root),
            "published": not dry_run,
            "publisher": publisher,
            "forced": list(release.line.forced),
            **summary(manifest, release.base, release.modules),
        }
    )


def _publisher(text: str) -> str:
    from specs.index_line import check_one_line

    try:
        return check_one_line(text)
    except ValueError as error:
        raise UsageError(f"`--publisher` {error}") from None


def directory(registry: str) -> Path:
    """The directory of a registry to change; UsageError where an address is given."""
    if "://" in registry:
        raise UsageError(
            f"`{registry}` is an address, and publishing needs a directory",
            hint="publish into a directory, and let a web server hand that out",
        )
    return Path(registry).expanduser()
