"""Whether the files of a pack are what its manifest says; reads, and writes nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from specs.attach import check_attach
from specs.base_card import BaseCard
from specs.blobs import Blob
from specs.described import BaseRef
from specs.errors import IntegrityError, NotFoundError
from specs.evals import Evals
from specs.knowledge import check_knowledge
from specs.manifest import (
    ADAPTER_FILE,
    EVALS_FILE,
    KNOWLEDGE_FILE,
    ROUTING_FILE,
    Manifest,
)
from specs.safetensors_header import TensorInfo, read_header

if TYPE_CHECKING:
    import numpy as np

MAX_ROUTING_BYTES = 4 << 20
"""16 prototypes of 16,384 numbers and 128 questions take less."""
_CHUNK_ELEMENTS = 1 << 20


def check_contents(
    manifest: Manifest, files: Mapping[str, Path], *, measuring: bool = False
) -> Evals:
    """Check everything that needs no base: headers, finite tensors, passages, evals that agree.

    Args:
        manifest: What the pack claims to be.
        files: File name in the pack -> where its bytes are; digests are the caller's business.
        measuring: Its evals may be of another adapter, since they are about to be made again.

    Returns:
        The pack's evals.

    Raises:
        IntegrityError: naming the file and the rule it breaks.
    """
    if (size := manifest.blob(ROUTING_FILE).size) > MAX_ROUTING_BYTES:
        raise IntegrityError(
            f"{files[ROUTING_FILE]}: has {size:,} bytes (expected at most {MAX_ROUTING_BYTES:,})"
        )
    for name in (ADAPTER_FILE, ROUTING_FILE):
        check_tensors(files[name])
    if KNOWLEDGE_FILE in files:
        check_knowledge(files[KNOWLEDGE_FILE], manifest.blob(KNOWLEDGE_FILE).size)
    evals = _check_evals(manifest, files[EVALS_FILE])
    if not measuring and evals.subject and (other := evals.subject.difference(manifest)):
        raise IntegrityError(
            f"{files[EVALS_FILE]}: its figures are of {other}",
            hint="`mbpm eval FOLDER --save`, of the folder the pack is made in, measures it again",
        )
    return evals


def prove_attach(manifest: Manifest, files: Mapping[str, Path], card: BaseCard) -> int:
    """The attach proof of a pack's files; returns how many modules the adapter attaches to.

    Raises:
        IntegrityError: as `specs.attach.check_attach`.
    """
    file = files[ADAPTER_FILE]
    return check_attach(manifest, read_header(file), card, str(file))


def find_card(base: BaseRef, cards: Sequence[BaseCard]) -> BaseCard:
    """The card of the base a pack names, by fingerprint; else one of the same name, so that the
    attach proof can say how the two differ.

    Raises:
        NotFoundError: no card fits.
    """
    for card in cards:
        if card.fingerprint == base.fingerprint:
            return card
    for card in cards:
        if card.name == base.name:
            return card
    raise NotFoundError(
        f"base `{base.name}` ({base.fingerprint[:12]}) is in no registry that was asked",
        hint="`--registry DIRECTORY` names a registry that has its card; `mbpm base publish` puts "
        "a base of your own into one",
    )


def check_blob(blob: Blob, file: Path) -> None:
    """Compare a file with what a manifest says of it.

    Raises:
        IntegrityError: another size or digest.
    """
    size = file.stat().st_size
    if size != blob.size:
        raise IntegrityError(f"{file}: has {size:,} bytes, and its manifest says {blob.size:,}")
    if Blob.of_file(file, blob.path) != blob:
        raise IntegrityError(f"{file}: its bytes do not match the digest in the manifest")


def check_tensors(file: Path) -> None:
    """Check a safetensors file: the header's rules, and that no number is NaN or infinite.

    Raises:
        IntegrityError: naming the file and the tensor.
    """
    header = read_header(file)
    for info in header.tensors.values():
        for piece in _pieces(file, header.data_start, info):
            if not _finite(piece, info.dtype):
                raise IntegrityError(f"{file}: tensor `{info.name}` holds NaN or infinite numbers")


def _pieces(file: Path, data_start: int, info: TensorInfo) -> Iterator[np.ndarray]:
    """The raw numbers of one floating-point tensor in bounded pieces; nothing for integers."""
    import numpy as np

    dtype = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}.get(info.dtype)
    if dtype is None:
        return
    with file.open("rb") as stream:
        stream.seek(data_start + info.start)
        left = info.end - info.start
        while left:
            raw = stream.read(min(left, _CHUNK_ELEMENTS * 8))
            if not raw:
                raise IntegrityError(f"{file}: changed while it was read")
            left -= len(raw)
            yield np.frombuffer(raw, dtype=dtype)


def _finite(piece: np.ndarray, dtype: str) -> bool:
    import numpy as np

    if dtype == "BF16":
        # not finite exactly when all eight exponent bits are set
        return not bool(((piece & 0x7F80) == 0x7F80).any())
    return bool(np.isfinite(piece).all())


def _check_evals(manifest: Manifest, file: Path) -> Evals:
    evals = Evals.read(file)
    if evals.domain != manifest.domain:
        raise IntegrityError(
            f"{file}: `domain` is `{evals.domain}`, and the pack's is `{manifest.domain}`"
        )
    if evals.base_fingerprint != manifest.base.fingerprint:
        raise IntegrityError(
            f"{file}: was measured on base {evals.base_fingerprint[:12]}, and the pack is for "
            f"{manifest.base.name} ({manifest.base.fingerprint[:12]})",
            hint="evaluate the pack again on its own base",
        )
    return evals
