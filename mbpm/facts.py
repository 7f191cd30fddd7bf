"""Facts about this machine and this home, gathered without loading a model."""

from __future__ import annotations

import os
import platform
import shutil
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from mbpm.home import Home

CPU_FEATURES = (
    *("sse4_2", "f16c", "fma", "avx", "avx2", "avx_vnni", "avx512f", "avx512bw", "avx512_vnni"),
    *("avx512_bf16", "amx_int8", "asimd", "asimddp", "i8mm", "sve", "bf16"),
)
"""Those that a quantised matrix product can make use of, as Linux names them."""
PACKAGES = ("mbpm", "torch", "numpy", "tokenizers", "safetensors", "gguf")


@dataclass(frozen=True)
class Cpu:
    """The processor as this process may use it."""

    name: str
    threads: int
    """Hardware threads this process may run on."""
    features: tuple[str, ...]
    """Of `CPU_FEATURES`; empty where the system does not tell."""


@dataclass(frozen=True)
class Disk:
    """Bytes on the disk of the home."""

    store: int
    """Blobs, and the pack and base folders linked out of them, each file counted once."""
    parts: int
    """Unfinished downloads."""
    free: int


def versions() -> dict[str, str | None]:
    """Python's version and those of `PACKAGES`; None for one that is not installed."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
    return found


def system() -> str:
    """Operating system and architecture, such as `Linux 6.1.0 x86_64`."""
    return f"{platform.system()} {platform.release()} {platform.machine()}"


def cpu() -> Cpu:
    """The processor."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    fields: dict[str, str] = {}
    for line in text.splitlines():
        key, _, value = line.partition(":")
        fields.setdefault(key.strip().lower(), value.strip())
    flags = set((fields.get("flags") or fields.get("features") or "").split())
    name = fields.get("model name") or platform.processor() or platform.machine()
    return Cpu(name, _threads(), tuple(f for f in CPU_FEATURES if f in flags))


def _threads() -> int:
    # Not everywhere does a process know which processors it may use.
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def total_memory() -> int | None:
    """Bytes of main memory; None where the system does not tell."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None


def disk(home: Home) -> Disk:
    """What the home takes, and what is left; the home need not exist."""
    store = home.store
    existing = next(p for p in (home.path, *home.path.parents) if p.exists())
    parts = used_bytes(store.parts)
    used = used_bytes(store.root)
    return Disk(used - parts, parts, shutil.disk_usage(existing).free)


def used_bytes(folder: Path) -> int:
    """Bytes of all files below a folder; one with several names counts once."""
    seen: set[tuple[int, int]] = set()
    total = 0
    for parent, _folders, files in os.walk(folder):
        for name in files:
            try:
                found = Path(parent, name).stat()
            except OSError:
                continue
            key = (found.st_dev, found.st_ino)
            if key not in seen:
                seen.add(key)
                total += found.st_size
    return total


def proxies() -> dict[str, str]:
    """The proxies downloads go through, without names and passwords in them."""
    from urllib.request import getproxies

    return {scheme: _without_credentials(url) for scheme, url in sorted(getproxies().items())}


def _without_credentials(url: str) -> str:
    try:
        parts = urlsplit(url)
        if parts.username is None and parts.password is None:
            return url
        port = f":{parts.port}" if parts.port else ""
        return f"{parts.scheme}://***@{parts.hostname}{port}"
    except ValueError:
        return "(malformed)"


def describe(home: Home) -> dict[str, Any]:
    """All of it as JSON, but for what is installed."""
    return {
        "versions": versions(),
        "system": system(),
        "cpu": asdict(cpu()),
        "memory": total_memory(),
        "home": str(home.path),
        "disk": asdict(disk(home)),
    }
