"""A home with the real base and a small pack whose routing was really calibrated."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from runtime.chat_format import ChatFormat
from runtime.features import features
from runtime.router import BaseRouting, fit_pack
from runtime.tokenizer import Tokenizer
from runtime.torch_engine import TorchEngine
from specs.base_card import BASE_ROUTING_FILE, CARD_FILE, WEIGHTS_FILE, BaseCard
from tests.support.packs import pack_folder

FRUIT = [
    f"How do I {what} {fruit}?"
    for what in ("peel", "store", "ripen", "cut")
    for fruit in ("a mango", "bananas", "an avocado", "plums", "a pineapple")
]
GENERAL = [
    "Who wrote Faust?", "What is 7 times 12?", "How do I install Linux?", "Tell me a joke.",
    "What is the capital of Peru?", "How do I change a tyre?", "Write a poem about winter.",
    "Why is the sky blue?", "What does 'irony' mean?", "Is it raining tomorrow?", "Hello!",
    "How far is the moon?", "What is a database?", "How do I tie a bow tie?", "Who are you?",
    "Explain the offside rule.",
]  # fmt: skip


@dataclass(frozen=True)
class RealHome:
    """A home and the program that works on it, as another process."""

    path: Path

    def command(self, *words: str) -> list[str]:
        """A command line on this home."""
        return [sys.executable, "-m", "mbpm", "--home", str(self.path), *words]

    def __call__(self, *words: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        """Run a command with `stdin` piped in, or nothing."""
        piped = {"stdin": subprocess.DEVNULL} if stdin is None else {"input": stdin}
        return subprocess.run(
            self.command(*words), capture_output=True, text=True, timeout=300, **piped
        )


def make_real_home(base_home: Path, base_dir: Path, folder: Path) -> RealHome:
    """Copy a home that has the base (linking large files) and install the pack `fruit` in it."""

    def link(source: str, target: str) -> str:
        if Path(source).stat().st_size > 1_000_000:
            try:
                os.link(source, target)
                return target
            except OSError:
                pass  # another file system
        return str(shutil.copy2(source, target))

    shutil.copytree(base_home, folder / "home", copy_function=link)
    home = RealHome(folder / "home")
    done = home("install", str(_fruit_pack(base_dir, folder / "fruit")), "--yes")
    assert done.returncode == 0, done.stderr
    return home


def _fruit_pack(base_dir: Path, folder: Path) -> Path:
    card = BaseCard.parse((base_dir / CARD_FILE).read_bytes(), "card")
    engine = TorchEngine(base_dir, device="cpu")
    weights = base_dir / WEIGHTS_FILE
    chat = ChatFormat.from_gguf(weights, Tokenizer.from_gguf(weights))
    routing = BaseRouting.load(base_dir / BASE_ROUTING_FILE, card.fingerprint)
    own, general = (features(engine, chat, p, routing.layer) for p in (FRUIT, GENERAL))
    module = "model.layers.3.mlp.down_proj"
    shape, rng = card.modules[module], np.random.default_rng(0)
    tensors = {
        f"{module}.lora_A.weight": rng.standard_normal((2, shape.in_features)) * 0.1,
        f"{module}.lora_B.weight": rng.standard_normal((shape.out_features, 2)),
    }
    return pack_folder(
        folder,
        "fruit",
        tensors={name: t.astype(np.float16) for name, t in tensors.items()},
        fingerprint=card.fingerprint,
        base={"name": card.name, "fingerprint": card.fingerprint},
        adapter={"activation": "answer", "rank": 2, "alpha": 2.0, "modules": 1},
        files={"routing.safetensors": fit_pack(routing, own[::2], own[1::2], general).save()},
    )
