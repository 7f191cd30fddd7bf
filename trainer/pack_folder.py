"""Writing the result of a training run: a folder that `mbpm pack`, `publish` and `install` take."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path

import tomli_w
import torch
from safetensors.torch import save

from specs.base_card import BaseCard
from specs.evals import Evals, Metric, Subject
from specs.knowledge import Passage
from specs.manifest import (
    ADAPTER_FILE,
    EVALS_FILE,
    KNOWLEDGE_FILE,
    README_FILE,
    ROUTING_FILE,
    AdapterInfo,
    BaseRef,
    Canary,
    DataSource,
)
from specs.names import Name
from specs.pack_toml import PACK_TOML, Gates, PackToml
from trainer.data.knowledge import write_knowledge
from trainer.picture import draw

PICTURE_FILE = "evals.svg"
"""Beside the pack's files, and no part of the pack."""


@dataclass(frozen=True)
class PackSpec:
    """What the author says about a pack."""

    name: Name
    version: str
    domain: Name
    description: str
    license: str
    sources: tuple[DataSource, ...] = ()
    recipe: str | None = None
    gates: Gates = field(default_factory=Gates)

    def of(self, card: BaseCard, adapter: AdapterInfo, canaries: tuple[Canary, ...]) -> PackToml:
        """The whole `pack.toml` of an adapter for a base."""
        said = {each.name: getattr(self, each.name) for each in fields(self)}
        base = BaseRef(name=card.name, fingerprint=card.fingerprint)
        return PackToml(**said, base=base, adapter=adapter, canaries=canaries)


def to_half(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """float16 copies: what a pack ships, and therefore what is evaluated."""
    return {name: tensor.to(torch.float16).contiguous() for name, tensor in tensors.items()}


def write_pack_folder(
    folder: Path,
    pack: PackToml,
    adapter: dict[str, torch.Tensor],
    routing: bytes,
    evals: Evals,
    passages: Sequence[Passage] = (),
) -> Evals:
    """Write every file of an author's pack folder; `pack.toml` comes last and makes it one.

    What an earlier run left there and this one does not write is removed.

    Returns:
        The evals as they were written: with what they are of.
    """
    folder.mkdir(parents=True, exist_ok=True)
    weights = save(adapter)
    subject = Subject(
        weights=hashlib.sha256(weights).hexdigest(),
        routing=hashlib.sha256(routing).hexdigest(),
        adapter=pack.adapter,
    )
    evals = evals.model_copy(update={"subject": subject})
    files = {
        ADAPTER_FILE: weights,
        ROUTING_FILE: routing,
        EVALS_FILE: evals.canonical(),
        README_FILE: card_text(pack, evals).encode(),
        PICTURE_FILE: draw(evals, f"{pack.name} {pack.version}").encode(),
        PACK_TOML: tomli_w.dumps(pack.model_dump(mode="json", exclude_none=True)).encode(),
    }
    unmake(folder)
    if passages:
        write_knowledge(folder / KNOWLEDGE_FILE, passages)
    else:
        (folder / KNOWLEDGE_FILE).unlink(missing_ok=True)
    _write(folder, files)
    return evals


def unmake(folder: Path) -> None:
    """Make a folder no pack folder any more: a kill while it is written leaves no mixture."""
    (folder / PACK_TOML).unlink(missing_ok=True)


def write_evals(folder: Path, pack: PackToml, evals: Evals) -> None:
    """Put other evals into a pack folder, into the card for people too, and a picture beside."""
    _write(
        folder,
        {
            README_FILE: card_text(pack, evals).encode(),
            PICTURE_FILE: draw(evals, f"{pack.name} {pack.version}").encode(),
            EVALS_FILE: evals.canonical(),
        },
    )


def _write(folder: Path, files: Mapping[str, bytes]) -> None:
    for name, data in files.items():
        temporary = folder / f".{name}.tmp"
        temporary.write_bytes(data)
        temporary.replace(folder / name)


def card_text(pack: PackToml, evals: Evals) -> str:
    """The pack's README: what it is for, what it was made from, what was measured."""
    lines = [
        f"# {pack.name} {pack.version}",
        "",
        pack.description,
        "",
        f"- Base: `{pack.base.name}`, fingerprint `{pack.base.fingerprint[:16]}…`",
        f"- Adapter: rank {pack.adapter.rank}, alpha {pack.adapter.alpha:g}, on "
        f"{pack.adapter.modules} modules, active on "
        + ("the answer only" if pack.adapter.activation == "answer" else "every token"),
        f"- Licence: {pack.license}",
        "",
        "## Evaluation",
        "",
    ]
    if evals.metrics:
        lines += [
            f"On held-out groups of rows; {evals.runtime}; 95 % intervals by paired bootstrap over "
            "groups.",
            "",
            "| metric | base | with pack | gain | rows |",
            "|---|---|---|---|---|",
            *(_row(m) for m in evals.metrics),
        ]
    else:
        lines.append("Nothing was measured.")
    if (routing := evals.routing) is not None:
        lines += [
            "",
            f"Routing: {routing.recall:.1%} of {routing.own_rows} held-out prompts of its own are "
            f"taken, {routing.false_fires:.1%} of {routing.background_rows} other prompts.",
        ]
    if (off := evals.off_domain) is not None:
        lines += [
            "",
            f"Elsewhere: on {off.prompts} general prompts the router gives it {off.taken}; KL to "
            f"the base {off.routed.mean:.3g} nats per token then, {off.active.mean:.3g} where it "
            f"is active on all. General questions: {off.suite_routed.base:.1%} right without it, "
            f"{off.suite_routed.pack:.1%} where the router decides, {off.suite_active.pack:.1%} "
            f"where it is active on all ({off.suite_active.rows} questions).",
        ]
    lines += [f"\n{note}" for note in evals.notes]
    if pack.sources:
        lines += ["", "## Sources", ""]
        for source in pack.sources:
            note = f". {source.note}" if source.note else ""
            lines.append(f"- {source.name} {source.version}".rstrip() + f": {source.license}{note}")
    return "\n".join(lines) + "\n"


def _row(m: Metric) -> str:
    chance = f" (chance {m.baseline:.3g})" if m.baseline is not None else ""
    return (
        f"| {m.name}{chance} | {m.base:.4g} | {m.pack:.4g} | "
        f"{m.gain:+.4g} [{m.gain_low:+.4g}, {m.gain_high:+.4g}] | {m.rows} |"
    )
