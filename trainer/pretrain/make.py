"""From a configuration and text to a base folder: tokenizer, training, GGUF, card, measurements."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from runtime.chat_format import ChatFormat
from runtime.engine import ModelConfig
from runtime.gguf_file import GGUFFile, model_config, open_gguf
from runtime.tokenizer import Tokenizer
from runtime.torch_engine import TorchEngine, pick_device
from specs.base_card import WEIGHTS_FILE, BaseCard
from specs.blobs import FileSource
from specs.errors import MbpmError, UsageError
from specs.model import Contract, canonical_json
from trainer.checkpoint import LAST
from trainer.data.files import DataFile
from trainer.gguf_write import FILE_TYPES, write_gguf
from trainer.make_base import BaseDescription, make_base
from trainer.make_pack import Reporter
from trainer.pretrain.config import BaseConfig
from trainer.pretrain.corpus import (
    Corpus,
    encode_conversations,
    encode_texts,
    read_corpus,
    windows,
)
from trainer.pretrain.loop import Windows, pretrain
from trainer.pretrain.measure import HeldOut, Prediction
from trainer.pretrain.model import FloatModel, new_weights, read_weights
from trainer.pretrain.tokenizer import train_tokenizer

CHECKPOINTS = "checkpoints"
RECORD_FILE = "training.json"
README_FILE = "README.md"
START_FILE = "start.gguf"
_LEARNT = "mbpm.texts"
"""In START_FILE: what its tokenizer was learnt from."""


class TextFile(Contract):
    """A document the base learnt from, or was measured on."""

    name: str
    sha256: str
    held_out: bool


class TrainingRecord(Contract):
    """`training.json`: how a base was made, and what was measured."""

    format: int = 1
    base: str
    fingerprint: str
    config: BaseConfig
    files: tuple[TextFile, ...]
    steps: int
    parameters: int
    training_tokens: int
    """Tokens of one epoch's text."""
    held_out_tokens: int
    predictions: tuple[Prediction, ...]


def drop_checkpoints(output: Path) -> None:
    """Forget an earlier run in this folder."""
    (output / CHECKPOINTS / LAST).unlink(missing_ok=True)


@dataclass(frozen=True)
class Start:
    """Where training begins: the weights' shape, and a file with the tokenizer and chat format."""

    file: GGUFFile
    config: ModelConfig
    continued: bool

    def weights(self, seed: int, device: torch.device) -> dict[str, torch.Tensor]:
        """The weights before the first step."""
        if self.continued:
            return read_weights(self.file, self.config, device)
        return new_weights(self.config, seed, device)


def make_own_base(
    config: BaseConfig,
    files: Sequence[DataFile],
    output: Path,
    reporter: Reporter,
    *,
    base_dir: Path | None = None,
    device: str = "auto",
) -> tuple[BaseCard, TrainingRecord]:
    """Make a base folder in `output`; checkpoints stand in `output/checkpoints`.

    Args:
        base_dir: the folder of the base that `config.continues` names.

    Raises:
        NotFoundError, UsageError: unusable data, or checkpoints of another run.
        MbpmError: training diverged.
    """
    torch_device = pick_device(device)
    corpus = read_corpus(files, config)
    checkpoints = output / CHECKPOINTS
    checkpoints.mkdir(parents=True, exist_ok=True)
    start = _start(config, corpus, checkpoints, base_dir, reporter)
    tokenizer = Tokenizer.from_gguf(start.file.path)
    chat = ChatFormat.from_gguf(start.file.path, tokenizer)
    window = config.training.window
    stream = encode_texts(list(corpus.texts.values()), tokenizer)
    talk = encode_conversations(corpus.conversations, chat)
    sequences = Windows(windows(stream, window), windows(talk, window))
    unseen = "".join(corpus.held_out.values())
    held_out = HeldOut.of(encode_texts([unseen], tokenizer), len(unseen.encode()), window)
    model = FloatModel(start.config, start.weights(config.training.seed, torch_device))
    before = held_out.by_model(f"before training ({config.continues or 'random weights'})", model)
    reporter.stage("training")
    steps = pretrain(
        model, sequences, config.training, _digest(config, start, sequences), checkpoints,
        reporter.step,
    )  # fmt: skip
    reporter.stage("writing the base")
    parameters = sum(w.numel() for w in model.weights.values())
    trained = checkpoints / WEIGHTS_FILE
    _write(trained, config, start, model)
    del model
    reporter.stage("calibrating routing")
    card = make_base(
        BaseDescription(
            name=config.name,
            description=config.description,
            license=config.license,
            parameters=parameters,
            sources=(FileSource(path=WEIGHTS_FILE),),
        ),
        trained,
        output,
    )
    trained.unlink()
    reporter.stage("measuring on held-out text")
    record = TrainingRecord(
        base=config.name,
        fingerprint=card.fingerprint,
        config=config,
        files=tuple(_files(corpus)),
        steps=steps,
        parameters=parameters,
        training_tokens=len(stream),
        held_out_tokens=held_out.tokens,
        predictions=(
            *held_out.by_counting(stream, start.config.vocab_size),
            before,
            held_out.by_engine(config.name, TorchEngine(output, device=device)),
        ),
    )
    (output / RECORD_FILE).write_bytes(record.canonical())
    (output / README_FILE).write_text(_readme(card, record), "utf-8")
    return card, record


