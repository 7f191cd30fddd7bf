"""The torch engine against independent implementations: transformers and peft."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from runtime.engine import F32, ActiveAdapter
from runtime.gguf_file import open_gguf
from runtime.model import Model
from runtime.quant import DequantLinear
from runtime.tokenizer import Tokenizer
from runtime.torch_engine import TorchEngine
from specs.base_card import WEIGHTS_FILE
from specs.errors import DoesNotFitError, UsageError
from tests.support.adapters import random_adapter, write_pack
from tests.support.tiny_base import write_tiny_base

PROMPTS = [
    "The mitochondria is the powerhouse of the cell and it produces energy in the form of",
    "def fibonacci(n):\n    if n < 2:\n        return n\n    return fibonacci(n - 1) +",
    "In 1492, Columbus sailed across the Atlantic Ocean from Spain, and",
    "What is the capital of France? The capital of France is Paris. The capital of Italy is",
    "To make bread, mix flour, water, salt and yeast. Knead the dough for ten minutes, then",
    "Once upon a time there was a small village at the edge of a dark forest, where",
    "The derivative of x squared is two x. The integral of two x is",
    "SELECT name, count(*) FROM users WHERE age > 30 GROUP BY name ORDER BY",
    "Dear Sir or Madam, I am writing to complain about the service that I received",
    "Photosynthesis converts light energy into chemical energy. Plants take in carbon dioxide",
    "The patient presented with fever, cough and shortness of breath. A chest radiograph",
    "Wer reitet so spät durch Nacht und Wind? Es ist der Vater mit seinem Kind.",
    "1, 1, 2, 3, 5, 8, 13, 21, 34, 55, 89, 144,",
    "<html>\n<head><title>Test page</title></head>\n<body>\n<h1>Hello",
    "It is a truth universally acknowledged, that a single man in possession of a good fortune,",
    "The licence grants permission to use, copy, modify and distribute the software, provided",
    "La Révolution française a commencé en 1789 avec la prise de la Bastille, et",
    "Water boils at 100 degrees Celsius at sea level, but at higher altitudes",
    "Q: How many legs do a spider and two cows have together?\nA: A spider has 8 legs,",
    "日本の首都は東京です。フランスの首都は",
]


def log_probabilities(logits: F32) -> torch.Tensor:
    return torch.log_softmax(torch.from_numpy(logits).double(), dim=-1)


def compare(base: Path) -> dict[str, tuple[float, float]]:
    """Per precision: mean KL from transformers' float32 logits, and top-1 agreement."""
    from transformers import AutoModelForCausalLM

    weights = (base / WEIGHTS_FILE).resolve()
    reference = AutoModelForCausalLM.from_pretrained(
        weights.parent, gguf_file=weights.name, dtype=torch.float32
    ).eval()
    tokenizer = Tokenizer.from_gguf(base / WEIGHTS_FILE)
    result = {}
    for precision in ("float32", "packed"):
        engine = TorchEngine(base, device="cpu", precision=precision)
        divergences, agreements = [], []
        for text in PROMPTS:
            ids = tokenizer.encode(text)
            with torch.no_grad():
                expected = torch.log_softmax(reference(torch.tensor([ids])).logits[0].double(), -1)
            logits = engine.forward(engine.new_cache(len(ids)), ids, logits="all").logits
            assert logits is not None
            found = log_probabilities(logits)
            divergences.append((expected.exp() * (expected - found)).sum(-1))
            agreements.append((expected.argmax(-1) == found.argmax(-1)).double())
        result[precision] = (
            float(torch.cat(divergences).mean()),
            float(torch.cat(agreements).mean()),
        )
    return result


def check(result: dict[str, tuple[float, float]]) -> None:
    assert result["float32"][0] <= 1e-6
    assert result["packed"][0] <= 5e-3
    assert result["packed"][1] >= 0.95


def test_logits_equal_transformers(smollm2: Path) -> None:
    check(compare(smollm2))


@pytest.mark.slow
def test_logits_equal_transformers_on_the_larger_base(qwen05: Path) -> None:
    check(compare(qwen05))


