"""Small packs and bases made for tests: real files in real formats, a few kilobytes each."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tomli
import tomli_w
from safetensors.numpy import save_file

from registry_index.packing import build_manifest
from registry_index.publish import Release, check_release, publish, publish_base
from specs.base_card import WEIGHTS_FILE, BaseBlob, BaseCard, ModuleShape
from specs.blobs import Blob, FileSource, Source
from specs.evals import Divergence, Evals, Metric, OffDomain, RoutingEval, Subject
from specs.manifest import AdapterInfo

FINGERPRINT = "b" * 64
MODULES = {
    f"model.layers.{layer}.self_attn.{projection}": ModuleShape(out_features=out, in_features=16)
    for layer in range(2)
    for projection, out in (("q_proj", 16), ("v_proj", 8))
}
RANK = 2


def tiny_base(
    folder: Path,
    *,
    name: str = "tiny",
    weights: bytes = b"not really a model",
    sources: tuple[Source, ...] = (),
    **changes: Any,
) -> BaseCard:
    """The card of a base whose weights are a file in `folder` that nothing can run."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{name}.gguf"
    file.write_bytes(weights)
    blob = Blob.of_bytes(WEIGHTS_FILE, weights)
    values: dict[str, Any] = {
        "name": name,
        "description": "A base for tests",
        "license": "Apache-2.0",
        "architecture": "llama",
        "parameters": 1000,
        "layers": 2,
        "hidden_size": 16,
        "context_length": 128,
        "kv_bytes_per_token": 128,
        "resident_bytes": 4096,
        "fingerprint": FINGERPRINT,
        "modules": MODULES,
        "files": (BaseBlob(blob=blob, sources=sources or (FileSource(path=str(file)),)),),
    }
    return BaseCard(**(values | changes))


def adapter_tensors(
    modules: Mapping[str, ModuleShape] = MODULES, rank: int = RANK, seed: int = 0
) -> dict[str, np.ndarray]:
    """A [rank, in] and B [out, rank] of every module, in float16."""
    random = np.random.default_rng(seed)
    tensors = {}
    for module, shape in modules.items():
        a = random.standard_normal((rank, shape.in_features))
        b = random.standard_normal((shape.out_features, rank))
        tensors[f"{module}.lora_A.weight"] = a.astype(np.float16)
        tensors[f"{module}.lora_B.weight"] = b.astype(np.float16)
    return tensors


def evals(domain: str, *, fingerprint: str = FINGERPRINT, **changes: Any) -> Evals:
    """Evals that pass every gate; `changes` are to their one metric."""
    values: dict[str, Any] = {
        "name": "perplexity",
        "higher_is_better": False,
        "base": 20.0,
        "pack": 10.0,
        "gain": 10.0,
        "gain_low": 8.0,
        "gain_high": 12.0,
        "rows": 100,
        "groups": 20,
        "p_value": 0.001,
    }
    return Evals(
        domain=domain,
        base_fingerprint=fingerprint,
        runtime="test",
        seed=0,
        metrics=(Metric(**(values | changes)),),
        routing=RoutingEval(recall=0.95, false_fires=0.02, own_rows=50, background_rows=100),
        off_domain=off_domain(),
        subject=Subject(
            weights="0" * 64, routing="0" * 64, adapter=AdapterInfo(**pack_toml(domain)["adapter"])
        ),
    )


def off_domain(**changes: Any) -> OffDomain:
    """What was measured of a pack that harms nothing; `changes` are to its fields."""
    suite = Metric(
        name="general_accuracy",
        higher_is_better=True,
        base=0.5,
        pack=0.5,
        gain=0.0,
        gain_low=-0.01,
        gain_high=0.01,
        rows=100,
        groups=100,
        baseline=0.25,
    )
    values: dict[str, Any] = {
        "prompts": 50,
        "tokens": 500,
        "identical": True,
        "taken": 1,
        "active": Divergence(mean=0.5, p95=1.5, p99=3.0),
        "routed": Divergence(mean=0.01, p95=0.0, p99=0.2),
        "suite_active": suite,
        "suite_routed": suite,
    }
    return OffDomain(**(values | changes))


def pack_toml(name: str, version: str = "1.0.0", **changes: Any) -> dict[str, Any]:
    """The content of a pack.toml for the tiny base."""
    values: dict[str, Any] = {
        "format": 1,
        "name": name,
        "version": version,
        "domain": name,
        "description": f"Answers questions about {name}",
        "license": "Apache-2.0",
        "base": {"name": "tiny", "fingerprint": FINGERPRINT},
        "adapter": {"activation": "answer", "rank": RANK, "alpha": 4.0, "modules": len(MODULES)},
    }
    return values | changes


def pack_folder(
    folder: Path,
    name: str,
    version: str = "1.0.0",
    *,
    tensors: Mapping[str, np.ndarray] | None = None,
    metric: Mapping[str, Any] | None = None,
    fingerprint: str = FINGERPRINT,
    files: Mapping[str, bytes] | None = None,
    **toml: Any,
) -> Path:
    """Write an author's pack folder and return it.

    Args:
        tensors: The adapter's, instead of good ones.
        metric: Changes to the metric of the evals.
        fingerprint: Of the base the evals and pack.toml name.
        files: More files, or other bytes for the usual ones.
        toml: Changes to pack.toml.
    """
    folder.mkdir(parents=True)
    described = pack_toml(name, version, **toml)
    described["base"] = described["base"] | {"fingerprint": fingerprint}
    measured = evals(described["domain"], fingerprint=fingerprint, **(metric or {}))
    seed = sum(f"{name} {version}".encode())
    save_file(
        dict(adapter_tensors(seed=seed) if tensors is None else tensors),
        folder / "adapter.safetensors",
    )
    prototypes = np.random.default_rng(seed).standard_normal((4, 16)).astype(np.float32)
    save_file({"prototypes": prototypes}, folder / "routing.safetensors")
    (folder / "README.md").write_text(f"# {name}\n")
    (folder / "pack.toml").write_bytes(tomli_w.dumps(described).encode())
    for path, data in (files or {}).items():
        (folder / path).write_bytes(data)
    if "evals.json" not in (files or {}):
        write_evals(folder, measured)
    return folder


def write_evals(folder: Path, measured: Evals) -> None:
    """Write evals as being of the files that lie in a pack folder."""
    digests = [
        hashlib.sha256((folder / file).read_bytes()).hexdigest()
        for file in ("adapter.safetensors", "routing.safetensors")
    ]
    described = tomli.loads((folder / "pack.toml").read_text("utf-8"))
    subject = Subject(
        weights=digests[0], routing=digests[1], adapter=AdapterInfo(**described["adapter"])
    )
    measured = measured.model_copy(update={"subject": subject})
    (folder / "evals.json").write_bytes(measured.canonical())


def published(folder: Path, root: Path, *, force: bool = False) -> Release:
    """Publish a pack folder into a registry, as `mbpm publish` does."""
    manifest, files = build_manifest(folder)
    release = check_release(manifest, files, root, force=force)
    publish(release, root)
    return release


def registry_with_base(root: Path, files: Path) -> BaseCard:
    """Make a registry that knows the tiny base, whose weights lie in the folder `files`."""
    card = tiny_base(files)
    publish_base(card, root)
    return card


def safetensors_bytes(header: object, data: bytes = b"", *, length: int | None = None) -> bytes:
    """A safetensors file with any header at all.

    Args:
        header: A JSON value, or the raw bytes of one.
        length: What the file says of the header's length, instead of the truth.
    """
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(raw) if length is None else length) + raw + data
