"""What this machine has, as the versions that packs require (`__ram`, `__vram`, `__cc`).

Nothing is looked at before it is asked for, and torch is never imported: a GPU is found by its
driver's own tool, `nvidia-smi`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from functools import cached_property

from specs.errors import UsageError
from specs.names import HARDWARE
from specs.versions import Version

OVERRIDE = "MBPM_OVERRIDE_"
"""`MBPM_OVERRIDE_VRAM=12` makes the machine look as if it had that; empty, as if it had none."""
SECONDS = 10
"""How long the driver may take to answer."""
_GIB = 1024**3
_NUMBER = re.compile(r"\d{1,6}(\.\d{1,6}){0,2}")


def detect(environ: Mapping[str, str] | None = None) -> Mapping[str, Version]:
    """What the machine has, found out key by key.

    Args:
        environ: Where overrides stand; the process's environment if None.

    Returns:
        `__ram` and `__vram` in GiB (that of the GPU with the most) and `__cc`, the compute
        capability of the same GPU; what it does not have is missing. Reading a key raises
        UsageError where its override is not a number.
    """
    return _Hardware(os.environ if environ is None else environ)


class _Hardware(Mapping[str, Version]):
    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self._known: dict[str, Version | None] = {}

    def __getitem__(self, name: str) -> Version:
        if name not in HARDWARE:
            raise KeyError(name)
        if name not in self._known:
            self._known[name] = self._find(name)
        found = self._known[name]
        if found is None:
            raise KeyError(name)
        return found

    def __iter__(self) -> Iterator[str]:
        return (name for name in HARDWARE if self.get(name) is not None)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def _find(self, name: str) -> Version | None:
        variable = OVERRIDE + name.removeprefix("__").upper()
        text = self._environ.get(variable)
        if text is not None:
            return _override(variable, text.strip())
        if name == "__ram":
            from mbpm.facts import total_memory

            memory = total_memory()
            return _version(memory / _GIB) if memory else None
        if self._gpu is None:
            return None
        return self._gpu[0] if name == "__vram" else self._gpu[1]

    @cached_property
    def _gpu(self) -> tuple[Version, Version] | None:
        """Memory and compute capability of the GPU with the most memory."""
        found = [g for line in _ask_driver().splitlines() if (g := _parse(line)) is not None]
        return max(found, default=None)


def _ask_driver() -> str:
    import subprocess

    query = ["nvidia-smi", "--query-gpu=memory.total,compute_cap", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(query, capture_output=True, timeout=SECONDS, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.decode("utf-8", errors="replace")


def _parse(line: str) -> tuple[Version, Version] | None:
    """`15360, 7.5`: MiB and compute capability."""
    memory, _, capability = (part.strip() for part in line.partition(","))
    if not memory.isdecimal() or not _NUMBER.fullmatch(capability):
        return None
    return _version(int(memory) / 1024), _padded(capability)


def _override(variable: str, text: str) -> Version | None:
    if not text:
        return None
    if not _NUMBER.fullmatch(text):
        raise UsageError(
            f"{variable}: `{text}` is not a number such as `8` or `7.5`",
            hint=f"leave `{variable}` empty for a machine that has none",
        )
    return _padded(text)


def _padded(text: str) -> Version:
    """A number with up to three parts as a version."""
    parts = [*(str(int(p)) for p in text.split(".")), "0", "0"]
    return Version(".".join(parts[:3]))


def _version(gib: float) -> Version:
    """GiB to one decimal as a version, rounded down."""
    tenths = int(gib * 10)
    return Version(f"{tenths // 10}.{tenths % 10}.0")