def test_adapter_logits_equal_peft(smollm2: Path, tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    engine = TorchEngine(smollm2, device="cpu", precision="float32")
    tensors = random_adapter(engine.card, rank=8, seed=3)
    slot = engine.load_adapter(write_pack(tmp_path / "p", engine.card, tensors, 8, 16.0, "full"))
    weights = (smollm2 / WEIGHTS_FILE).resolve()
    reference = AutoModelForCausalLM.from_pretrained(
        weights.parent, gguf_file=weights.name, dtype=torch.float32
    )
    modules = sorted({m.split(".")[-1] for m in engine.card.modules})
    peft = get_peft_model(
        reference, LoraConfig(r=8, lora_alpha=16, target_modules=modules, lora_dropout=0.0)
    ).eval()
    own = dict(peft.named_parameters())
    for name, tensor in tensors.items():
        key = "base_model.model." + name.removesuffix(".weight") + ".default.weight"
        own[key].data.copy_(tensor.float())
    tokenizer = Tokenizer.from_gguf(smollm2 / WEIGHTS_FILE)
    for text in PROMPTS[:4]:
        ids = tokenizer.encode(text)
        with torch.no_grad():
            expected = torch.log_softmax(peft(torch.tensor([ids])).logits[0].double(), -1)
        cache = engine.new_cache(len(ids))
        logits = engine.forward(cache, ids, [ActiveAdapter(slot)], logits="all").logits
        assert logits is not None
        found = log_probabilities(logits)
        assert float((expected.exp() * (expected - found)).sum(-1).mean()) <= 1e-6
        plain = engine.forward(engine.new_cache(len(ids)), ids, logits="all").logits
        assert plain is not None
        assert float((expected.exp() * (expected - log_probabilities(plain))).sum(-1).mean()) > 0.1


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("bases") / "tiny"
    write_tiny_base(base)
    return base


IDS = list(range(3, 60))


@pytest.mark.parametrize("architecture", ["llama", "qwen2"])
def test_tiny_models_equal_transformers(tmp_path: Path, architecture: str) -> None:
    from transformers import AutoModelForCausalLM

    base = tmp_path / architecture
    write_tiny_base(base, architecture)
    engine = TorchEngine(base, device="cpu", precision="float32")
    reference = AutoModelForCausalLM.from_pretrained(
        base, gguf_file=WEIGHTS_FILE, dtype=torch.float32
    )
    with torch.no_grad():
        expected = reference(torch.tensor([IDS])).logits[0].numpy()
    logits = engine.forward(engine.new_cache(99), IDS, logits="all").logits
    np.testing.assert_allclose(logits, expected, atol=2e-4)


def test_pieces_give_what_the_whole_gives(tiny: Path) -> None:
    engine = TorchEngine(tiny, device="cpu", precision="float32")
    whole = engine.forward(engine.new_cache(99), IDS, logits="all", hidden_layer=1)
    cache = engine.new_cache(99)
    pieces = [
        engine.forward(cache, IDS[a:b], logits="all", hidden_layer=1)
        for a, b in ((0, 20), (20, 21), (21, 22), (22, 57))
    ]
    for field in ("logits", "hidden"):
        joined = np.concatenate([getattr(p, field) for p in pieces])
        np.testing.assert_allclose(joined, getattr(whole, field), atol=1e-4)
    cache.truncate(20)
    again = engine.forward(cache, IDS[20:30], logits="all").logits
    assert whole.logits is not None
    np.testing.assert_allclose(again, whole.logits[20:30], atol=1e-4)


def test_without_an_active_pack_logits_are_those_of_a_base_that_never_saw_one(
    tiny: Path, tmp_path: Path
) -> None:
    engine = TorchEngine(tiny, device="cpu")
    tensors = random_adapter(engine.card, rank=4, seed=0)
    slot = engine.load_adapter(write_pack(tmp_path / "p", engine.card, tensors, 4, 8.0, "answer"))
    used = engine.forward(engine.new_cache(99), IDS, [ActiveAdapter(slot)], logits="all").logits
    cache = engine.new_cache(99)
    mine = engine.forward(cache, IDS, logits="all").logits
    zero = engine.forward(engine.new_cache(99), IDS, [ActiveAdapter(slot, 0.0)], logits="all")
    code = (
        "import sys, numpy as np; from pathlib import Path\n"
        "from runtime.torch_engine import TorchEngine\n"
        "e = TorchEngine(Path(sys.argv[1]), device='cpu')\n"
        f"r = e.forward(e.new_cache(99), {IDS!r}, logits='all').logits\n"
        "sys.stdout.buffer.write(r.tobytes())\n"
    )
    fresh = subprocess.run(
        [sys.executable, "-c", code, str(tiny)],
        capture_output=True,
        check=True,
        env={**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())},
    ).stdout
    assert mine is not None and used is not None and zero.logits is not None
    assert mine.tobytes() == fresh
    assert zero.logits.tobytes() == fresh
    assert used.tobytes() != fresh


