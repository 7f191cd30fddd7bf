"""The native engine where something is refused, interrupted, or not to be had."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from runtime.engine import F32, ActiveAdapter
from runtime.load import load_engine
from specs.attach import SUFFIX_A, SUFFIX_B
from specs.errors import UsageError
from tests.support.tiny_base import make_tiny_base

pytest.importorskip("runtime.native._native", reason="the extension was not built")
from runtime.native import UnsupportedError
from runtime.native.engine import PASS_TOKENS, NativeEngine, Row


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_base(tmp_path_factory.mktemp("limits"))


@pytest.fixture(scope="module")
def engine(tiny: Path) -> NativeEngine:
    return NativeEngine(tiny, threads=2)


def last(engine: NativeEngine, ids: list[int]) -> F32:
    logits = engine.forward(engine.new_cache(len(ids)), ids).logits
    assert logits is not None
    return logits[0]


def low_rank(engine: NativeEngine, rank: int) -> dict[str, F32]:
    rng = np.random.default_rng(rank)
    return {
        module + suffix: rng.normal(0, 0.1, size).astype(np.float32)
        for module, shape in engine.card.modules.items()
        for suffix, size in (
            (SUFFIX_A, (rank, shape.in_features)),
            (SUFFIX_B, (shape.out_features, rank)),
        )
    }


def run(code: str, *arguments: str, stack: int | None = None) -> str:
    """What a program prints, in a process of its own with stacks of this size for its threads."""

    def limited() -> None:
        import resource

        if stack is not None:
            resource.setrlimit(resource.RLIMIT_STACK, (stack, resource.RLIM_INFINITY))

    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=120,
        preexec_fn=limited, env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_shape_it_does_not_compute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.support.tiny_base.HEADS", 8)
    base, said = make_tiny_base(tmp_path), []
    reason = r"the size of a head is 8 \(expected a multiple of 16 up to 256\)"
    for ask in (lambda: NativeEngine(base), lambda: load_engine(base, engine="native")):
        with pytest.raises(UnsupportedError, match=reason) as caught:
            ask()
        assert caught.value.hint == "`--engine torch` does"
    assert not [p for p in base.iterdir() if p.name.startswith(("packed.bin", ".packed"))]
    other = load_engine(base, device="cpu", say=said.append)
    assert other.name.startswith("torch cpu")
    assert len(said) == 1 and said[0].endswith("torch answers, more slowly")
    assert other.forward(other.new_cache(2), [5, 6]).logits is not None


def test_what_makes_no_sense_is_refused(engine: NativeEngine, tiny: Path) -> None:
    torch = load_engine(tiny, engine="torch", device="cpu")
    for one in (engine, torch):
        cache = one.new_cache(8)
        with pytest.raises(ValueError, match="no tokens"):
            one.forward(cache, [])
        for layer in (-1, 3):
            with pytest.raises(ValueError, match=f"no layer {layer}"):
                one.forward(cache, [1], hidden_layer=layer)
        assert cache.length == 0
    long = engine.new_cache(300)
    for token in (-1, 261):
        with pytest.raises(ValueError, match=f"no token {token}"):
            engine.forward(long, [1] * 200 + [token])
    assert long.length == 0


def test_a_batch_that_is_refused_advances_no_sequence(engine: NativeEngine) -> None:
    slot = engine.add_adapter(low_rank(engine, 2), 1.0)
    rows = [Row(engine.new_cache(4), 1) for _ in range(9)]
    many = [ActiveAdapter(slot)] * 17
    for ninth, error in (
        (Row(rows[8].cache, 1, many), UsageError),
        (Row(rows[8].cache, 999), ValueError),
        (Row(rows[0].cache, 1), ValueError),
    ):
        with pytest.raises(error):
            engine.decode([*rows[:8], ninth])
        assert [row.cache.length for row in rows] == [0] * 9
    engine.decode(rows)
    assert [row.cache.length for row in rows] == [1] * 9


def test_an_extension_of_another_version(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runtime.native._native.INTERFACE", 0)
    assert load_engine(tiny, device="cpu").name.startswith("torch cpu")
    with pytest.raises(UsageError, match="was built for another version of mbpm") as caught:
        load_engine(tiny, engine="native")
    assert "`mbpm doctor`" in (caught.value.hint or "")


def test_an_instruction_set_by_environment(
    tiny: Path, engine: NativeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MBPM_ISA", "portable")
    other = NativeEngine(tiny)
    assert other.name == "native cpu packed (portable)"
    np.testing.assert_allclose(last(other, [5, 6]), last(engine, [5, 6]), atol=0.1)
    monkeypatch.setenv("MBPM_ISA", "sse9")
    with pytest.raises(UsageError, match="cannot run `sse9`"):
        NativeEngine(tiny)


def test_an_adapter_of_tiny_values(engine: NativeEngine) -> None:
    tensors = low_rank(engine, 4)
    expected = last(engine, [5, 6, 7])
    for size in (1e-39, 1e-45, 0.0):  # below the least power of two whose inverse is finite
        tiny = {n: np.full_like(t, size) if SUFFIX_A in n else t for n, t in tensors.items()}
        slot = engine.add_adapter(tiny, 1.0)
        found = engine.forward(engine.new_cache(3), [5, 6, 7], [ActiveAdapter(slot)]).logits
        engine.unload_adapter(slot)
        assert found is not None
        np.testing.assert_allclose(found[0], expected, atol=1e-5)
    # what is tiny in A and large in B is the adapter all the same
    slots = [
        engine.add_adapter(
            {n: t * np.float32(1 / f if SUFFIX_A in n else f) for n, t in tensors.items()}, 1.0
        )
        for f in (1.0, 1e38)
    ]
    one, other = (
        engine.forward(engine.new_cache(3), [5, 6, 7], [ActiveAdapter(slot)]).logits
        for slot in slots
    )
    assert one is not None and other is not None and np.abs(one[0] - expected).max() > 2
    np.testing.assert_allclose(other, one, atol=0.2)


def test_more_threads_than_cores(tiny: Path, engine: NativeEngine) -> None:
    ids = list(range(3, 200))
    many = NativeEngine(tiny, threads=9)
    assert many.threads == 9
    np.testing.assert_allclose(last(many, ids), last(engine, ids), atol=1e-3)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere stacks are not so limited")
def test_fewer_threads_where_the_system_gives_no_more(tiny: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from runtime.native.engine import NativeEngine;"
        "e = NativeEngine(Path(sys.argv[1]), threads=4);"
        "print(e.threads, e.forward(e.new_cache(99), range(3, 90)).logits.shape)"
    )
    assert run(code, str(tiny), stack=1 << 46) == "1 (1, 261)\n"
    assert run(code, str(tiny)) == "4 (1, 261)\n"


SHORT_OF_MEMORY = """
import resource, sys
from pathlib import Path
import numpy as np
from runtime.native.engine import NativeEngine
from specs.errors import DoesNotFitError

