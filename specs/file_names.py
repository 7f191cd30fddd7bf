"""What the files of bases and packs are called."""

from __future__ import annotations

WEIGHTS_FILE = "weights.gguf"
BASE_ROUTING_FILE = "routing.safetensors"
CARD_FILE = "card.json"

ADAPTER_FILE = "adapter.safetensors"
ROUTING_FILE = "routing.safetensors"
EVALS_FILE = "evals.json"
README_FILE = "README.md"
LICENSE_FILE = "LICENSE"
KNOWLEDGE_FILE = "knowledge.sqlite"
MANIFEST_FILE = "manifest.json"
