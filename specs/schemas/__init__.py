"""JSON Schemas of our formats, generated from the pydantic models and kept beside this file."""

from __future__ import annotations

import json
from pathlib import Path

from specs.base_card import BaseCard
from specs.bundle import Bundle
from specs.evals import Evals
from specs.generation import Generation
from specs.index_line import IndexLine, RegistryConfig
from specs.lockfile import Lock
from specs.manifest import Manifest
from specs.model import Contract
from specs.pack_toml import PackToml
from specs.plan import Plan
from specs.project import Project
from specs.summary import PackSummary, SummaryRoot

FOLDER = Path(__file__).parent
MODELS: dict[str, type[Contract]] = {
    "base-card": BaseCard,
    "bundle": Bundle,
    "evals": Evals,
    "generation": Generation,
    "index-line": IndexLine,
    "lock": Lock,
    "manifest": Manifest,
    "pack-toml": PackToml,
    "plan": Plan,
    "project": Project,
    "registry-config": RegistryConfig,
    "summary-line": PackSummary,
    "summary-root": SummaryRoot,
}
"""Name of a schema -> the model it is made from."""


def schema_file(name: str) -> Path:
    """Where the schema called `name` is kept."""
    return FOLDER / f"{name}.schema.json"


def schema_text(name: str) -> str:
    """The schema as it should be on disk: JSON Schema draft 2020-12, two spaces, sorted keys."""
    schema = MODELS[name].model_json_schema(mode="validation")
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    return json.dumps(schema, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def outdated() -> list[str]:
    """The files that differ from what the models say now, or that no model accounts for."""
    wrong = [
        schema_file(name).name
        for name in MODELS
        if not schema_file(name).is_file()
        or schema_file(name).read_text(encoding="utf-8") != schema_text(name)
    ]
    known = {schema_file(name) for name in MODELS}
    return sorted(wrong + [f.name for f in FOLDER.glob("*.json") if f not in known])


def write() -> None:
    """Write every schema."""
    for name in MODELS:
        schema_file(name).write_text(schema_text(name), encoding="utf-8", newline="\n")
