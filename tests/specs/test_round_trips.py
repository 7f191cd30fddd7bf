"""Whatever a contract can say comes back from its canonical bytes as it was, digest and all."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from specs.base_card import BaseBlob, BaseCard, ModuleShape
from specs.blobs import (
    CHUNK_BYTES,
    Blob,
    FileSource,
    HubSource,
    UrlSource,
    WheelMember,
    WheelSource,
)
from specs.described import BaseRef
from specs.generation import Generation, InstalledBase, InstalledPack
from specs.index_line import EvalSummary, IndexLine, RegistryConfig
from specs.manifest import (
    PACK_FILES,
    REQUIRED_FILES,
    AdapterInfo,
    Canary,
    DataSource,
    Manifest,
    TokenScore,
)
from specs.model import Contract
from specs.names import check_name

digests = st.text("0123456789abcdef", min_size=64, max_size=64)
numbers = st.integers(0, 10**6)
versions = st.builds(
    lambda core, pre, build: ".".join(map(str, core)) + pre + build,
    st.tuples(numbers, numbers, numbers),
    st.sampled_from(["", "-rc.1", "-0.a-b"]),
    st.sampled_from(["", "+linux.1"]),
)
requirements = st.sampled_from(["*", "1.2", "^1", "~1.2.3", "=1.0.0", ">=1, <3", "1.*"])


def is_name(text: str) -> bool:
    try:
        check_name(text)
    except ValueError:
        return False
    return True


names = st.from_regex("[abz09]([._-]?[abz09]){0,5}", fullmatch=True).filter(is_name)
texts = st.text(max_size=20)
some_text = st.text(min_size=1, max_size=20)
printable = st.characters(exclude_categories=["C", "Z"]) | st.just(" ")
lines = st.text(printable, max_size=20)
stamps = st.datetimes().map(lambda d: d.strftime("%Y-%m-%dT%H:%M:%SZ").zfill(20))
positive = st.integers(1, 10**9)
finite = st.floats(allow_nan=False, allow_infinity=False)


def tuples(of: st.SearchStrategy[Any], least: int = 0, most: int = 3) -> st.SearchStrategy[Any]:
    return st.lists(of, min_size=least, max_size=most).map(tuple)


def mappings(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.dictionaries(names, values, max_size=3)


@st.composite
def blobs(draw: st.DrawFn, paths: st.SearchStrategy[str]) -> Blob:
    size = draw(st.integers(0, 3 * CHUNK_BYTES))
    count = -(-size // CHUNK_BYTES)
    chunks = draw(tuples(digests, count, count))
    return Blob(path=draw(paths), size=size, sha256=draw(digests), chunks=chunks)


sources = st.one_of(
    st.builds(UrlSource, url=st.just("https://example.org/a%20b?c=d")),
    st.builds(FileSource, path=some_text),
    st.builds(HubSource, repo=st.just("a/b"), file=some_text),
    st.builds(
        WheelSource,
        parts=tuples(
            st.builds(
                WheelMember, package=st.just("a-b"), version=st.just("1.0"), member=some_text
            ),
            1,
        ),
    ),
)
described = {
    "name": names,
    "version": versions,
    "domain": names,
    "description": some_text,
    "license": some_text,
    "notes": texts,
    "requires": mappings(requirements),
    "recommends": mappings(requirements),
    "conflicts": mappings(requirements),
    "provides": tuples(names),
    "replaces": mappings(requirements),
    "base": st.builds(BaseRef, name=names, fingerprint=digests),
}
packs = st.builds(
    InstalledPack,
    name=names,
    version=versions,
    manifest=digests,
    base=names,
    registry=texts,
    auto=st.booleans(),
    held=st.booleans(),
    pin=st.none() | requirements,
)
bases = st.builds(
    InstalledBase,
    name=names,
    fingerprint=digests,
    card=digests,
    registry=texts,
    auto=st.booleans(),
)
scores = tuples(st.builds(TokenScore, id=numbers, logprob=finite), 1)


def once(of: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.lists(of, max_size=3, unique_by=lambda v: v.name).map(tuple)


@st.composite
def pack_blobs(draw: st.DrawFn) -> tuple[Blob, ...]:
    paths = REQUIRED_FILES | draw(st.sets(st.sampled_from(sorted(PACK_FILES))))
    return tuple(draw(blobs(st.just(path))) for path in sorted(paths))


CONTRACTS = {
    "generation": st.builds(
        Generation,
        number=st.integers(0, 10**12),
        created=texts,
        command=texts,
        cause=st.sampled_from(["change", "undo", "redo", "rollback"]),
        restores=st.none() | numbers,
        packs=once(packs),
        bases=once(bases),
    ),
    "manifest": st.builds(
        Manifest,
        **described,
        adapter=st.builds(
            AdapterInfo,
            activation=st.sampled_from(["answer", "full"]),
            rank=st.integers(1, 1024),
            alpha=st.floats(0.5, 65536),
            modules=positive,
        ),
        sources=tuples(
            st.builds(
                DataSource,
                name=texts,
                version=texts,
                sha256=st.none() | digests,
                license=texts,
                note=texts,
            )
        ),
        recipe=st.none() | digests,
        canaries=tuples(
            st.builds(
                Canary, prompt=some_text, base=scores, pack=scores, tolerance=st.floats(0.1, 5)
            )
        ),
        blobs=pack_blobs(),
    ),
    "index line": st.builds(
        IndexLine,
        **described,
        manifest=digests,
        manifest_size=st.integers(1, 1000),
        size=positive,
        evals=st.none()
        | st.builds(
            EvalSummary,
            metric=texts,
            base=finite,
            pack=finite,
            higher_is_better=st.booleans(),
            rows=numbers,
        ),
        published=stamps,
        publisher=lines,
        forced=tuples(texts),
        yanked=st.booleans(),
        deprecated=lines,
    ),
    "card": st.builds(
        BaseCard,
        name=names,
        description=some_text,
        license=some_text,
        architecture=st.sampled_from(["llama", "qwen2"]),
        parameters=positive,
        layers=positive,
        hidden_size=positive,
        context_length=positive,
        kv_bytes_per_token=positive,
        resident_bytes=positive,
        fingerprint=digests,
        modules=st.dictionaries(
            some_text, st.builds(ModuleShape, out_features=positive, in_features=positive)
        ),
        files=tuples(
            st.builds(BaseBlob, blob=blobs(st.just("weights.gguf")), sources=tuples(sources)), 1
        ),
    ),
    "config": st.builds(
        RegistryConfig, name=names, mirrors=tuples(st.just("https://example.org/mirror"))
    ),
}


@pytest.mark.parametrize("kind", CONTRACTS)
@given(data=st.data())
@settings(max_examples=60)
def test_what_is_written_is_read_again(kind: str, data: st.DataObject) -> None:
    value: Contract = data.draw(CONTRACTS[kind])
    raw = value.canonical()
    again = type(value).parse(raw, kind)
    assert again == value
    assert again.canonical() == raw
    assert value.digest() == hashlib.sha256(raw).hexdigest()
    assert raw.endswith(b"\n") and raw.count(b"\n") == 1


@pytest.mark.parametrize("kind", CONTRACTS)
@given(data=st.data())
@settings(max_examples=30)
def test_order_and_space_mean_nothing(kind: str, data: st.DataObject) -> None:
    value: Contract = data.draw(CONTRACTS[kind])
    document = json.loads(value.canonical())
    loose = json.dumps(dict(reversed(document.items())), indent=3).encode()
    assert type(value).parse(loose, kind).digest() == value.digest()
