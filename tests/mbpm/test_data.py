"""`mbpm data inspect`, `split` and `fetch`."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest

from specs.blobs import Blob
from tests.support.cli import Cli
from tests.support.servers import Site, add_to_index, serve, wheel
from trainer.data.reading import read_dataset
from trainer.recipe import FOLDER

LEGAL = Path(__file__).parents[1] / "data" / "legal-mini.jsonl"


def write(file: Path, rows: list[dict[str, object]]) -> Path:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


def pairs(count: int) -> list[dict[str, object]]:
    return [
        {"prompt": f"What does clause {i} say?", "response": f"It says {i}, and {i * 7} more.",
         "case": f"case {i // 3}"}
        for i in range(count)
    ]  # fmt: skip


def test_inspect_says_what_is_there(cli: Cli, tmp_path: Path) -> None:
    rows = [*pairs(30), pairs(1)[0], {"prompt": "Who?", "response": "Ask ada@firm.org, please."}]
    report = cli.ok("data", "inspect", write(tmp_path / "a.jsonl", rows))
    assert "32 examples in 31 groups, from 1 file" in report.out
    assert "exact repeats: 1\n  " in report.out
    assert f"{tmp_path}/a.jsonl: line 31 repeats {tmp_path}/a.jsonl: line 1" in report.out
    assert f"{tmp_path}/a.jsonl: line 32: e-mail address `ada" in report.out
    assert "firm" not in report.out
    assert "warning: personal data in 1 place" in report.err
    assert "words are counted" in report.err


def test_inspect_as_a_document(cli: Cli) -> None:
    found = cli.ok("data", "inspect", LEGAL, "--json").json
    assert (found["examples"], found["groups"], found["files"]) == (60, 20, 1)
    assert sum(count for _, _, count in found["histogram"]) == 60
    assert found["languages"]["en"] > 55
    assert found["leaks"] is None


def test_inspect_names_held_out_rows_that_leaked(cli: Cli, tmp_path: Path) -> None:
    train = write(tmp_path / "train.jsonl", pairs(20))
    held = write(tmp_path / "held.jsonl", [{"prompt": "New?", "response": "Yes"}, pairs(4)[3]])
    report = cli.ok("data", "inspect", train, "--held-out", held)
    assert "held-out rows that leaked: 1" in report.out
    assert f"{held}: line 2 is in {train}: line 4" in report.out
    assert "1 of 2 held-out rows leaked" in report.err


def test_inspect_names_every_malformed_row(cli: Cli, tmp_path: Path) -> None:
    lines = [json.dumps(row) for row in pairs(20)]
    lines[3], lines[7], lines[9] = "{oops", '{"prompt": "x"}', "[]"
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    (tmp_path / "b.csv").write_text("prompt,response\nq,r\nq\n")
    result = cli("data", "inspect", tmp_path)
    assert result.code == 2
    assert "18 examples" in result.out
    assert "malformed rows: 4\n" in result.out
    for place in (
        "a.jsonl: line 4: ",
        "a.jsonl: line 8: ",
        "a.jsonl: line 10: ",
        "b.csv: line 3: ",
    ):
        assert place in result.out
    assert "error: 4 rows cannot be read, the first: " in result.err
    found = cli("data", "inspect", tmp_path, "--json").json
    assert (len(found["malformed"]), found["examples"], found["error"]["exit_code"]) == (4, 18, 2)
    (tmp_path / "a.jsonl").write_text("{oops")
    (tmp_path / "b.csv").unlink()
    assert "a.jsonl: line 1: expected a JSON object" in cli("data", "inspect", tmp_path).err


def test_inspect_reads_standard_input(cli: Cli) -> None:
    for raw in (LEGAL.read_bytes(), b"question,answer\nWhat is rent?,Money\n"):
        stdin = io.TextIOWrapper(io.BytesIO(raw))
        with mock.patch(
            "tests.support.cli.io.StringIO", side_effect=[io.StringIO(), io.StringIO(), stdin]
        ):
            assert cli("data", "inspect", "-", "--json").json["examples"] in (60, 1)
    stdin = io.TextIOWrapper(io.BytesIO(b" \n"))
    with mock.patch(
        "tests.support.cli.io.StringIO", side_effect=[io.StringIO(), io.StringIO(), stdin]
    ):
        result = cli("data", "inspect", "-")
    assert result.code == 2
    assert "standard input: is empty" in result.err


def test_nothing_of_it_needs_torch(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom mbpm.__main__ import run\n"
        f"assert run(['--home', {str(tmp_path)!r}, 'data', 'inspect', {str(LEGAL)!r}]) == 0\n"
        f"assert run(['--home', {str(tmp_path)!r}, 'data', 'split', {str(LEGAL)!r}, "
        f"'-o', {str(tmp_path)!r}]) == 0\nassert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def split(cli: Cli, folder: Path, *more: object) -> tuple[Path, Path]:
    cli.ok("data", "split", folder / "all.jsonl", "-o", folder / "out", *more)
    return folder / "out" / "train.jsonl", folder / "out" / "held-out.jsonl"


def test_split_keeps_groups_together(cli: Cli, tmp_path: Path) -> None:
    write(tmp_path / "all.jsonl", pairs(120))
    train, held = split(cli, tmp_path, "--by", "case", "--held-out", 0.2)
    sides = [{e.group for e in read_dataset(file)} for file in (train, held)]
    assert not sides[0] & sides[1]
    assert len(sides[0] | sides[1]) == 40
    assert len(read_dataset(train)) + len(read_dataset(held)) == 120
    report = cli.ok("data", "inspect", train, "--held-out", held, "--json").json
    assert report["leaks"]["count"] == 0


def test_the_same_seed_gives_the_same_files(cli: Cli, tmp_path: Path) -> None:
    write(tmp_path / "all.jsonl", pairs(60))
    first = [file.read_bytes() for file in split(cli, tmp_path)]
    assert first == [file.read_bytes() for file in split(cli, tmp_path, "--force")]
    assert first != [file.read_bytes() for file in split(cli, tmp_path, "--force", "--seed", 1)]


def test_split_replaces_nothing_unasked(cli: Cli, tmp_path: Path) -> None:
    write(tmp_path / "all.jsonl", pairs(60))
    split(cli, tmp_path)
    again = cli("data", "split", tmp_path / "all.jsonl", "-o", tmp_path / "out")
    assert again.code == 2
    assert "train.jsonl: is there already" in again.err


def test_split_leaves_out_what_training_nearly_repeats(cli: Cli, tmp_path: Path) -> None:
    text = " ".join(f"word{i}" for i in range(200))
    copies = [{"prompt": f"Copy {i}", "response": f"{text} {i}"} for i in range(40)]
    write(tmp_path / "all.jsonl", pairs(90) + copies)
    train, held = split(cli, tmp_path)
    assert sum("word7" in e.answer for e in read_dataset(train)) > 20
    assert not any("word7" in e.answer for e in read_dataset(held))


def test_every_sort_of_row_comes_back(cli: Cli, tmp_path: Path) -> None:
    talk = [
        {"role": "user" if i % 2 == 0 else "assistant", "content": f"turn {i}"} for i in range(4)
    ]
    rows: list[dict[str, object]] = [
        {"messages": talk, "group": "talk", "kind": "chat"},
        {"prompt": "p", "response": "b", "choices": ["a", "b"], "system": "s"},
        {"prompt": "p3", "response": "def f(): ...", "tests": "f()", "group": 7},
        {"prompt": "p2", "chosen": "good", "rejected": "bad"},
        *pairs(40),
    ]
    file = write(tmp_path / "all.jsonl", rows)
    train, held = split(cli, tmp_path)
    made = {*read_dataset(train), *read_dataset(held)}
    assert made == set(read_dataset(file))


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([], "is empty"),
        (pairs(1), "1 example in 1 group"),
        ([{**row, "case": "one"} for row in pairs(50)], "50 examples in 1 group"),
        ([{"prompt": "p", "response": "r"}] * 30, "expected text, found nothing"),
    ],
)
def test_data_that_cannot_be_split(
    cli: Cli, tmp_path: Path, rows: list[dict[str, object]], expected: str
) -> None:
    file = write(tmp_path / "all.jsonl", rows)
    result = cli("data", "split", file, "--by", "case", "-o", tmp_path / "out")
    assert result.code == 2
    assert expected in result.err
    assert not (tmp_path / "out").exists()


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    for name in [n for n in os.environ if n.startswith("PIP_")]:
        monkeypatch.delenv(name)
    with serve() as site:
        config = tmp_path / "pip.conf"
        config.write_text(f"[global]\nindex-url = {site.url}/simple/\nno-cache-dir = true\n")
        monkeypatch.setenv("PIP_CONFIG_FILE", str(config))
        yield site


def test_fetch_brings_a_recipes_data_once(cli: Cli, site: Site, tmp_path: Path) -> None:
    articles = [
        {"article": i, "title": f"Duty {i}", "description": f"Everyone shall do duty {i}. " * 4}
        for i in range(200)
    ]
    raw = json.dumps(articles).encode()
    blob = Blob.of_bytes("x", raw)
    add_to_index(site, "duties", "1.0", wheel("duties", "1.0", {"duties/a.json": raw}))
    recipe = (FOLDER / "legal.toml").read_text("utf-8")
    head, source = recipe.split("[[sources]]")[0], "[[sources]]" + recipe.split("[[sources]]")[3]
    lines = [
        line for line in source.splitlines()
        if not line.startswith(("package", "size", "sha256", "chunks", "members", " ", "]"))
    ]  # fmt: skip
    lines[1:1] = [
        'package = "duties"', 'package_version = "1.0"', 'members = ["duties/a.json"]',
        f"size = {blob.size}", f'sha256 = "{blob.sha256}"', f"chunks = {list(blob.chunks)}",
    ]  # fmt: skip
    file = tmp_path / "duties.toml"
    file.write_text(head + "\n".join(lines))
    assert cli("data", "fetch", file, "--offline").code == 6
    first = cli.ok("data", "fetch", file)
    assert "The Constitution of India" in first.out
    assert "Apache-2.0" in first.out
    asked = len(site.requests)
    again = cli.ok("data", "fetch", file, "--offline", "--json").json
    assert len(site.requests) == asked
    assert again["sources"][0]["sha256"] == blob.sha256
    assert again["train"] + again["held_out"] == 399
    add_to_index(site, "duties", "1.0", wheel("duties", "1.0", {"duties/a.json": raw + b" "}))
    other = Cli(tmp_path / "other")
    assert other("data", "fetch", file).code == 5


def test_a_package_that_unpacks_to_too_much_is_refused(
    cli: Cli, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mbpm.training_data.MAX_UNPACKED_BYTES", len(LEGAL.read_bytes()) + 1)
    files = {f"law/{i}.jsonl": LEGAL.read_bytes() for i in range(2)}
    add_to_index(site, "law", "1.0", wheel("law", "1.0", files))
    result = cli("data", "inspect", "wheel:law==1.0")
    assert (result.code, "bytes of data" in result.err) == (2, True), result
    cli.ok("data", "inspect", "wheel:law==1.0/law/1.jsonl")


def test_data_out_of_a_package(cli: Cli, site: Site) -> None:
    rows = LEGAL.read_bytes()
    files = {"law/data/a.jsonl": rows, "law/code.py": b"raise SystemExit", "../b.jsonl": rows}
    add_to_index(site, "law", "1.0", wheel("law", "1.0", files))
    found = cli.ok("data", "inspect", "wheel:law==1.0/law/data", "--json").json
    assert found["examples"] == 60
    asked = len(site.requests)
    cli.ok("data", "inspect", "wheel:law==1.0/law/*.jsonl", "--offline")
    assert len(site.requests) == asked
    for text, code, words in (
        ("wheel:law", 2, "expected `wheel:PACKAGE==VERSION/MEMBER`"),
        ("wheel:law==1.0/nothing", 3, "the wheel has no such data"),
        ("wheel:other==1.0", 3, "other"),
    ):
        result = cli("data", "inspect", text)
        assert (result.code, words in result.err) == (code, True), result
