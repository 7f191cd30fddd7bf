"""Bases of one's own: a toy one learns, stops anywhere, and goes on to the same bytes."""

from __future__ import annotations

import errno
import math
import os
import random
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import trainer.pretrain.loop
from runtime.chat_format import ChatFormat
from runtime.engine import ModelConfig
from runtime.gguf_file import model_config, open_gguf
from runtime.tokenizer import Tokenizer
from runtime.torch_engine import TorchEngine
from specs.base_card import WEIGHTS_FILE
from specs.errors import DoesNotFitError, IntegrityError, MbpmError, NotFoundError, UsageError
from tests.support.tiny_base import few_general_prompts, write_tiny_base
from trainer.data.files import find_files
from trainer.loop import StepReport
from trainer.pretrain.baselines import bigram_nats, unigram_nats
from trainer.pretrain.config import BaseConfig
from trainer.pretrain.corpus import epoch_order, read_corpus, windows
from trainer.pretrain.make import TrainingRecord, make_own_base
from trainer.pretrain.model import FloatModel, new_weights, read_weights

CPU = torch.device("cpu")
TOY: dict[str, Any] = {
    "name": "toy",
    "description": "for tests",
    "license": "CC0-1.0",
    "model": {
        "layers": 2,
        "hidden_size": 32,
        "ffn_size": 64,
        "heads": 2,
        "kv_heads": 1,
        "context_length": 512,
    },
    "tokenizer": {"vocab_size": 300},
    "training": {"epochs": 3, "window": 32, "batch_tokens": 512, "learning_rate": 0.01},
    "held_out": ["last.txt"],
}


