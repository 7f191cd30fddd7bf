"""The documents on formats and exit codes say what the code does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from specs import errors, schemas
from specs.manifest import PACK_FILES, REQUIRED_FILES
from specs.pack_toml import read_pack_toml

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGES = sorted([*DOCS.glob("*.md"), *DOCS.glob("formats/*.md")])


def test_the_example_of_pack_toml_is_one(tmp_path: Path) -> None:
    text = (DOCS / "formats" / "pack-toml.md").read_text()
    (example,) = re.findall(r"```toml\n(.*?)```", text, re.DOTALL)
    (tmp_path / "pack.toml").write_text(example)
    pack = read_pack_toml(tmp_path)
    assert (pack.name, pack.gates.min_gain) == ("legal", 0.1)
    assert pack.requires == {"law-basics": "^1.2", "__ram": ">=8"}


def test_exit_codes() -> None:
    text = (DOCS / "exit-codes.md").read_text()
    documented = {int(code) for code in re.findall(r"^\| (\d+) \|", text, re.MULTILINE)}
    classes = [c for c in vars(errors).values() if isinstance(c, type)]
    used = {c.exit_code for c in classes if issubclass(c, errors.MbpmError)}
    assert documented == used | {0, 10, 130}


def test_files_of_a_pack() -> None:
    text = (DOCS / "formats" / "pack.md").read_text()
    rows = dict(re.findall(r"^\| `([^`]+)` \| (yes|no) \|", text, re.MULTILINE))
    assert rows == {name: "yes" if name in REQUIRED_FILES else "no" for name in PACK_FILES}


def test_every_schema_is_linked() -> None:
    text = (DOCS / "formats" / "README.md").read_text()
    for name in schemas.MODELS:
        assert f"schemas/{name}.schema.json" in text


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target
