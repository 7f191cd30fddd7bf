"""The packed weights beside a base: damage, refusal, too little of something, a kill."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest

from runtime.engine import F32
from runtime.kept_file import HEAD, LAYOUT, MAGIC, read_directory
from specs.errors import DoesNotFitError
from tests.support.tiny_base import make_tiny_base

pytest.importorskip("runtime.native._native", reason="the extension was not built")
from runtime.native.engine import NativeEngine
from runtime.native.packed import packed_file


def scores(base: Path, say: Callable[[str], None] = lambda text: None) -> F32:
    engine = NativeEngine(base, threads=1, say=say)
    found = engine.forward(engine.new_cache(3), [5, 6, 7], logits="all").logits
    assert found is not None
    return found


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, F32, bytes]:
    """A base, what it says, and its packed file."""
    base = make_tiny_base(tmp_path_factory.mktemp("packed"))
    return base, scores(base), packed_file(base, "packed").read_bytes()


def put(base: Path, data: bytes) -> None:
    file = packed_file(base, "packed")
    file.unlink(missing_ok=True)
    file.write_bytes(data)


def test_any_damage_to_the_head_is_found_and_mended(made: tuple[Path, F32, bytes]) -> None:
    base, expected, whole = made
    rng = random.Random(20)
    (length,) = HEAD.unpack(whole[: HEAD.size])[2:3]
    for number in range(60):
        raw, said = bytearray(whole), list[str]()
        for _ in range(rng.randint(1, 4)):
            most = HEAD.size if number % 2 else HEAD.size + length
            raw[rng.randrange(most)] ^= 1 << rng.randrange(8)
        if number % 5 == 0:
            raw = raw[: rng.randrange(len(raw))]
        put(base, bytes(raw))
        np.testing.assert_array_equal(scores(base, said.append), expected)
        changed = bytes(raw) != whole
        assert len(said) == changed and packed_file(base, "packed").read_bytes() == whole


def test_a_directory_of_other_content_under_a_right_digest(made: tuple[Path, F32, bytes]) -> None:
    base, _, whole = made
    put(base, whole)
    with packed_file(base, "packed").open("rb") as stream:
        good, start = read_directory(stream, base)

    def put_directory(directory: dict[str, Any]) -> None:
        raw = json.dumps(directory).encode()
        raw = raw.ljust(start - HEAD.size)[: start - HEAD.size]
        head = HEAD.pack(MAGIC, LAYOUT, len(raw), hashlib.sha256(raw).digest())
        put(base, head + raw + whole[start:])

    for key, value, reason in (
        ("way", 0, "was made by another version"),
        ("fingerprint", "f" * 64, "was made from other weights"),
        ("precision", "int4", "was made from other weights"),
    ):
        put_directory({**good, key: value})
        told = list[str]()
        scores(base, told.append)
        assert reason in told[0] and packed_file(base, "packed").read_bytes() == whole

    rng = random.Random(21)
    junk = [
        None,
        True,
        -1,
        0,
        7,
        1 << 40,
        1 << 200,
        1.5,
        float("nan"),
        "",
        "q5",
        [],
        [1],
        {},
        "x" * 99,
    ]

    def spoilt(value: Any) -> Any:
        """The same value with something in it changed, left out or put in."""
        if isinstance(value, (dict, list)) and value and rng.random() < 0.9:
            keys = list(value) if isinstance(value, dict) else range(len(value))
            key = rng.choice(keys)
            copy = value.copy()
            if rng.random() < 0.2:
                del copy[key]
            else:
                copy[key] = spoilt(value[key])
            return copy
        return rng.choice(junk)

    rebuilt = 0
    for _ in range(150):
        put_directory(spoilt(good))
        said = list[str]()
        scores(base, said.append)
        rebuilt += len(said)
    assert rebuilt > 100  # what is left is a value that loading has no use for


def test_what_cannot_be_read_is_left_alone(made: tuple[Path, F32, bytes]) -> None:
    base, _, whole = made
    file, said = packed_file(base, "packed"), list[str]()
    file.unlink()
    file.mkdir()
    with pytest.raises(OSError, match=r"packed\.bin"):
        scores(base, said.append)
    assert file.is_dir() and not said
    file.rmdir()
    put(base, whole)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EMFILE])
def test_only_a_full_disk_is_called_one(
    made: tuple[Path, F32, bytes], monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refused(*_: object, **__: object) -> NoReturn:
        raise OSError(number, os.strerror(number))

    base, _, whole = made
    packed_file(base, "packed").unlink()
    monkeypatch.setattr("os.fsync", refused)
    full = number in (errno.ENOSPC, errno.EDQUOT)
    with pytest.raises(DoesNotFitError if full else OSError, match=os.strerror(number)) as caught:
        scores(base)
    assert f"{packed_file(base, 'packed')}" in str(caught.value)
    assert not list(base.glob("*packed.bin*"))
    put(base, whole)


CHILD = """
import sys; from pathlib import Path; from runtime.native.engine import NativeEngine
engine = NativeEngine(Path(sys.argv[1]), threads=1, say=lambda text: print(text, flush=True))
print(float(engine.forward(engine.new_cache(3), [5, 6, 7], logits="all").logits.sum()), flush=True)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="mounts a file system that only reads")
@pytest.mark.parametrize("temporary", [True, False], ids=["a temporary folder", "memory alone"])
def test_a_file_system_that_only_reads(tmp_path: Path, temporary: bool) -> None:
    base = make_tiny_base(tmp_path)
    script = 'mount --bind "$1" "$1" && mount -o remount,bind,ro "$1" && exec "$0" -c "$2" "$1"'
    code = CHILD if temporary else f"import tempfile; tempfile.tempdir = '/nowhere'\n{CHILD}"
    private = ["unshare", "--user", "--map-root-user", "--mount"]
    if subprocess.run([*private, "true"], capture_output=True).returncode:
        pytest.skip("no mounts of its own for a process here")
    command = [*private, "sh", "-c", script, sys.executable, str(base), code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    told, total = done.stdout.splitlines()
    assert f"for this command alone: {base} takes no files (read-only file system)" in told
    assert [p.name for p in base.iterdir() if "packed" in p.name] == []
    assert float(total) == float(scores(base).sum())


@pytest.mark.skipif(os.name == "nt", reason="kills by signal")
def test_killed_while_packing(tmp_path: Path) -> None:
    from mbpm.garbage import FOREIGN_SECONDS, waste
    from mbpm.home import Home

    home = Home(tmp_path)
    bases = home.store.base_path("x").parent
    bases.mkdir(parents=True)
    base = make_tiny_base(bases)
    left: list[Path] = []
    # killed as soon as the beginning of the file is there
    slow = CHILD.replace(
        "engine =",
        "import runtime.native.convert as c, time\n"
        "slow = c.tile; c.tile = lambda *a: (time.sleep(0.05), slow(*a))[1]\nengine =",
    )
    child = subprocess.Popen([sys.executable, "-c", slow, str(base)], stdout=subprocess.PIPE)
    deadline = time.monotonic() + 60
    while not left and time.monotonic() < deadline:
        left = list(base.glob(".packed*"))
    time.sleep(0.2)
    child.send_signal(signal.SIGKILL)
    child.communicate()
    assert [p.name for p in base.iterdir() if "packed" in p.name] == [left[0].name]

    said: list[str] = []
    scores(base, said.append)
    assert len(said) == 1 and packed_file(base, "packed").is_file()
    assert left[0] not in [w.path for w in waste(home, 1)]  # it may be somebody's
    then = time.time() - FOREIGN_SECONDS - 10
    os.utime(left[0], (then, then))
    assert [w.path for w in waste(home, 1) if w.kind == "leftover"] == [left[0]]
