"""Options that several commands share, so that they read alike everywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

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
