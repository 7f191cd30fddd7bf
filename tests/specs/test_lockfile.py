"""`mbpm.lock` as a document."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tomli
import tomli_w
from hypothesis import given
from hypothesis import strategies as st

from specs.blobs import Blob
from specs.errors import IntegrityError, MbpmError
from specs.lockfile import Lock, LockedBase, LockedBlob, LockedPack
from specs.manifest import REQUIRED_FILES, Manifest
from tests.support.packs import FINGERPRINT, pack_toml

DIGEST = "a" * 64


def base(name: str = "tiny", **changes: Any) -> LockedBase:
    values = {"name": name, "fingerprint": FINGERPRINT, "card": DIGEST, "registry": "bundled"}
    return LockedBase(**(values | changes))


def pack(name: str, version: str = "1.0.0", **changes: Any) -> LockedPack:
    values: dict[str, Any] = {
        "name": name,
        "version": version,
        "manifest": DIGEST,
        "registry": "bundled",
        "base": "tiny",
        "blobs": (LockedBlob(path="README.md", size=3, sha256=DIGEST),),
    }
    return LockedPack(**(values | changes))


def lock(*packs: LockedPack) -> Lock:
    return Lock(wants=DIGEST, bases=(base(),), packs=packs)


def test_as_it_is_written() -> None:
    made = lock(
        pack("beta", auto=True, registry="./packs"),
        pack("alpha", publisher='A "B"', requires={"beta": "^1", "__ram": ">=8"}),
    )
    head, _, rest = made.render().decode().partition("\n")
    assert head.startswith("# Written by `mbpm lock`")
    assert (
        rest
        == f"""\
format = 1
wants = "{DIGEST}"

[[bases]]
name = "tiny"
fingerprint = "{FINGERPRINT}"
card = "{DIGEST}"
registry = "bundled"

[[packs]]
name = "alpha"
version = "1.0.0"
manifest = "{DIGEST}"
registry = "bundled"
publisher = "A \\"B\\""
base = "tiny"
requires = {{ __ram = ">=8", beta = "^1" }}
blobs = [
    {{ path = "README.md", size = 3, sha256 = "{DIGEST}" }},
]

[[packs]]
name = "beta"
version = "1.0.0"
manifest = "{DIGEST}"
registry = "./packs"
base = "tiny"
auto = true
blobs = [
    {{ path = "README.md", size = 3, sha256 = "{DIGEST}" }},
]
"""
    )


def test_the_order_of_making_does_not_show() -> None:
    a, b = pack("a", requires={"b": "1", "c.d": "*"}), pack("b")
    turned = pack("a", requires={"c.d": "*", "b": "1"})
    assert lock(a, b).render() == lock(b, turned).render()


texts = st.text(min_size=1, max_size=40).filter(lambda t: t.isprintable())
names = st.from_regex(r"[a-z][a-z0-9.]{0,5}[a-z0-9]", fullmatch=True).filter(
    lambda n: ".." not in n and n.split(".")[0] not in ("con", "prn", "aux", "nul")
)


@given(
    registry=texts,
    publisher=st.just("") | texts,
    requires=st.dictionaries(names, st.just("*")),
    auto=st.booleans(),
)
def test_what_is_written_is_read_back(
    registry: str, publisher: str, requires: dict[str, str], auto: bool
) -> None:
    made = lock(
        pack("a", registry=registry, publisher=publisher, requires=requires, auto=auto), pack("b")
    )
    assert Lock.parse_toml(made.render(), "mbpm.lock") == made


def document(change: Callable[[dict[str, Any]], object]) -> bytes:
    value = tomli.loads(
        lock(pack("alpha", requires={"beta": "^1"}), pack("beta")).render().decode()
    )
    change(value)
    return tomli_w.dumps(value).encode()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda v: v.update(colour="red"), "unknown key `colour`"),
        (lambda v: v.pop("wants"), "`wants` is missing"),
        (lambda v: v["packs"].append(v["packs"][1]), "pack `beta` stands twice"),
        (lambda v: v["bases"].append(v["bases"][0]), "base `tiny` stands twice"),
        (lambda v: v["packs"].pop(), "alpha 1.0.0 requires `beta ^1`, which is not in the lock"),
        (lambda v: v["packs"][1].update(version="2.0.0"), "the lock has 2.0.0"),
        (lambda v: v["packs"][1].update(version="2"), "'2' is not a version"),
        (lambda v: v["packs"][1].update(manifest="A" * 64), "`packs.1.manifest`"),
        (lambda v: v["packs"][1].update(base="huge"), "needs base `huge`, which is not in the lo"),
        (lambda v: v["packs"][1].update(registry="x\x1b[2J"), "no control characters"),
        (lambda v: v["packs"][1].update(blobs=[]), "`packs.1.blobs`"),
        (lambda v: v["packs"][1]["blobs"][0].update(path="../x"), "not a plain file name"),
        (lambda v: v["packs"][1]["blobs"][0].update(size=-1), "`packs.1.blobs.0.size`"),
    ],
)
def test_bad_documents(change: Callable[[dict[str, Any]], object], said: str) -> None:
    with pytest.raises(IntegrityError) as caught:
        Lock.parse_toml(document(change), "mbpm.lock")
    assert caught.value.message.startswith("mbpm.lock: ")
    assert said in caught.value.message


def test_a_newer_format() -> None:
    with pytest.raises(MbpmError, match="has format 2") as caught:
        Lock.parse_toml(document(lambda v: v.update(format=2, packages=[])), "mbpm.lock")
    assert not isinstance(caught.value, IntegrityError)


def test_disagreement_with_a_manifest() -> None:
    blobs = tuple(Blob.of_bytes(name, b"x") for name in sorted(REQUIRED_FILES))
    value = pack_toml("alpha", requires={"beta": "^1"}) | {"blobs": blobs}
    manifest = Manifest.model_validate(value, strict=False)
    locked = tuple(LockedBlob(path=b.path, size=b.size, sha256=b.sha256) for b in blobs)
    right = pack("alpha", blobs=locked, requires={"beta": "^1"})
    assert right.disagreement(manifest) is None
    for changes, said in (
        ({"version": "1.0.1"}, "is that of alpha 1.0.0"),
        ({"blobs": locked[:-1]}, "says something else of "),
        ({"blobs": (*locked[:-1], right.blobs[0])}, "says something else of "),
        ({"requires": {}}, "requires something else"),
        (
            {"blobs": (locked[0].model_copy(update={"sha256": DIGEST}), *locked[1:])},
            "says something else of ",
        ),
    ):
        wrong = right.model_copy(update=changes)
        assert said in (wrong.disagreement(manifest) or ""), changes


def test_the_example_of_the_page_is_as_it_would_be_written() -> None:
    text = (Path(__file__).parents[2] / "docs" / "formats" / "lock.md").read_text()
    (example,) = re.findall(r"```toml\n(.*?)```", text, re.DOTALL)
    assert Lock.parse_toml(example.encode(), "mbpm.lock").render().decode() == example
