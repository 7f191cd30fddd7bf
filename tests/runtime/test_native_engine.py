"""The native engine against the torch engine's float32 reference, through the `Engine` protocol."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from gguf import GGMLQuantizationType as Type

from runtime.engine import F32, ActiveAdapter
from runtime.load import load_engine
from runtime.logprobs import log_softmax
from runtime.tokenizer import Tokenizer
from runtime.torch_engine import TorchEngine
from specs.base_card import CARD_FILE, WEIGHTS_FILE
from specs.errors import DoesNotFitError, IntegrityError, MbpmError, UsageError
from tests.runtime.test_torch_engine import PROMPTS
from tests.support.adapters import random_adapter, write_pack
from tests.support.tiny_base import make_tiny_base, write_tiny_gguf

pytest.importorskip("runtime.native._native", reason="the extension was not built")
from runtime.kept_file import verify_kept
from runtime.native import _native
from runtime.native.engine import NativeEngine, Row
from runtime.native.packed import packed_file


def copied(base: Path, folder: Path) -> Path:
    """The base alone, without what was packed before."""
    folder.mkdir()
    for name in (CARD_FILE, WEIGHTS_FILE):
        os.link(base / name, folder / name) if base.stat().st_dev == folder.stat().st_dev else (
            shutil.copy(base / name, folder / name)
        )
    return folder


@pytest.fixture(scope="module")
def base(smollm2: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copied(smollm2, tmp_path_factory.mktemp("native") / "base")


@pytest.fixture(scope="module")
def engine(base: Path) -> NativeEngine:
    return NativeEngine(base, threads=2)


@pytest.fixture(scope="module")
def reference(base: Path) -> TorchEngine:
    return TorchEngine(base, device="cpu", precision="float32")


def logits(
    engine: NativeEngine | TorchEngine, ids: list[int], adapters: list[ActiveAdapter]
) -> F32:
    found = engine.forward(engine.new_cache(len(ids)), ids, adapters, logits="all").logits
    assert found is not None
    return found


def divergence(expected: F32, found: F32) -> float:
    """Mean KL over rows."""
    pairs = [(log_softmax(a), log_softmax(b)) for a, b in zip(expected, found, strict=True)]
    return float(np.mean([(np.exp(a) * (a - b)).sum() for a, b in pairs]))


def compare(base: Path, engine: NativeEngine, reference: TorchEngine, most: float) -> None:
    tokenizer = Tokenizer.from_gguf(base / WEIGHTS_FILE)
    divergences, agree = [], []
    for text in PROMPTS[::3]:
        ids = tokenizer.encode(text)
        expected, found = logits(reference, ids, []), logits(engine, ids, [])
        divergences += [divergence(expected, found)] * len(ids)
        agree += list(expected.argmax(-1) == found.argmax(-1))
    assert np.mean(divergences) <= most
    assert np.mean(agree) >= 0.95


def test_logits_equal_the_reference(
    base: Path, engine: NativeEngine, reference: TorchEngine
) -> None:
    compare(base, engine, reference, 1e-3)


@pytest.mark.slow
def test_logits_equal_the_reference_on_the_larger_base(qwen05: Path, tmp_path: Path) -> None:
    base = copied(qwen05, tmp_path / "base")
    engine = NativeEngine(base, threads=2)
    compare(base, engine, TorchEngine(base, device="cpu", precision="float32"), 1e-3)


def test_adapters_equal_the_reference(
    engine: NativeEngine, reference: TorchEngine, tmp_path: Path
) -> None:
    ids = list(range(500, 560))
    before = logits(engine, ids, [])
    slots = []
    for seed, rank in ((1, 8), (2, 5)):
        tensors = random_adapter(engine.card, rank=rank, seed=seed)
        pack = write_pack(tmp_path / str(seed), engine.card, tensors, rank, 2.0 * rank, "full")
        slots.append((engine.load_adapter(pack), reference.load_adapter(pack)))
    for weights in ((1.0, 0.0), (0.0, 1.0), (0.7, -0.4)):
        ours, theirs = (
            [ActiveAdapter(s[i], w) for s, w in zip(slots, weights, strict=True)] for i in (0, 1)
        )
        expected, found = logits(reference, ids, theirs), logits(engine, ids, ours)
        assert divergence(expected, found) < 2e-3
        assert divergence(expected, before) > 0.1
    # the base's own answers do not change by a bit while adapters are resident, or after
    np.testing.assert_array_equal(logits(engine, ids, []), before)
    resident = engine.memory()["adapters"]
    for slot, _ in slots:
        engine.unload_adapter(slot)
    np.testing.assert_array_equal(logits(engine, ids, []), before)
    again = engine.load_adapter(pack)
    assert engine.memory()["adapters"] <= resident
    engine.unload_adapter(again)


def test_one_by_one_is_the_same_as_at_once(engine: NativeEngine) -> None:
    ids = list(range(1000, 1150))
    at_once = logits(engine, ids, [])
    cache = engine.new_cache(200)
    for start, end in ((0, 1), (1, 4), (4, 140), (140, 150)):
        found = engine.forward(cache, ids[start:end]).logits
        assert found is not None
        np.testing.assert_allclose(found[-1], at_once[end - 1], atol=2e-2)
    cache.truncate(70)
    found = engine.forward(cache, ids[70:72]).logits
    assert found is not None
    np.testing.assert_allclose(found[-1], at_once[71], atol=2e-2)


def test_a_batch_of_sequences_with_different_packs(engine: NativeEngine, tmp_path: Path) -> None:
    slots = [
        engine.load_adapter(
            write_pack(
                tmp_path / str(i), engine.card,
                random_adapter(engine.card, rank=4, seed=i), 4, 8.0, "answer",
            )
        )
        for i in range(3)
    ]  # fmt: skip
    choices = [[], [ActiveAdapter(slots[0])], [ActiveAdapter(slots[1], 0.5)],
               [ActiveAdapter(slots[2]), ActiveAdapter(slots[0], 0.3)]] * 5  # fmt: skip
    rows, expected = [], []
    for i, adapters in enumerate(choices):
        ids = list(range(300 + i, 310 + 3 * i))
        alone, batched = engine.new_cache(200), engine.new_cache(200)
        for cache in (alone, batched):
            engine.forward(cache, ids, logits="none")
        one = engine.forward(alone, [7 + i], adapters).logits
        assert one is not None
        expected.append(one[0])
        rows.append(Row(batched, 7 + i, adapters))
    np.testing.assert_allclose(engine.decode(rows), np.stack(expected), atol=2e-2)
    assert all(row.cache.length == 11 + 2 * i for i, row in enumerate(rows))
    with pytest.raises(UsageError, match="17 adapters at once"):
        engine.forward(engine.new_cache(8), [1], [ActiveAdapter(slots[0])] * 17)
    for slot in slots:
        engine.unload_adapter(slot)


def test_hidden_states_and_first_layers_alone(
    base: Path, engine: NativeEngine, reference: TorchEngine
) -> None:
    ids = list(range(40, 200))
    expected = reference.forward(reference.new_cache(200), ids, hidden_layer=7).hidden
    found = engine.forward(engine.new_cache(200), ids, hidden_layer=7).hidden
    few = NativeEngine(base, layers=8, threads=1)
    part = few.forward(few.new_cache(200), ids, logits="none", hidden_layer=7).hidden
    assert expected is not None and found is not None and part is not None
    error = np.linalg.norm(found - expected, axis=1) / np.linalg.norm(expected, axis=1)
    assert np.median(error) < 0.01
    np.testing.assert_array_equal(found, part)


@pytest.mark.parametrize("isa", _native.instruction_sets())
def test_instruction_sets_agree(base: Path, engine: NativeEngine, isa: str) -> None:
    ids = list(range(2000, 2010))
    other = NativeEngine(base, threads=1, isa=isa)
    assert divergence(logits(engine, ids, []), logits(other, ids, [])) < 5e-4
    assert chosen(other, ids[:6], 4) == chosen(engine, ids[:6], 4)


def chosen(engine: NativeEngine, ids: list[int], count: int) -> list[int]:
    """The likeliest tokens, one after the other."""
    cache, tokens = engine.new_cache(len(ids) + count), list(ids)
    for _ in range(count):
        scores = engine.forward(cache, tokens[cache.length :]).logits
        assert scores is not None
        tokens.append(int(scores[0].argmax()))
    return tokens[len(ids) :]


@pytest.mark.parametrize("architecture", ["llama", "qwen2"])
@pytest.mark.parametrize("kind", [Type.Q4_0, Type.Q4_1, Type.Q5_0, Type.Q8_0, Type.F16])
def test_every_type_and_family(tmp_path: Path, architecture: str, kind: Type) -> None:
    base = make_tiny_base(tmp_path)
    (base / WEIGHTS_FILE).unlink()
    write_tiny_gguf(base / WEIGHTS_FILE, architecture, types=(kind, Type.Q8_0))
    native, torch = NativeEngine(base), TorchEngine(base, device="cpu", precision="float32")
    ids = list(range(3, 90))
    expected, found = logits(torch, ids, []), logits(native, ids, [])
    assert np.abs(expected - found).max() < 0.6  # of logits whose deviation is 8
    assert divergence(expected, found) < 2e-4
    assert native.memory()["weights"] == packed_file(base, "packed").stat().st_size


def test_what_does_not_fit(engine: NativeEngine) -> None:
    with pytest.raises(DoesNotFitError, match="reads at most 8,192"):
        engine.new_cache(8193)
    cache = engine.new_cache(4)
    with pytest.raises(DoesNotFitError, match="5 tokens do not fit a context of 4"):
        engine.forward(cache, [1, 2, 3, 4, 5])
    engine.forward(cache, [1, 2, 3, 4])
    with pytest.raises(DoesNotFitError, match="context of 4"):
        engine.decode([Row(cache, 1)])
    with pytest.raises(ValueError, match="cannot truncate"):
        cache.truncate(5)
    assert cache.length == 4


SHORT_OF_MEMORY = """
import resource, sys; from pathlib import Path
import numpy as np
from runtime.native.engine import NativeEngine, Row
from specs.errors import DoesNotFitError
def limit(more):
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = resource.RLIM_INFINITY if more is None else pages * resource.getpagesize() + more
    resource.setrlimit(resource.RLIMIT_AS, (most, resource.RLIM_INFINITY))
