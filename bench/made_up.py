"""A made-up registry: a base whose weights are a large file, and one small pack for it."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tomli_w
from safetensors.numpy import save_file

from registry_index.packing import build_manifest
from registry_index.publish import check_release, publish, publish_base
from specs.base_card import WEIGHTS_FILE, BaseBlob, BaseCard, ModuleShape
from specs.blobs import CHUNK_BYTES, Blob, UrlSource
from specs.evals import Evals

BASE, PACK = "bench-base", "bench-pack"
FILE = "weights.gguf"
WHEEL = "bench_weights-1.0-py3-none-any.whl"
FINGERPRINT = "b" * 64
RANK = 2
_SHAPE = ModuleShape(out_features=16, in_features=16)
_MODULES = {f"model.layers.{layer}.self_attn.q_proj": _SHAPE for layer in range(2)}


def weights(file: Path, size: int) -> Blob:
    """Write random bytes that nothing can run, and describe them."""

    def pieces() -> Iterator[bytes]:
        with file.open("wb") as stream:
            for start in range(0, size, CHUNK_BYTES):
                piece = os.urandom(min(CHUNK_BYTES, size - start))
                stream.write(piece)
                yield piece

    return Blob.of_chunks(WEIGHTS_FILE, pieces())


def registry(root: Path, blob: Blob, url: str, scratch: Path) -> Path:
    """A registry with a base whose weights are at `url`, and a pack for it."""
    card = BaseCard(
        name=BASE,
        description="A base that nothing can run",
        license="CC0-1.0",
        architecture="llama",
        parameters=1000,
        layers=2,
        hidden_size=16,
        context_length=128,
        kv_bytes_per_token=128,
        resident_bytes=4096,
        fingerprint=FINGERPRINT,
        modules=_MODULES,
        files=(BaseBlob(blob=blob, sources=(UrlSource(url=url),)),),
    )
    publish_base(card, root)
    manifest, files = build_manifest(_pack(scratch))
    # it knows nothing, so no gate lets it pass
    publish(check_release(manifest, files, root, force=True), root)
    return root


def _pack(folder: Path) -> Path:
    folder.mkdir()
    document = {
        "format": 1,
        "name": PACK,
        "version": "1.0.0",
        "domain": "bench",
        "description": "A pack that knows nothing",
        "license": "CC0-1.0",
        "base": {"name": BASE, "fingerprint": FINGERPRINT},
        "adapter": {
            "activation": "answer",
            "rank": RANK,
            "alpha": 4.0,
            "modules": len(_MODULES),
        },
    }
    (folder / "pack.toml").write_text(tomli_w.dumps(document))
    (folder / "README.md").write_text(f"# {PACK}\n")
    random = np.random.default_rng(1)
    tensors = {}
    for module, shape in _MODULES.items():
        a = random.standard_normal((RANK, shape.in_features))
        b = random.standard_normal((shape.out_features, RANK))
        tensors[f"{module}.lora_A.weight"] = a.astype(np.float16)
        tensors[f"{module}.lora_B.weight"] = b.astype(np.float16)
    save_file(tensors, folder / "adapter.safetensors")
    prototypes = random.standard_normal((4, 16)).astype(np.float32)
    save_file({"prototypes": prototypes}, folder / "routing.safetensors")
    evals = Evals(domain="bench", base_fingerprint=FINGERPRINT, runtime="none", seed=0, metrics=())
    (folder / "evals.json").write_bytes(evals.canonical())
    return folder


def wheel(root: Path, file: Path) -> None:
    """The same bytes in a wheel, stored as they are, and a simple index that has it."""
    info = "bench_weights-1.0.dist-info"
    with zipfile.ZipFile(root / WHEEL, "w", zipfile.ZIP_STORED) as archive:
        archive.write(file, f"bench_weights/{FILE}")
        archive.writestr(
            f"{info}/METADATA", "Metadata-Version: 2.1\nName: bench-weights\nVersion: 1.0\n"
        )
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/RECORD", "")
    digest = Blob.of_file(root / WHEEL).sha256
    page = root / "simple" / "bench-weights" / "index.html"
    page.parent.mkdir(parents=True)
    page.write_text(f'<!DOCTYPE html><a href="../../{WHEEL}#sha256={digest}">{WHEEL}</a>')
