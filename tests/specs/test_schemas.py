"""The JSON Schemas beside the models."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from specs import schemas
from specs.schemas.__main__ import main


def test_schemas_are_what_the_models_say() -> None:
    assert schemas.outdated() == [], "run `python -m specs.schemas`"
    assert main(["--check"]) == 0


def test_check_finds_an_old_a_missing_and_a_foreign_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(schemas, "FOLDER", tmp_path)
    assert main([]) == 0
    assert main(["--check"]) == 0
    schemas.schema_file("manifest").write_text("{}")
    schemas.schema_file("plan").unlink()
    (tmp_path / "leftover.schema.json").write_text("{}")
    assert main(["--check"]) == 1
    said = capsys.readouterr().err
    assert all(name in said for name in ("manifest", "plan", "leftover", "hint: "))


@pytest.mark.parametrize("name", sorted(schemas.MODELS))
def test_unknown_keys_are_errors_in_every_schema(name: str) -> None:
    schema = json.loads(schemas.schema_text(name))
    objects = [schema, *schema.get("$defs", {}).values()]
    records = [o for o in objects if o.get("type") == "object" and "properties" in o]
    assert records
    assert all(o["additionalProperties"] is False for o in records)
