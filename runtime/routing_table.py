"""All packs of one base as the router needs them, in one file: made once, read at every start.

A safetensors file: `prototypes` F32 [n, D], and in the metadata the base, for each pack its name,
manifest digest, threshold, recall, false fires and how many prototypes are its, in their order, and
which packs answer alike. `sha256` covers
all of it, so that a damaged file is told from a sound one; the packs themselves always stay the
truth. Opening a table imports no numpy.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from specs.errors import IntegrityError
from specs.json_text import load_json
from specs.safetensors_header import read_header

if TYPE_CHECKING:
    from runtime.router import BaseRouting, PackRouting

FORMAT = "2"
ALIKE = 0.6
"""Cosine of two prototypes in the whitened space from which on packs compete.

Measured on smollm2-135m with medical questions from templates: packs of neighbouring topics (drugs,
organs, symptoms, …) had cosines up to 0.58 and lost 0 to 20 % of their questions to each other;
packs made from two halves of the same questions had 0.64 (of 50 questions each) to 0.90 (of 350)
and lost half of them."""
MOST_RIVALS = 3
"""Pairs kept per pack, the most alike ones."""


@dataclass(frozen=True)
class Row:
    """One pack's routing, and which pack that is."""

    name: str
    manifest: str
    """The digest that identifies the pack."""
    routing: PackRouting


@dataclass(frozen=True)
class Rivals:
    """Two packs that answer alike."""

    one: str
    other: str
    similarity: float
    """Cosine of their prototypes, the most alike ones."""


@dataclass(frozen=True)
class RoutingTable:
    """An opened table, whole and undamaged; whether it fits is asked in `routings`."""

    file: Path
    fingerprint: str
    packs: tuple[tuple[str, str, float, float, float, int], ...]
    """Name, manifest digest, threshold, recall, false fires and count of prototypes."""
    rivals: tuple[Rivals, ...]
    """Most alike first."""
    prototypes: bytes
    """F32 [prototypes of all packs, D]."""

    def routings(self, base: BaseRouting, manifests: Mapping[str, str]) -> dict[str, PackRouting]:
        """What `PackRouting.load` would have read of each pack.

        Args:
            base: The base that is loaded.
            manifests: Name -> manifest digest of the packs that are loaded.

        Raises:
            IntegrityError: the table is of another base or other packs.
        """
        import numpy as np

        from runtime.router import PackRouting

        if self.fingerprint != base.fingerprint:
            raise IntegrityError(f"{self.file}: was made for another base")
        if {name: digest for name, digest, *_ in self.packs} != dict(manifests):
            raise IntegrityError(f"{self.file}: was made for other packs")
        rows = np.frombuffer(self.prototypes, dtype="<f4")
        counts = [count for *_, count in self.packs]
        fits = min(counts) > 0 and rows.size == sum(counts) * base.mean.size
        if not fits or not np.isfinite(rows).all():
            raise IntegrityError(f"{self.file}: its prototypes do not fit the base's features")
        ends = np.cumsum(counts)
        return {
            name: PackRouting(base.fingerprint, prototypes, threshold, recall, false_fires)
            for (name, _, threshold, recall, false_fires, _), prototypes in zip(
                self.packs, np.split(rows.reshape(sum(counts), -1), ends[:-1]), strict=True
            )
        }


def build_table(base: BaseRouting, rows: Sequence[Row]) -> bytes:
    """The bytes of the table of these packs (at least one)."""
    import numpy as np
    from safetensors.numpy import save

    rows = sorted(rows, key=lambda r: r.name)
    prototypes = np.concatenate([r.routing.prototypes for r in rows])
    packs = [
        [
            r.name,
            r.manifest,
            r.routing.threshold,
            r.routing.recall,
            r.routing.false_fires,
            len(r.routing.prototypes),
        ]
        for r in rows
    ]
    owners = [number for number, r in enumerate(rows) for _ in r.routing.prototypes]
    metadata = {
        "format": FORMAT,
        "base": base.fingerprint,
        "packs": json.dumps(packs),
        "rivals": json.dumps(_rivals([r.name for r in rows], prototypes, owners)),
    }
    metadata["sha256"] = _digest(metadata, prototypes.tobytes())
    return save({"prototypes": prototypes}, metadata)


def read_table(file: Path) -> RoutingTable:
    """Open a table.

    Raises:
        IntegrityError: it is damaged, or no table.
        FileNotFoundError: there is none.
    """
    header = read_header(file)
    metadata, tensor = header.metadata, header.tensors.get("prototypes")
    if metadata.get("format") != FORMAT or len(header.tensors) != 1 or tensor is None:
        raise IntegrityError(f"{file}: is not a routing table of format {FORMAT}")
    prototypes = file.read_bytes()[header.data_start :]
    try:
        if _digest(metadata, prototypes) != metadata["sha256"]:
            raise IntegrityError(f"{file}: is damaged")
        packs: Any = load_json(metadata["packs"].encode(), str(file))
        rivals: Any = load_json(metadata["rivals"].encode(), str(file))
        return RoutingTable(
            file=file,
            fingerprint=metadata["base"],
            packs=tuple(
                (
                    str(name),
                    str(manifest),
                    float(threshold),
                    float(recall),
                    float(fires),
                    int(count),
                )
                for name, manifest, threshold, recall, fires, count in packs
            ),
            rivals=tuple(Rivals(str(a), str(b), float(s)) for a, b, s in rivals),
            prototypes=prototypes,
        )
    except (KeyError, TypeError, ValueError):
        raise IntegrityError(f"{file}: is not a routing table of format {FORMAT}") from None


def _digest(metadata: Mapping[str, str], prototypes: bytes) -> str:
    said = json.dumps([metadata[k] for k in ("format", "base", "packs", "rivals")])
    return hashlib.sha256(said.encode() + prototypes).hexdigest()


def _rivals(
    names: Sequence[str], prototypes: Any, owners: Sequence[int]
) -> list[tuple[str, str, float]]:
    """Pairs of names some of whose prototypes [n, D] are alike, most alike first.

    Args:
        owners: Per prototype, the index of its pack.
    """
    import numpy as np

    lengths = np.linalg.norm(prototypes, axis=1, keepdims=True)
    unit = prototypes / np.maximum(lengths, 1e-12)
    starts = np.searchsorted(owners, np.arange(len(names)))
    cosines = np.maximum.reduceat(unit @ unit.T, starts, axis=0)
    cosines = np.maximum.reduceat(cosines, starts, axis=1)
    np.fill_diagonal(cosines, -1)
    pairs = {
        (min(i, j), max(i, j)): float(cosines[i, j])
        for i, row in enumerate(cosines)
        for j in map(int, np.argsort(-row)[:MOST_RIVALS])
        if row[j] >= ALIKE
    }
    ordered = sorted(pairs.items(), key=lambda p: (-p[1], p[0]))
    return [(names[i], names[j], round(similarity, 4)) for (i, j), similarity in ordered]