def config(**changes: Any) -> BaseConfig:
    return BaseConfig.from_object({**TOY, **changes}, "toy.toml")


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sentences of a small grammar: something to learn in seconds."""
    folder = tmp_path_factory.mktemp("texts")
    rng = random.Random(0)
    people, things = ["Anna", "Ben", "Clara", "David"], ["a red ball", "an old book", "the key"]
    for name in ("first.txt", "second.md", "last.txt"):
        lines = [
            f"{rng.choice(people)} saw {rng.choice(things)} and {rng.choice(people)} took it home."
            for _ in range(200)
        ]
        (folder / name).write_text(
            "\n\n".join(" ".join(lines[i : i + 8]) for i in range(0, 200, 8))
        )
    return folder


class Watch:
    """Counts steps, and does something at one of them."""

    def __init__(self, stop_at: int | None = None, how: Any = None) -> None:
        self.stop_at, self.how = stop_at, how
        self.steps: list[StepReport] = []
        self.stages: list[str] = []

    def stage(self, text: str) -> None:
        self.stages.append(text)

    def step(self, report: StepReport) -> None:
        self.steps.append(report)
        if report.step == self.stop_at:
            self.how()


def power_cut() -> None:
    raise RuntimeError("the power went")


def make(texts: Path, folder: Path, watch: Watch, **changes: Any) -> TrainingRecord:
    with few_general_prompts():
        _, record = make_own_base(config(**changes), find_files(texts), folder, watch, device="cpu")
    return record


@pytest.fixture(scope="module")
def whole(texts: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, TrainingRecord]:
    """A base made without a stop."""
    folder = tmp_path_factory.mktemp("whole") / "toy-base"
    return folder, make(texts, folder, Watch())


def test_a_base_learns_and_is_measured_beside_what_needs_no_training(
    whole: tuple[Path, TrainingRecord],
) -> None:
    folder, record = whole
    found = {p.name: p for p in record.predictions}
    assert found["toy"].perplexity < found["unigrams"].perplexity
    assert found["toy"].perplexity < 0.2 * found["before training (random weights)"].perplexity
    assert abs(math.log(found["before training (random weights)"].perplexity / 300)) < 0.2
    assert found["toy"].low is not None and found["toy"].low < found["toy"].perplexity
    assert [f.name for f in record.files if f.held_out] == ["last.txt"]
    assert "held out" in (folder / "README.md").read_text()


def test_it_runs_in_the_engine_and_answers_in_its_chat_format(
    whole: tuple[Path, TrainingRecord],
) -> None:
    weights = whole[0] / WEIGHTS_FILE
    tokenizer = Tokenizer.from_gguf(weights)
    text = "Anna saw the key, “twice” in 1813.\n\n  Über"
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert [tokenizer.decode([t]) for t in tokenizer.encode("1813")] == list("1813")
    prompt = ChatFormat.from_gguf(weights, tokenizer).prompt([{"role": "user", "content": "Hi"}])
    engine = TorchEngine(whole[0], device="cpu")
    cache = engine.new_cache(len(prompt.tokens))
    logits = engine.forward(cache, prompt.tokens).logits
    assert logits is not None and np.isfinite(logits).all()


def test_transformers_reads_its_tokenizer_and_weights(whole: tuple[Path, TrainingRecord]) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = Tokenizer.from_gguf(whole[0] / WEIGHTS_FILE)
    theirs = AutoTokenizer.from_pretrained(whole[0], gguf_file=WEIGHTS_FILE)
    ids = tokenizer.encode("Clara took the red ball home in 42 days.")
    assert theirs.encode("Clara took the red ball home in 42 days.") == ids
    model = AutoModelForCausalLM.from_pretrained(
        whole[0], gguf_file=WEIGHTS_FILE, dtype=torch.float32
    ).eval()
    engine = TorchEngine(whole[0], device="cpu", precision="float32")
    ours = engine.forward(engine.new_cache(len(ids)), ids, logits="all").logits
    with torch.no_grad():
        expected = model(torch.tensor([ids])).logits[0]
    torch.testing.assert_close(torch.from_numpy(ours), expected, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("how", ["cut", "interrupt"])
def test_a_stopped_run_goes_on_to_the_same_bytes(
    whole: tuple[Path, TrainingRecord],
    texts: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    interruptible: None,
    how: str,
) -> None:
    folder = tmp_path / "toy-base"
    if how == "cut":
        monkeypatch.setattr(trainer.pretrain.loop, "CHECKPOINT_SECONDS", 0.0)
        with pytest.raises(RuntimeError):
            make(texts, folder, Watch(7, power_cut))
    else:
        with pytest.raises(KeyboardInterrupt):
            make(texts, folder, Watch(7, lambda: os.kill(os.getpid(), signal.SIGINT)))
    watch = Watch()
    record = make(texts, folder, watch)
    # a cut falls between the step and its report; an interruption ends the step it falls into
    assert watch.steps[0].step in (7, 8, 9)
    assert "training the tokenizer" not in watch.stages
    assert (folder / WEIGHTS_FILE).read_bytes() == (whole[0] / WEIGHTS_FILE).read_bytes()
    assert record == whole[1]


def test_checkpoints_of_other_settings_are_refused(
    texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainer.pretrain.loop, "CHECKPOINT_SECONDS", 0.0)
    with pytest.raises(RuntimeError):
        make(texts, tmp_path, Watch(2, power_cut))
    with pytest.raises(UsageError) as caught:
        make(texts, tmp_path, Watch(), training={**TOY["training"], "seed": 5})
    assert caught.value.hint is not None and "--restart" in caught.value.hint
    file = tmp_path / "checkpoints" / "last.safetensors"
    file.write_bytes(file.read_bytes()[:500])
    with pytest.raises(IntegrityError, match=r"last\.safetensors"):
        make(texts, tmp_path, Watch())


def test_a_full_disk_leaves_the_checkpoint_before(
    texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[int] = []

    def nearly_full(descriptor: int) -> None:
        written.append(descriptor)
        if len(written) > 3:
            raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as full:
        full.setattr(trainer.pretrain.loop, "CHECKPOINT_SECONDS", 0.0)
        full.setattr(os, "fsync", nearly_full)
        with pytest.raises(DoesNotFitError, match=r"last\.safetensors"):
            make(texts, tmp_path, Watch())
    watch = Watch(5, power_cut)
    with pytest.raises(RuntimeError):
        make(texts, tmp_path, watch)
    # the first file is the tokenizer's
    assert watch.steps[0].step == 3


@pytest.mark.parametrize("fits", [True, False])
def test_too_little_memory_names_what_would_fit(
    texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fits: bool
) -> None:
    def allocate(*arguments: object) -> torch.Tensor:
        return torch.empty(1 << 60).sum()

    monkeypatch.setattr(FloatModel, "losses", allocate)
    monkeypatch.setattr("trainer.pretrain.measure.HeldOut.by_model", lambda *_: None, raising=True)
    monkeypatch.setattr("trainer.pretrain.loop.available", lambda device: 1 << (36 if fits else 10))
    monkeypatch.setattr("trainer.pretrain.loop.resident", lambda device: 0)
    with pytest.raises(DoesNotFitError, match="no memory left for a step") as caught:
        make(texts, tmp_path, Watch())
    assert ("batch_tokens = " in (caught.value.hint or "")) == fits
    assert ("a smaller `window`" in (caught.value.hint or "")) != fits


def test_a_loss_that_is_not_a_number_stops_the_run(
    texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(model: FloatModel, rows: torch.Tensor) -> torch.Tensor:
        return original(model, rows) * float("nan")

    original = FloatModel.losses
    monkeypatch.setattr(FloatModel, "losses", broken)
    monkeypatch.setattr("trainer.pretrain.measure.HeldOut.by_model", lambda *_: None, raising=True)
    with pytest.raises(MbpmError, match="not a number at step 1"):
        make(texts, tmp_path, Watch())


@pytest.mark.parametrize("architecture", ["llama", "qwen2"])
def test_a_base_is_continued_from_where_it_is(tmp_path: Path, architecture: str) -> None:
    """Its weights as they are trained say what the engine says of the file."""
    write_tiny_base(tmp_path / "tiny", architecture)
    file = open_gguf(tmp_path / "tiny" / WEIGHTS_FILE)
    model = FloatModel(model_config(file), read_weights(file, model_config(file), CPU))
    ids = list(range(30, 70))
    engine = TorchEngine(tmp_path / "tiny", device="cpu", precision="float32")
    logits = engine.forward(engine.new_cache(40), ids, logits="all").logits
    expected = -torch.log_softmax(torch.from_numpy(logits), -1)[:-1]
    expected = expected.gather(1, torch.tensor(ids[1:])[:, None])[:, 0]
    found = model.losses(torch.tensor([ids]))
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    for _ in range(2):  # biases that were joined belong to one backward pass only
        model.losses(torch.tensor([ids])).mean().backward()
    assert all(w.grad is not None and w.grad.abs().sum() > 0 for w in model.weights.values())
    for tensor in model.tensors("F32"):
        np.testing.assert_allclose(
            tensor.data, file.tensors[tensor.name].dequantized(), err_msg=tensor.name
        )


def test_continuing_keeps_tokenizer_and_shape_and_changes_the_weights(
    texts: Path, tmp_path: Path
) -> None:
    write_tiny_base(tmp_path / "tiny")
    said = {k: v for k, v in TOY.items() if k not in ("model", "tokenizer")}
    said["training"] = {**TOY["training"], "epochs": 1, "window": 128}
    made = BaseConfig.from_object({**said, "continues": "tiny"}, "toy.toml")
    with few_general_prompts():
        card, record = make_own_base(
            made,
            find_files(texts),
            tmp_path / "out",
            Watch(),
            base_dir=tmp_path / "tiny",
            device="cpu",
        )
    before, after = (open_gguf(tmp_path / d / WEIGHTS_FILE) for d in ("tiny", "out"))
    for key, value in before.metadata.items():
        if key.startswith(("tokenizer.", "llama.")):
            np.testing.assert_array_equal(after.metadata[key], value, err_msg=key)
    assert {n: t.shape for n, t in before.tensors.items()} == {
        n: t.shape for n, t in after.tensors.items()
    }
    first, last = record.predictions[-2:]
    assert first.name == "before training (tiny)" and last.perplexity < 0.5 * first.perplexity
    assert card.layers == 3


def test_a_longer_window_than_the_base_reads_is_refused_before_training(
    texts: Path, tmp_path: Path
) -> None:
    write_tiny_base(tmp_path / "tiny")
    said = {k: v for k, v in TOY.items() if k not in ("model", "tokenizer")}
    said["training"] = {"window": 1 << 14, "batch_tokens": 1 << 14}
    made = BaseConfig.from_object({**said, "continues": "tiny"}, "toy.toml")
    watch = Watch()
    with pytest.raises(UsageError, match=r"training\.window 16384 is more than"):
        make_own_base(
            made, find_files(texts), tmp_path / "out", watch, base_dir=tmp_path / "tiny",
            device="cpu",
        )  # fmt: skip
    assert watch.steps == []


def test_embeddings_keep_8_bits() -> None:
    shape = ModelConfig("llama", 1, 32, 64, 2, 1, 16, 300, 64, 1e4, 1e-5, False)
    model = FloatModel(shape, new_weights(shape, 0, CPU))
    for kind, embeddings in (("Q4_0", "Q8_0"), ("Q5_0", "Q8_0"), ("Q8_0", "Q8_0"), ("F16", "F16")):
        types = {t.name: t.type for t in model.tensors(kind)}
        assert types["token_embd.weight"] == embeddings
        assert types["blk.0.attn_q.weight"] == kind


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model": None}, "needs [model]"),
        ({"continues": "tiny"}, "takes [model] and [tokenizer]"),
        ({"model": {**TOY["model"], "hidden_size": 48}}, "multiple of 32"),
        ({"model": {**TOY["model"], "heads": 3}}, "heads"),
        ({"model": {**TOY["model"], "kv_heads": 4}}, "kv_heads"),
        ({"training": {"window": 1024, "batch_tokens": 4096}}, "context_length"),
        ({"training": {"window": 64, "batch_tokens": 32}}, "no window"),
        ({"training": {"learning_rat": 1}}, "learning_rat"),
        ({"quantization": "Q4_K"}, "quantization"),
    ],
)
def test_a_configuration_that_cannot_be_is_refused_by_name(
    changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(IntegrityError) as caught:
        config(**changes)
    assert words in caught.value.message


def test_unusable_text(texts: Path, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"nobody\.txt") as caught:
        read_corpus(find_files(texts), config(held_out=["nobody.txt"]))
    assert caught.value.hint is not None and "last.txt" in caught.value.hint
    with pytest.raises(UsageError, match="too little text"):
        read_corpus(find_files(texts), config(held_out=["first.txt", "second.md", "last.txt"]))
    (tmp_path / "rows.jsonl").write_text('{"prompt": "a?", "response": "b"}')
    with pytest.raises(UsageError, match="no text"):
        read_corpus(find_files(tmp_path), config())
    (tmp_path / "rows.jsonl").unlink()
    (tmp_path / "empty.txt").write_text(" \n")
    with pytest.raises(UsageError, match=r"empty\.txt"):
        read_corpus(find_files(tmp_path), config())
    (tmp_path / "empty.txt").write_bytes("Käse".encode("latin1"))
    with pytest.raises(UsageError, match="UTF-8"):
        read_corpus(find_files(tmp_path), config())
    (tmp_path / "empty.txt").write_text("a b c")
    with pytest.raises(UsageError, match="vocab_size") as usage:
        make(tmp_path, tmp_path / "out", Watch(), held_out=[])
    assert usage.value.hint is not None


def test_without_a_list_the_last_tenth_of_every_text_is_held_out(texts: Path) -> None:
    corpus = read_corpus(find_files(texts), config(held_out=[]))
    assert corpus.texts.keys() == corpus.held_out.keys() == {"first.txt", "second.md", "last.txt"}
    for name, text in corpus.texts.items():
        whole = (texts / name).read_text()
        assert text + corpus.held_out[name] == whole
        assert 0.05 < len(corpus.held_out[name]) / len(whole) < 0.2
    learnt = " ".join(" ".join(corpus.texts.values()).split())
    assert corpus.conversations
    assert all(" ".join(e.answer.split()) in learnt for e in corpus.conversations)


def test_windows_predict_every_token_once() -> None:
    rows = windows(np.arange(100, dtype=np.int32), 9)
    assert rows.shape == (11, 10)
    assert rows[:, 1:].reshape(-1).tolist() == list(range(1, 100))


def test_an_epoch_has_every_text_and_its_share_of_conversations() -> None:
    order = epoch_order(80, 500, 0.2, 7)
    assert sorted(n for n in order if n < 80) == list(range(80))
    assert sum(n >= 80 for n in order) == 20
    assert order == epoch_order(80, 500, 0.2, 7) != epoch_order(80, 500, 0.2, 8)
    assert epoch_order(80, 5, 0.5, 0).__len__() == 85
    assert all(n >= 80 for n in epoch_order(80, 500, 1.0, 7))


def test_counting_is_what_counting_by_hand_gives() -> None:
    train, held_out = np.array([0, 1, 0, 1, 0, 2], np.int32), np.array([0, 1, 2, 1], np.int32)
    single = [4 / 9, 3 / 9, 2 / 9]  # (3 + 1, 2 + 1, 1 + 1) of 9
    expected = -sum(math.log(single[t]) for t in (1, 2, 1)) / 3
    assert math.isclose(unigram_nats(train, held_out, 3), expected)
    # after 0: {1: 2, 2: 1}, 3 seen, 2 different; after 1: {0: 2}, 2 seen, 1 different; 2: none
    after_0 = 2 / 5 + 2 / 5 * single[1]
    after_1 = 0 / 3 + 1 / 3 * single[2]
    after_2 = single[1]
    expected = -sum(map(math.log, (after_0, after_1, after_2))) / 3
    assert math.isclose(bigram_nats(train, held_out, 3), expected)


def test_new_weights_depend_on_the_seed_alone() -> None:
    shape = ModelConfig("llama", 1, 32, 64, 2, 1, 16, 300, 64, 1e4, 1e-5, False)
    one, same, other = (new_weights(shape, seed, CPU) for seed in (1, 1, 2))
    assert all(torch.equal(one[n], same[n]) for n in one)
    assert not torch.equal(one["token_embd.weight"], other["token_embd.weight"])
