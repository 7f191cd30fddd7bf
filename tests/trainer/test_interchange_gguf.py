"""GGUF adapters and merged files, with the gguf library, transformers and llama.cpp beside us."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import torch
from gguf import GGUFReader
from gguf.quants import dequantize
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.engine import ActiveAdapter
from runtime.gguf_file import open_gguf
from runtime.logprobs import log_softmax
from specs.base_card import CARD_FILE, WEIGHTS_FILE, BaseCard
from specs.errors import IntegrityError, MbpmError, UsageError
from specs.manifest import MANIFEST_FILE, Manifest
from tests.support.adapters import random_adapter, write_pack
from tests.support.gguf_files import rewrite_metadata
from tests.support.tiny_base import write_tiny_base
from tests.trainer.test_interchange_peft import TOKENS, exported, in_transformers, pack_logits
from trainer.gguf_write import write_gguf
from trainer.interchange.compare import Question, Reference
from trainer.interchange.export import GGUF_ADAPTER, MERGED, export
from trainer.interchange.importing import read_adapter
from trainer.interchange.lora import Lora, Pair


@pytest.fixture(scope="module", params=["llama", "qwen2"])
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bases") / "tiny"
    write_tiny_base(folder, request.param)
    return folder


def tensors_of(file: Path) -> dict[str, np.ndarray]:
    """Every tensor as the gguf library reads it."""
    return {t.name: dequantize(t.data, t.tensor_type) for t in GGUFReader(file).tensors}


def test_a_merged_file_is_what_the_adapter_file_says_of_the_base_file(
    base: Path, tmp_path: Path
) -> None:
    """llama.cpp's formula over the files' own rows: W + alpha / rank * B A."""
    adapter_file = exported(base, tmp_path, "full", "gguf") / GGUF_ADAPTER
    (tmp_path / "m").mkdir()
    manifest = Manifest.read(tmp_path / "p" / MANIFEST_FILE)
    export(
        base, tmp_path / "p", manifest, "merged-gguf", tmp_path / "m", kind="F32",
        say=lambda _: None,
    )  # fmt: skip
    fields = GGUFReader(adapter_file).fields
    alpha = fields["adapter.lora.alpha"].contents()
    assert fields["general.type"].contents() == "adapter"
    adapter, before = tensors_of(adapter_file), tensors_of(base / WEIGHTS_FILE)
    after = tensors_of(tmp_path / "m" / MERGED)
    assert before.keys() == after.keys()
    for name, weight in before.items():
        if name + ".lora_a" in adapter:
            a, b = (adapter[f"{name}.lora_{h}"].astype(np.float32) for h in "ab")
            weight = weight + alpha / len(a) * (b @ a)
        np.testing.assert_allclose(after[name], weight, atol=1e-5)


def test_transformers_reads_a_merged_file_and_agrees(base: Path, tmp_path: Path) -> None:
    folder = exported(base, tmp_path, "full", "merged-gguf")
    shutil.copyfile(folder / MERGED, folder / WEIGHTS_FILE)
    with torch.no_grad():
        theirs = in_transformers(folder)(torch.tensor([TOKENS])).logits[0]
    merged = Reference(open_gguf(folder / MERGED)).logits([Question(TOKENS, 0)], None)[0]
    torch.testing.assert_close(merged, theirs, atol=1e-3, rtol=1e-3)
    ours = pack_logits(base, tmp_path / "p", TOKENS, 0)
    plain = Reference(open_gguf(base / WEIGHTS_FILE)).logits([Question(TOKENS, 0)], None)[0]
    # eight bits lose far less than the adapter changes
    assert (ours - theirs).abs().mean() < 0.05 * (ours - plain).abs().mean()


@pytest.mark.parametrize("kind", ["F16", "Q8_0", "Q5_0", "Q4_1", "Q4_0"])
def test_only_what_the_adapter_changes_is_quantised_again(
    base: Path, tmp_path: Path, kind: str
) -> None:
    card = BaseCard.read(base / CARD_FILE)
    few = {k: v for k, v in random_adapter(card, 4, 1).items() if "layers.1.mlp" in k}
    pack = write_pack(tmp_path / "p", card, few, 4, 8.0, "full")
    manifest = Manifest.read(pack / MANIFEST_FILE)
    (tmp_path / "m").mkdir()
    export(base, pack, manifest, "merged-gguf", tmp_path / "m", kind=kind, say=lambda _: None)
    before, after = (open_gguf(f) for f in (base / WEIGHTS_FILE, tmp_path / "m" / MERGED))
    changed = {n for n, t in after.tensors.items() if t.data.tobytes() != _bytes(before, n)}
    assert changed == {f"blk.1.ffn_{p}.weight" for p in ("gate", "up", "down")}
    assert {after.tensors[n].type for n in changed} == {kind}
    same = ("tokenizer.ggml.tokens", "tokenizer.chat_template")
    assert all(after.metadata[k] == before.metadata[k] for k in same)


def _bytes(file: object, name: str) -> bytes:
    return bytes(file.tensors[name].data.tobytes())  # type: ignore[attr-defined]


@pytest.mark.parametrize("activation", ["full", "answer"])
def test_an_adapter_file_comes_back_bit_for_bit(
    base: Path, tmp_path: Path, activation: str
) -> None:
    file = exported(base, tmp_path, activation, "gguf") / GGUF_ADAPTER  # type: ignore[arg-type]
    lora = read_adapter(file, base)
    assert lora.activation == activation
    tensors, info = lora.pack()
    expected = random_adapter(BaseCard.read(base / CARD_FILE), 4, 1)
    assert all(torch.equal(tensors[k], v) for k, v in expected.items())
    assert info == Manifest.read(tmp_path / "p" / MANIFEST_FILE).adapter


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"general.type": "model"}, "no adapter"),
        ({"adapter.type": "lokr"}, "lokr"),
        ({"adapter.lora.alpha": float("nan")}, "alpha"),
        ({"adapter.later": 1}, "adapter.later"),
        ({"adapter.alora.invocation_tokens": [1, 2]}, "invocation_tokens"),
        ({"adapter.alora.invocation_tokens": 5}, "expected token ids"),
    ],
)
def test_adapter_files_that_say_more_are_refused(
    base: Path, tmp_path: Path, changes: dict[str, object], words: str
) -> None:
    file = open_gguf(exported(base, tmp_path, "full", "gguf") / GGUF_ADAPTER)
    arch = str(file.metadata["general.architecture"])
    write_gguf(tmp_path / "x.gguf", arch, {**file.metadata, **changes}, file.tensors.values())
    with pytest.raises(MbpmError, match=words):
        read_adapter(tmp_path / "x.gguf", base)


def test_half_an_adapter_and_other_tensors_are_refused(base: Path, tmp_path: Path) -> None:
    file = open_gguf(exported(base, tmp_path, "full", "gguf") / GGUF_ADAPTER)
    arch = str(file.metadata["general.architecture"])
    some = [t for t in file.tensors.values() if t.name != "blk.1.attn_q.weight.lora_b"]
    write_gguf(tmp_path / "half.gguf", arch, file.metadata, some)
    with pytest.raises(IntegrityError, match="only one half"):
        read_adapter(tmp_path / "half.gguf", base)
    other = some[0].__class__("output.weight.lora_a", "F16", some[0].shape, some[0].data)
    write_gguf(tmp_path / "more.gguf", arch, file.metadata, [*file.tensors.values(), other])
    with pytest.raises(UsageError, match=r"output\.weight"):
        read_adapter(tmp_path / "more.gguf", base)
    with pytest.raises(UsageError, match="no adapter"):
        read_adapter(base / WEIGHTS_FILE, base)


def test_another_architecture_is_refused(base: Path, tmp_path: Path) -> None:
    file = open_gguf(exported(base, tmp_path, "full", "gguf") / GGUF_ADAPTER)
    metadata = {k: v for k, v in file.metadata.items() if k != "mbpm.base.fingerprint"}
    write_gguf(tmp_path / "x.gguf", "gemma", metadata, file.tensors.values())
    with pytest.raises(IntegrityError, match="gemma"):
        read_adapter(tmp_path / "x.gguf", base)


@settings(deadline=None)
@given(
    ranks=st.lists(st.integers(1, 6), min_size=1, max_size=4),
    scales=st.lists(st.sampled_from([0.5, 1.0, 2.0, 3.7]), min_size=4, max_size=4),
    seed=st.integers(0, 1 << 30),
)
def test_any_ranks_and_scales_become_one_of_each_without_changing_the_update(
    ranks: list[int], scales: list[float], seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    pairs = {
        f"m{i}": Pair(
            torch.randn(r, 8, generator=generator), torch.randn(5, r, generator=generator), s
        )
        for i, (r, s) in enumerate(zip(ranks, scales, strict=False))
    }
    tensors, info = Lora(pairs, "full").pack()
    assert info.rank == max(ranks) and info.modules == len(pairs)
    for name, pair in pairs.items():
        a, b = (tensors[f"{name}.lora_{h}.weight"].float() for h in "AB")
        assert a.shape == (info.rank, 8) and b.shape == (5, info.rank)
        torch.testing.assert_close(
            b @ a * info.scale, pair.b @ pair.a * pair.scale, atol=1e-5, rtol=1e-5
        )


def test_alpha_comes_back_as_it_was_said() -> None:
    for rank, alpha in ((7, 29), (12, 16), (49, 1), (64, 128)):
        pair = Pair(torch.ones(rank, 8), torch.ones(5, rank), alpha / rank)
        assert Lora({"m": pair}, "full").pack()[1].alpha == alpha


def test_llama_server_loads_an_exported_adapter_and_agrees(smollm2: Path, tmp_path: Path) -> None:
    program = os.environ.get("MBPM_TEST_LLAMA_SERVER") or shutil.which("llama-server")
    if program is None:
        pytest.skip("no llama-server on PATH or in MBPM_TEST_LLAMA_SERVER")
    file = exported(smollm2, tmp_path, "full", "gguf") / GGUF_ADAPTER
    port = 18000 + os.getpid() % 2000
    url = f"http://127.0.0.1:{port}"
    words = ["--model", smollm2 / WEIGHTS_FILE, "--lora", file, "--port", port, "-t", 1, "-c", 256]
    server = subprocess.Popen(
        [program, *map(str, words)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        _wait(url, server)
        body = {"prompt": list(TOKENS), "n_predict": 1, "n_probs": 5, "temperature": 0}
        request = urllib.request.Request(
            f"{url}/completion", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            found = json.load(answer)["completion_probabilities"][0]["top_logprobs"]
    finally:
        server.kill()
        server.wait()
    ours = torch.log_softmax(pack_logits(smollm2, tmp_path / "p", TOKENS, 0)[-1], -1)
    plain = Reference(open_gguf(smollm2 / WEIGHTS_FILE)).logits([Question(TOKENS, 0)], None)[0][-1]
    without = torch.log_softmax(plain, -1)
    far = _apart(without, found)
    for scores in (ours, *_by_the_native_engine(smollm2, tmp_path / "p")):
        near = _apart(scores, found)
        assert max(near) < 0.3
        assert sum(near) < sum(far)
        assert found[0]["id"] == int(scores.argmax())


def _apart(scores: torch.Tensor, found: list[dict[str, float]]) -> list[float]:
    return [abs(float(scores[int(t["id"])]) - t["logprob"]) for t in found]


def _by_the_native_engine(base: Path, pack: Path) -> list[torch.Tensor]:
    """Log-probabilities of the token after TOKENS with a pack, where the engine was built."""
    try:
        from runtime.native.engine import NativeEngine
    except ImportError:
        return []
    engine = NativeEngine(base, threads=1)
    active = [ActiveAdapter(engine.load_adapter(pack))]
    logits = engine.forward(engine.new_cache(len(TOKENS)), TOKENS, active).logits
    assert logits is not None
    return [torch.from_numpy(log_softmax(logits)[0])]


def _wait(url: str, server: subprocess.Popen[bytes]) -> None:
    for _ in range(300):
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=1):
                return
        except OSError:
            assert server.poll() is None, "llama-server ended"
            time.sleep(0.1)
    raise AssertionError("llama-server did not come up")


def test_metadata_alone_is_no_adapter(base: Path, tmp_path: Path) -> None:
    file = exported(base, tmp_path, "full", "gguf") / GGUF_ADAPTER
    rewrite_metadata(file, tmp_path / "x.gguf", {})
    with pytest.raises(MbpmError):
        read_adapter(tmp_path / "x.gguf", base)
