"""Index lines made to hurt: every one is refused by file and line, and none hurts another pack."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mbpm.registries.indexes import parse_checked
from registry_index.tree import parse_index
from specs.described import MAX_RELATIONS
from specs.errors import IntegrityError, MbpmError
from specs.model import MAX_DOCUMENT_BYTES
from tests.registry_index.test_tree import line, raw
from tests.support.cli import Cli

Publish = Callable[..., None]

MANY = {f"pack-{n}": "*" for n in range(MAX_RELATIONS + 1)}
HOSTILE: dict[str, tuple[bytes, str]] = {
    "huge": (raw(line(description="x" * 5_000_000)), "longer than|description"),
    "deep": (b'{"a":' * 100_000 + b"\n", "nested too deeply|not JSON"),
    "deep but closed": (b"[" * 5_000 + b"]" * 5_000 + b"\n", "nested too deeply|dictionary|object"),
    "not UTF-8": (raw(line()).replace(b"Law", b"L\xffw"), "not UTF-8"),
    "lone surrogate": (raw(line()).replace(b"Law", b"\\ud800"), "JSON|surrogate"),
    "double key": (raw(line())[:-2] + b',"name":"legal"}\n', "'name' stands twice"),
    "double key inside": (
        raw(line()).replace(b'"base": {', b'"base": {"name": "evil", '),
        "'name' stands twice",
    ),
    "path": (raw(line("../../etc/passwd")), "`name`"),
    "path in requires": (raw(line(requires={"../x": "*"})), "`requires"),
    "control character": (raw(line("le\x1bgal")), "`name`"),
    "look-alike": (raw(line("l\u0435gal")), "`name`"),
    "wide": (raw(line("\uff4cegal")), "`name`"),
    "upper case": (raw(line("Legal")), "`name`"),
    "device": (raw(line("con")), "reserved by Windows"),
    "look-alike version": (raw(line(version="1.0.\u0661")), "`version`"),
    "look-alike requirement": (raw(line(requires={"a": "\u0661"})), "`requires"),
    "NaN": (raw(line()).replace(b"100", b"NaN"), "NaN"),
    "infinite": (raw(line()).replace(b"100", b"1e999"), "too large a number|manifest_size"),
    "huge number": (raw(line(size=10**400)), "size|JSON|int"),
    "digits": (raw(line()).replace(b"1000", b"9" * 10_000), "JSON|size|digits|int"),
    "negative size": (raw(line(size=-1)), "`size`"),
    "string for number": (raw(line(size="1000")), "`size`"),
    "number for string": (raw(line(license=3)), "`license`"),
    "true for number": (raw(line(size=True)), "`size`"),
    "list for object": (raw(line(requires=[])), "`requires`"),
    "object for list": (raw(line(provides={})), "`provides`"),
    "null": (raw(line(base=None)), "`base`"),
    "many requirements": (raw(line(requires=MANY)), "`requires`"),
    "many names": (raw(line(provides=list(MANY))), "`provides`"),
    "unknown hardware": (raw(line(requires={"__gpu": "*"})), "`requires"),
    "digest": (raw(line(manifest="../" + "a" * 61)), "`manifest`"),
    "digest in capitals": (raw(line(manifest="A" * 64)), "`manifest`"),
    "line break in a message": (raw(line(deprecated="a\nb")), "`deprecated`"),
    "another pack": (raw(line("other")), "is about `other`, not `legal`"),
    "date": (raw(line(published="yesterday")), "`published`"),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_it_is_refused_by_file_and_line(what: str) -> None:
    content, rule = HOSTILE[what]
    with pytest.raises(IntegrityError, match=rule) as caught:
        parse_index(raw(line(version="0.1.0")) + content, "legal", "index/le/ga/legal")
    assert caught.value.message.startswith("index/le/ga/legal, line 2: ")
    assert len(caught.value.message) < 2000


@pytest.mark.parametrize("what", HOSTILE)
def test_it_hurts_no_other_pack(what: str, cli: Cli, registry: Path, publish: Publish) -> None:
    publish("alpha")
    file = registry / "index" / "le" / "ga" / "legal"
    file.parent.mkdir(parents=True)
    file.write_bytes(HOSTILE[what][0])
    for change in (lambda: None, lambda: (registry / "summary" / ".pending").write_text("[]")):
        change()
        found = cli.ok("search", "alpha", "--registry", registry, "--json").json["packs"]
        assert [p["name"] for p in found] == ["alpha"]
        cli.ok("install", "alpha", "--registry", registry, "-s")
        result = cli("show", "legal", "--registry", registry)
        assert result.code == 5
        assert f"{file}, line 1" in result.err
        assert "\x1b" not in result.err


@pytest.fixture
def registry(tmp_path: Path) -> Path:
    from tests.support.packs import registry_with_base

    registry_with_base(tmp_path / "registry", tmp_path / "base-files")
    return tmp_path / "registry"


@pytest.fixture
def publish(tmp_path: Path, registry: Path) -> Publish:
    from tests.support.packs import pack_folder, published

    def make(name: str, version: str = "1.0.0", **changes: Any) -> None:
        published(pack_folder(tmp_path / f"{name}-{version}", name, version, **changes), registry)

    return make


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    return Cli(tmp_path / "home")


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)


@settings(max_examples=300)
@given(st.sampled_from(sorted(line())), values)
def test_any_value_in_any_field_is_read_or_refused(field: str, value: Any) -> None:
    content = json.dumps(line(**{field: value})).encode() + b"\n"
    try:
        index = parse_index(content, "legal", "file")
    except IntegrityError as error:
        assert error.message.startswith("file, line 1")
        return
    # the faster reader of what was checked once sees the same
    assert tuple(parse_checked(content, "legal", "file")) == index.lines


@settings(max_examples=300)
@given(
    st.lists(st.sampled_from([*b'{}[]":,\\ntrue0.e-\xff\x00']), max_size=60), st.integers(0, 400)
)
def test_bytes_pushed_into_a_line_are_read_or_refused(noise: list[int], place: int) -> None:
    whole = raw(line())
    content = whole[:place] + bytes(noise) + whole[place:]
    try:
        parse_index(content, "legal", "file")
    except MbpmError as error:
        assert error.message.startswith("file, line ")


def test_the_longest_document_is_read_no_further() -> None:
    content = b" " * (MAX_DOCUMENT_BYTES + 1)
    with pytest.raises(IntegrityError, match="longer than"):
        parse_index(content, "legal", "file")
