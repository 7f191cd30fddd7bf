"""Data sets of the Hugging Face hub, against a hub on the loopback interface."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mbpm.hub_datasets import Address, dataset_files
from mbpm.state import State
from specs.errors import UsageError
from tests.support.cli import Cli
from tests.support.hub import COMMIT, DatasetHub, serve_hub


def rows(*words: str) -> bytes:
    return "".join(
        json.dumps({"prompt": f"What is {w}?", "response": f"{w} is a word"}) + "\n" for w in words
    ).encode()


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[DatasetHub]:
    from huggingface_hub import constants

    files = {
        "README.md": b"# Lease\n\nA card. It is not data.\n",
        "lease.py": b"raise SystemExit('this must never run')",
        "data/train-00000.jsonl": rows("rent", "lease"),
        "data/test-00000.jsonl": rows("tenant"),
        ".hidden/x.jsonl": rows("nothing"),
        "more/extra.jsonl": rows("deposit", "lessor", "lessee"),
    }
    with serve_hub(DatasetHub(files, large=frozenset(["data/train-00000.jsonl"]))) as hub:
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        monkeypatch.setattr(
            constants,
            "HUGGINGFACE_CO_URL_TEMPLATE",
            hub.url + "/{repo_id}/resolve/{revision}/{filename}",
        )
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub-cache"))
        yield hub


def test_training_files_are_read_and_the_commit_recorded(cli: Cli, hub: DatasetHub) -> None:
    found = cli.ok("data", "inspect", "hf:someone/lease")
    assert "5 examples" in found.out
    assert "1 files of other splits than training left out" in found.err
    assert not any("lease.py" in line or "README" in line for line in hub.asked)
    files, record = dataset_files(State(), "hf:someone/lease", "unknown")
    assert (record.version, record.license) == (COMMIT, "cc-by-4.0")
    assert [f.name for f in files] == [
        "hf:someone/lease/data/train-00000.jsonl",
        "hf:someone/lease/more/extra.jsonl",
    ]


def test_the_address_of_the_hub_is_the_environments(hub: DatasetHub, tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "mbpm", "--home", tmp_path, "data", "inspect", "hf:someone/lease"],
        env={**os.environ, "HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hf")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "5 examples" in result.stdout, result.stderr


def test_a_file_or_folder_of_it(cli: Cli, hub: DatasetHub) -> None:
    for path, count in (("data", 3), ("data/test-00000.jsonl", 1), ("more", 3)):
        found = cli.ok("data", "inspect", f"hf:someone/lease/{path}", "--json").json
        assert found["examples"] == count
    assert cli("data", "inspect", "hf:someone/lease/nothing").code == 2


def test_offline_reads_what_was_fetched(cli: Cli, hub: DatasetHub) -> None:
    missing = cli("data", "inspect", "hf:someone/lease", "--offline")
    assert missing.code == 6
    assert "`--offline`" in missing.err
    assert hub.asked == []
    cli.ok("data", "inspect", "hf:someone/lease")
    hub.asked.clear()
    for source in ("hf:someone/lease", f"hf:someone/lease@{COMMIT}"):
        found = cli.ok("data", "inspect", source, "--offline", "--json").json
        assert found["examples"] == 5
    assert hub.asked == []


@pytest.mark.parametrize("name", ["data/train-00000.jsonl", "more/extra.jsonl"])
def test_wrong_bytes_are_refused_and_not_kept(cli: Cli, hub: DatasetHub, name: str) -> None:
    right = hub.files[name]
    hub.sent[name] = right[:-2] + b" \n"
    result = cli("data", "inspect", "hf:someone/lease")
    assert result.code == 5, result
    assert f"hf:someone/lease: {name}: its bytes do not match" in result.err
    hub.sent.clear()
    cli.ok("data", "inspect", "hf:someone/lease")


@pytest.mark.parametrize(
    ("status", "code", "exit_code", "told"),
    [
        (403, "GatedRepo", 7, "accepted its terms"),
        (401, "RepoNotFound", 3, "no such data set"),
        (404, "RevisionNotFound", 3, "no such revision"),
        (500, None, 6, "500"),
    ],
)
def test_refused(
    cli: Cli, hub: DatasetHub, status: int, code: str | None, exit_code: int, told: str
) -> None:
    hub.status, hub.code = status, code
    result = cli("data", "inspect", "hf:someone/lease")
    assert (result.code, told in result.err) == (exit_code, True), result


def test_a_malformed_row_is_named_by_its_place_at_the_hub(cli: Cli, hub: DatasetHub) -> None:
    hub.files["more/extra.jsonl"] = b'{"prompt": "x"}\n'
    result = cli("data", "inspect", "hf:someone/lease")
    assert result.code == 2
    assert "hf:someone/lease/more/extra.jsonl: line 1: expected" in result.err


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("hf:a/b", Address("a/b", "main", "")),
        ("hf:a/b@v1.0", Address("a/b", "v1.0", "")),
        ("hf:a/b@refs/convert/parquet", Address("a/b", "refs/convert/parquet", "")),
        ("hf:a/b@refs/pr/1/x/y.json", Address("a/b", "refs/pr/1", "x/y.json")),
        ("hf:a-b/c.d/x/y.jsonl", Address("a-b/c.d", "main", "x/y.jsonl")),
    ],
)
def test_addresses(text: str, expected: Address) -> None:
    assert Address.parse(text) == expected


@pytest.mark.parametrize("text", ["hf:", "hf:name", "hf:a/../b", "hf:a/b@", "hf:a b/c"])
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(UsageError, match="is no data set of the hub"):
        Address.parse(text)