def _start(
    config: BaseConfig,
    corpus: Corpus,
    checkpoints: Path,
    base_dir: Path | None,
    reporter: Reporter,
) -> Start:
    if base_dir is not None:
        file = open_gguf(base_dir / WEIGHTS_FILE)
        known = model_config(file)
        if config.training.window > known.context_length:
            raise UsageError(
                f"training.window {config.training.window} is more than the {known.context_length} "
                f"tokens that {config.continues} reads"
            )
        return Start(file, known, True)
    assert config.model is not None and config.tokenizer is not None
    target = checkpoints / START_FILE
    learnt = _texts_digest(corpus, config.tokenizer.vocab_size)
    tokenizer = _known_tokenizer(target, learnt)
    if tokenizer is None:
        reporter.stage("training the tokenizer")
        tokenizer = train_tokenizer(corpus.texts.values(), config.tokenizer.vocab_size)
    shape = config.model
    fresh = ModelConfig(
        architecture="llama",
        layers=shape.layers,
        hidden_size=shape.hidden_size,
        ffn_size=shape.ffn_size,
        heads=shape.heads,
        kv_heads=shape.kv_heads,
        head_dim=shape.hidden_size // shape.heads,
        vocab_size=len(tokenizer["tokenizer.ggml.tokens"]),
        context_length=shape.context_length,
        rope_theta=shape.rope_theta,
        norm_eps=shape.norm_eps,
        qkv_bias=False,
    )
    write_gguf(target, "llama", {**_shape_metadata(fresh), **tokenizer, _LEARNT: learnt}, ())
    return Start(open_gguf(target), fresh, False)


def _texts_digest(corpus: Corpus, vocab_size: int) -> str:
    document = [vocab_size, [hashlib.sha256(t.encode()).hexdigest() for t in corpus.texts.values()]]
    return hashlib.sha256(canonical_json(document)).hexdigest()


def _known_tokenizer(file: Path, learnt: str) -> dict[str, Any] | None:
    """The tokenizer that an earlier run learnt from the same texts."""
    with suppress(OSError, MbpmError):
        metadata = open_gguf(file).metadata
        if metadata.get(_LEARNT) == learnt:
            return {k: v for k, v in metadata.items() if k.startswith("tokenizer.")}
    return None


def _shape_metadata(config: ModelConfig) -> dict[str, Any]:
    values = {
        "vocab_size": config.vocab_size,
        "context_length": config.context_length,
        "embedding_length": config.hidden_size,
        "block_count": config.layers,
        "feed_forward_length": config.ffn_size,
        "attention.head_count": config.heads,
        "attention.head_count_kv": config.kv_heads,
        "attention.layer_norm_rms_epsilon": config.norm_eps,
        "rope.freq_base": config.rope_theta,
        "rope.dimension_count": config.head_dim,
    }
    return {f"{config.architecture}.{key}": value for key, value in values.items()}


def _write(target: Path, config: BaseConfig, start: Start, model: FloatModel) -> None:
    said = {
        "general.type": "model",
        "general.name": config.name,
        "general.description": config.description,
        "general.license": config.license,
        "general.file_type": FILE_TYPES[config.quantization],
        "general.quantization_version": 2,
    }
    carried = (f"{start.config.architecture}.", "tokenizer.")
    kept = {k: v for k, v in start.file.metadata.items() if k.startswith(carried)}
    write_gguf(
        target, start.config.architecture, {**said, **kept}, model.tensors(config.quantization)
    )


def _digest(config: BaseConfig, start: Start, sequences: Windows) -> str:
    """Of everything that decides the result."""
    tokens = [hashlib.sha256(a.tobytes()).hexdigest() for a in (sequences.texts, sequences.chats)]
    tensors = [
        [t.name, hashlib.sha256(np.ascontiguousarray(t.data).data).hexdigest()]
        for t in start.file.tensors.values()
    ]
    document = [config.model_dump(mode="json"), tokens, tensors]
    return hashlib.sha256(canonical_json(document)).hexdigest()


def _files(corpus: Corpus) -> list[TextFile]:
    return [
        TextFile(name=name, sha256=hashlib.sha256(text.encode()).hexdigest(), held_out=held)
        for texts, held in ((corpus.texts, False), (corpus.held_out, True))
        for name, text in texts.items()
    ]


def _readme(card: BaseCard, record: TrainingRecord) -> str:
    lines = [
        f"# {card.name}",
        "",
        card.description,
        "",
        f"- Parameters: {record.parameters:,}; {card.layers} layers of width {card.hidden_size}, "
        f"{record.config.quantization}",
        f"- Fingerprint: `{card.fingerprint}`",
        f"- Licence: {card.license}",
        f"- Trained on {record.training_tokens:,} tokens in {record.steps:,} steps"
        + (f", from `{record.config.continues}` on" if record.config.continues else ""),
        "",
        f"## Held-out text ({record.held_out_tokens:,} tokens)",
        "",
        "| predicted by | perplexity per token | bits per byte |",
        "|---|---|---|",
    ]
    for p in record.predictions:
        between = "" if p.low is None else f" ({p.low:.4g} to {p.high:.4g})"
        lines.append(f"| {p.name} | {p.perplexity:.4g}{between} | {p.bits_per_byte:.4f} |")
    lines += ["", "## Text", ""]
    for file in record.files:
        lines.append(f"- {file.name}" + (" (held out)" if file.held_out else ""))
    return "\n".join(lines) + "\n"