base, tokens = Path(sys.argv[1]), list(range(3, 130))
engine = NativeEngine(base, threads=1)
cache = engine.new_cache(512)
module = "model.layers.0.mlp.up_proj.lora_"
adapter = {module + "A.weight": np.zeros((512, 576), np.float32),
           module + "B.weight": np.zeros((1536, 512), np.float32)}
for attempt in (lambda: engine.forward(cache, tokens, logits="all"),
                lambda: engine.forward(cache, tokens),
                lambda: engine.add_adapter(adapter, 1.0),
                lambda: engine.new_cache(8192),
                lambda: NativeEngine(base, threads=1)):
    limit(1 << 20)
    try: attempt()
    except DoesNotFitError as error:
        limit(None)
        print(error.message)
limit(None)
again = engine.forward(cache, tokens).logits
print((again == engine.forward(engine.new_cache(512), tokens).logits).all())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits a process's memory")
def test_too_little_memory_is_told_with_numbers(base: Path, engine: NativeEngine) -> None:
    command = [sys.executable, "-c", SHORT_OF_MEMORY, str(base)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    size = packed_file(base, "packed").stat().st_size
    beside = f"beside what smollm2-135m holds (bytes: {size:,} of weights, 0 of adapters, "
    *told, same = done.stdout.splitlines()
    assert len(told) == 5, (told, done.stderr)
    for line, what in zip(
        told[:3], ("the scores of 127 tokens", "127 tokens more", "another adapter"), strict=True
    ):
        assert f"no memory for {what} {beside}" in line
    assert told[3].startswith("no memory for a context of 8,192 tokens (")
    assert (
        told[4] == f"no memory for smollm2-135m ({engine.card.resident_bytes:,} bytes of weights)"
    )
    assert same == "True"  # what was refused left nothing behind


def test_what_is_damaged_is_made_anew(tmp_path: Path) -> None:
    base, said = make_tiny_base(tmp_path), []
    expected = logits(NativeEngine(base, say=said.append), [5, 6, 7], [])
    file = packed_file(base, "packed")
    whole = file.read_bytes()
    assert len(said) == 1 and said[0].startswith("preparing the weights")
    NativeEngine(base, say=said.append)
    assert len(said) == 1
    for damaged, reason in (
        (b"", "is truncated"),
        (whole[:-1], f"has {len(whole) - 1:,} bytes"),
        (whole + b"x", f"has {len(whole) + 1:,} bytes"),
        (b"X" + whole[1:], "another layout"),
        (whole[:9] + b"\x07" + whole[10:], "another layout"),
        (whole[:80] + bytes([whole[80] ^ 1]) + whole[81:], "its directory is damaged"),
    ):
        file.unlink()
        file.write_bytes(damaged)
        np.testing.assert_array_equal(
            logits(NativeEngine(base, say=said.append), [5, 6, 7], []), expected
        )
        assert reason in said[-1] and "again" in said[-1]
        assert file.read_bytes() == whole
    verify_kept(file)
    file.unlink()
    file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(IntegrityError, match="do not match its digest"):
        verify_kept(file)
    assert [p.name for p in base.iterdir() if "packed" in p.name] == [file.name]


def test_a_damaged_base_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    base = make_tiny_base(tmp_path)
    raw = (base / WEIGHTS_FILE).read_bytes()
    (base / WEIGHTS_FILE).unlink()
    (base / WEIGHTS_FILE).write_bytes(raw[: len(raw) // 2])
    with pytest.raises(MbpmError, match="weights"):
        NativeEngine(base)
    assert not [p for p in base.iterdir() if "packed" in p.name]


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may write anywhere")
def test_a_home_that_only_reads(tmp_path: Path) -> None:
    base = make_tiny_base(tmp_path)
    base.chmod(0o555)
    try:
        assert logits(NativeEngine(base), [5, 6], []).shape == (2, 261)
    finally:
        base.chmod(0o755)


def test_engines_by_name(tmp_path: Path) -> None:
    base = make_tiny_base(tmp_path)
    assert load_engine(base, device="cpu").name.startswith("native cpu")
    assert load_engine(base, engine="torch", device="cpu").name.startswith("torch cpu")
    assert load_engine(base, device="cpu", precision="float32").name == "torch cpu float32"
    for given in ({"engine": "gpu"}, {"engine": "native", "device": "cuda"}):
        with pytest.raises(UsageError):
            load_engine(base, **given)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="cannot run `sse9`"):
        NativeEngine(base, isa="sse9")


def test_running_on_the_processor_imports_no_torch(smollm2: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from runtime.load import load;"
        f"from runtime.sampling import Sampling; b = load(Path({str(smollm2)!r}), []);"
        "print([*b.session().answer([{'role': 'user', 'content': 'Hi'}], Sampling(), "
        "max_tokens=2)][-1].answer_tokens, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout.split() == ["2", "False"], done.stderr