engine = NativeEngine(Path(sys.argv[1]), threads=2)
tensors = {}
for module, shape in engine.card.modules.items():
    tensors[f"{module}.lora_A.weight"] = np.ones((8, shape.in_features), np.float32)
    tensors[f"{module}.lora_B.weight"] = np.ones((shape.out_features, 8), np.float32)
ids = list(range(500, 628))
cache, other = engine.new_cache(300), engine.new_cache(300)
engine.forward(cache, ids[:1])
engine.forward(other, ids[:1])
hard = resource.getrlimit(resource.RLIMIT_AS)[1]
resource.setrlimit(resource.RLIMIT_AS, (1 << 20, hard))
failed = []
for name, ask in (
    ("forward", lambda: engine.forward(cache, ids, logits="none")),
    ("again", lambda: engine.forward(cache, ids, logits="none")),
    ("cache", lambda: engine.new_cache(8192)),
    ("adapter", lambda: engine.add_adapter(tensors, 1.0)),
):
    try:
        ask()
    except (MemoryError, DoesNotFitError):
        failed.append(name)
length = cache.length
resource.setrlimit(resource.RLIMIT_AS, (hard, hard))
print(*failed, length)
engine.add_adapter(tensors, 1.0)
found = engine.forward(cache, ids).logits
print(bool((found == engine.forward(other, ids).logits).all()), cache.length)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere address space is not limited")
def test_out_of_memory_leaves_the_engine_usable(smollm2: Path) -> None:
    assert run(SHORT_OF_MEMORY, str(smollm2)).splitlines() == [
        "forward again cache adapter 1", "True 129",
    ]  # fmt: skip


def test_an_interrupt_stops_a_long_prompt(smollm2: Path) -> None:
    engine = NativeEngine(smollm2, threads=2)
    ids = [1000 + i % 5000 for i in range(40 * PASS_TOKENS)]
    cache, sent = engine.new_cache(len(ids)), []

    def interrupt() -> None:
        while cache.length < PASS_TOKENS:
            time.sleep(0.001)
        sent.append(cache.length)
        os.kill(os.getpid(), signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    sender = threading.Thread(target=interrupt)
    sender.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            engine.forward(cache, ids, logits="none")
            sender.join()
    finally:
        sender.join()
        signal.signal(signal.SIGINT, before)
    # the pass under way is finished, and no other is begun
    assert sent[0] <= cache.length <= sent[0] + 2 * PASS_TOKENS
    cache.truncate(50)
    found = engine.forward(cache, ids[50:52]).logits
    assert found is not None
    np.testing.assert_allclose(found[0], last(engine, ids[:52]), atol=2e-2)


def test_memory_comes_and_goes_while_others_compute(tiny: Path) -> None:
    engine = NativeEngine(tiny, threads=3)
    tensors = low_rank(engine, 4)
    expected = last(engine, list(range(3, 100)))
    wrong: list[float] = []

    def compute() -> None:
        for _ in range(40):
            found = last(engine, list(range(3, 100)))
            wrong.append(float(np.abs(found - expected).max()))

    workers = [threading.Thread(target=compute) for _ in range(2)]
    for worker in workers:
        worker.start()
    while any(worker.is_alive() for worker in workers):
        slot = engine.add_adapter(tensors, 1.0)
        cache = engine.new_cache(64)
        engine.forward(cache, [1, 2, 3], [ActiveAdapter(slot)])
        del cache
        engine.unload_adapter(slot)
    assert len(wrong) == 80 and max(wrong) < 1e-3