def test_two_adapters_sum_on_the_activation_path(tiny: Path, tmp_path: Path) -> None:
    """Each adapter on its own tokens, then both: equals one adapter of concatenated rank."""
    engine = TorchEngine(tiny, device="cpu", precision="float32")
    first, second = (random_adapter(engine.card, rank=4, seed=s) for s in (1, 2))
    slots = [
        engine.load_adapter(write_pack(tmp_path / f"p{i}", engine.card, t, 4, 4.0, "answer"))
        for i, t in enumerate((first, second))
    ]
    joined = {
        n: torch.cat([first[n], second[n] * (0.5 if "lora_B" in n else 1.0)], int("lora_B" in n))
        for n in first
    }
    both = engine.load_adapter(write_pack(tmp_path / "both", engine.card, joined, 8, 8.0, "answer"))
    summed = engine.forward(
        engine.new_cache(99), IDS, [ActiveAdapter(slots[0]), ActiveAdapter(slots[1], 0.5)]
    ).logits
    one = engine.forward(engine.new_cache(99), IDS, [ActiveAdapter(both)]).logits
    np.testing.assert_allclose(summed, one, atol=2e-4)


def test_unloading_frees_the_adapters_memory(tiny: Path, tmp_path: Path) -> None:
    engine = TorchEngine(tiny, device="cpu")
    assert engine.memory()["adapters"] == 0
    tensors = random_adapter(engine.card, rank=4, seed=0)
    slot = engine.load_adapter(write_pack(tmp_path / "p", engine.card, tensors, 4, 8.0, "answer"))
    assert engine.memory()["adapters"] > 0
    engine.unload_adapter(slot)
    assert engine.memory()["adapters"] == 0


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the system does not tell")
def test_loading_never_holds_the_model_in_full_precision(smollm2: Path) -> None:
    """Weights of 4 and 8 bits stay near the file's size, and so does the peak while they load."""
    code = (
        "import sys; from pathlib import Path\n"
        "from runtime.torch_engine import TorchEngine\n"
        "def peak():\n"
        "    lines = open('/proc/self/status').read().split('VmHWM:')\n"
        "    return int(lines[1].split()[0]) * 1024\n"
        "before = peak()\n"
        "engine = TorchEngine(Path(sys.argv[1]), device='cpu')\n"
        "engine.new_cache(4096)\n"
        "print(engine.memory()['weights'], peak() - before)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(smollm2)], capture_output=True, check=True, text=True
    )
    size = (smollm2 / WEIGHTS_FILE).stat().st_size
    weights, grown = map(int, done.stdout.split())
    assert weights < 1.2 * size
    assert grown < 3 * size


def test_a_full_cache_is_refused_before_anything_runs(tiny: Path) -> None:
    engine = TorchEngine(tiny, device="cpu")
    cache = engine.new_cache(10)
    with pytest.raises(DoesNotFitError, match="context of 10"):
        engine.forward(cache, IDS)
    assert cache.length == 0
    with pytest.raises(DoesNotFitError, match="512"):
        engine.new_cache(513)


def test_a_device_that_is_not_there_is_named(tiny: Path) -> None:
    for name in ("warp", "meta"):  # torch knows the second, and no model runs on it
        with pytest.raises(UsageError, match=name):
            TorchEngine(tiny, device=name)
    if not torch.cuda.is_available():
        with pytest.raises(UsageError, match="CUDA"):
            TorchEngine(tiny, device="cuda")


def test_the_form_that_cuda_uses_agrees_with_the_reference(tiny: Path, tmp_path: Path) -> None:
    """float16 weights, adapter and cache, on the CPU: that types meet where they should."""
    reference = TorchEngine(tiny, device="cpu", precision="float32")
    engine = TorchEngine(tiny, device="cpu")
    make = partial(DequantLinear, device=engine.device, dtype=torch.float16)
    engine.dtype = torch.float16
    engine.model = Model(open_gguf(tiny / WEIGHTS_FILE), engine.config, engine.device, make)
    tensors = random_adapter(engine.card, rank=4, seed=0)
    pack = write_pack(tmp_path / "p", engine.card, tensors, 4, 8.0, "answer")
    results = []
    for each in (reference, engine):
        active = [ActiveAdapter(each.load_adapter(pack), 0.5)]
        cache = each.new_cache(99)
        each.forward(cache, IDS[:30], logits="none")
        read = each.forward(cache, IDS[30:-1], active, logits="all", hidden_layer=1)
        step = each.forward(cache, IDS[-1:], active)
        assert read.logits is not None and step.logits is not None
        results.append(log_probabilities(np.concatenate([read.logits, step.logits])))
    expected, found = results
    assert float((expected.exp() * (expected - found)).sum(-1).mean()) <= 1e-4


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_agrees_with_the_reference(smollm2: Path) -> None:
    tokenizer = Tokenizer.from_gguf(smollm2 / WEIGHTS_FILE)
    engines = [
        TorchEngine(smollm2, device="cuda"),
        TorchEngine(smollm2, device="cpu", precision="float32"),
    ]
    ids = tokenizer.encode(PROMPTS[0])
    found, expected = (
        log_probabilities(e.forward(e.new_cache(len(ids)), ids, logits="all").logits)  # type: ignore[arg-type]
        for e in engines
    )
    assert float((expected.exp() * (expected - found)).sum(-1).mean()) <= 5e-3
