"""The attach proof: an adapter fits a base exactly, nothing missing, nothing left over.

Pure: it compares a safetensors header with the module shapes of a base card and loads nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from specs.errors import IntegrityError

if TYPE_CHECKING:
    from specs.safetensors_header import Header
    from specs.stored import Card, PackManifest, Shape

SUFFIX_A = ".lora_A.weight"
SUFFIX_B = ".lora_B.weight"
ADAPTER_DTYPES = ("F16", "BF16", "F32")


def check_adapter_shapes(
    header: Header, modules: Mapping[str, Shape], rank: int, where: str
) -> int:
    """Return how many modules the adapter attaches to.

    For a module of shape [out, in] the file holds `MODULE.lora_A.weight` [rank, in] and
    `MODULE.lora_B.weight` [out, rank]: PEFT's names without its `base_model.model.` prefix.

    Raises:
        IntegrityError: a tensor of another name, an unknown module, a missing half, a wrong shape
            or dtype.
    """
    seen: dict[str, set[str]] = {}
    for info in header.tensors.values():
        suffix = next((s for s in (SUFFIX_A, SUFFIX_B) if info.name.endswith(s)), None)
        if suffix is None:
            raise IntegrityError(f"{where}: tensor `{info.name}` is not part of an adapter")
        module = info.name.removesuffix(suffix)
        shape = modules.get(module)
        if shape is None:
            raise IntegrityError(f"{where}: module `{module}` does not exist in the base")
        expected = (rank, shape.in_features) if suffix == SUFFIX_A else (shape.out_features, rank)
        if info.shape != expected:
            raise IntegrityError(
                f"{where}: tensor `{info.name}` has shape {list(info.shape)}, "
                f"and the base needs {list(expected)}"
            )
        if info.dtype not in ADAPTER_DTYPES:
            raise IntegrityError(f"{where}: tensor `{info.name}` has dtype {info.dtype}")
        seen.setdefault(module, set()).add(suffix)
    for module, halves in seen.items():
        if len(halves) != 2:
            raise IntegrityError(f"{where}: module `{module}` has only one half of its adapter")
    if not seen:
        raise IntegrityError(f"{where}: the adapter attaches to nothing")
    return len(seen)


def check_attach(manifest: PackManifest, header: Header, card: Card, where: str) -> int:
    """The whole proof for a pack: the right base, the right shapes, the recorded module count.

    Raises:
        IntegrityError: as `check_adapter_shapes`, or for another base or another count.
    """
    if manifest.base.fingerprint != card.fingerprint:
        raise IntegrityError(
            f"{manifest.name} {manifest.version} was made for base {manifest.base.name} "
            f"({manifest.base.fingerprint[:12]}), not for {card.name} ({card.fingerprint[:12]})",
            hint="`mbpm base list` shows the bases that can be installed",
        )
    count = check_adapter_shapes(header, card.modules, manifest.adapter.rank, where)
    if count != manifest.adapter.modules:
        raise IntegrityError(
            f"{where}: attaches to {count} modules, and its manifest says "
            f"{manifest.adapter.modules}"
        )
    return count
