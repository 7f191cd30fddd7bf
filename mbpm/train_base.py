"""`mbpm train --base FILE.toml`: a base from a configuration and text."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from mbpm.place import installed_base
from mbpm.typed import typed
from specs.errors import NotFoundError, UsageError

if TYPE_CHECKING:
    from mbpm.state import State
    from trainer.make_pack import Reporter
    from trainer.pretrain.make import TrainingRecord

OPTIONS = frozenset(["base", "data", "output", "device", "restart"])
"""What is said beside a base's configuration."""


def train_base(
    ctx: typer.Context,
    file: Path,
    *,
    data: Sequence[str],
    output: Path | None,
    device: str,
    restart: bool,
    progress: Reporter,
) -> None:
    """Make a base folder.

    Args:
        file: the base's configuration.
        output: by default `./NAME-base`.

    Raises:
        UsageError, NotFoundError, IntegrityError: what was given is not usable.
    """
    from trainer.pretrain.config import BaseConfig

    state: State = ctx.obj
    of_packs = {p.name or "" for p in ctx.command.params} - OPTIONS
    if (option := typed(ctx, of_packs)) is not None:
        raise UsageError(
            f"`{option}` is for packs, and `--base {file}` trains a base",
            hint=f"what decides a base's training stands in {file}",
        )
    if not file.is_file():
        raise NotFoundError(f"{file}: no such file", hint="docs/bases.md shows what it holds")
    if not data:
        raise UsageError(
            "`--data SOURCE` is missing: the text the base learns from",
            hint=f"`mbpm train --base {file} --data texts/`",
        )
    config = BaseConfig.read_toml(file)
    folder = output or Path(f"{config.name}-base")
    base_dir = None
    if config.continues is not None:
        installed = installed_base(state.home, state.home.current(), config.continues)
        base_dir = state.home.base_dir(installed)

    from mbpm.training_data import opened
    from trainer.pretrain.make import drop_checkpoints, make_own_base

    if restart:
        drop_checkpoints(folder)
    with opened(state, data) as found:
        _, record = make_own_base(
            config, found.files, folder, progress, base_dir=base_dir, device=device
        )
    _show(state, folder, record)


def _show(state: State, folder: Path, record: TrainingRecord) -> None:
    out = state.out
    out.table(
        ["predicted by", "perplexity", "95 % interval", "bits per byte"],
        [
            [
                p.name,
                f"{p.perplexity:.2f}",
                "" if p.low is None else f"{p.low:.2f} to {p.high:.2f}",
                f"{p.bits_per_byte:.4f}",
            ]
            for p in record.predictions
        ],
    )
    out.line(f"{record.held_out_tokens:,} held-out tokens, {record.parameters:,} parameters")
    out.line(f"base folder: {folder}")
    out.result({"folder": str(folder), **record.model_dump(mode="json")})
    place = folder if len(folder.parts) > 1 else f"./{folder}"
    out.hint(f"`mbpm base install {place}`")
