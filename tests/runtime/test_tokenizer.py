"""The tokenizer against transformers' own reading of the same file."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import normalizers, pre_tokenizers
from transformers import AutoTokenizer

from runtime.tokenizer import Tokenizer
from specs.base_card import WEIGHTS_FILE
from specs.errors import IntegrityError, MbpmError
from tests.support.gguf_files import rewrite_metadata
from tests.support.texts import normal, varied

COUNT = 1000


def theirs(folder: Path) -> Any:
    return AutoTokenizer.from_pretrained(folder, gguf_file=WEIGHTS_FILE)


def as_published(reference: Any, name: str) -> Any:
    """transformers' GGUF reader leaves out a step that both models' published tokenizer.json has:
    SmolLM2 cuts digits singly before anything else, Qwen2 composes characters (NFC)."""
    backend = reference.backend_tokenizer
    if name == "smollm2":
        digits = pre_tokenizers.Digits(individual_digits=True)
        backend.pre_tokenizer = pre_tokenizers.Sequence([digits, backend.pre_tokenizer])
    else:
        backend.normalizer = normalizers.NFC()
    return reference


def differences(ours: Tokenizer, reference: Any, texts: list[str]) -> list[str]:
    found = []
    for text in texts:
        expected = reference(text, add_special_tokens=False, split_special_tokens=True)
        if ours.encode(text) != expected["input_ids"]:
            found.append(text)
    return found


@pytest.fixture(scope="module")
def tokenizer(smollm2: Path) -> Tokenizer:
    return Tokenizer.from_gguf(smollm2 / WEIGHTS_FILE)


@pytest.fixture(scope="module")
def known(tokenizer: Tokenizer) -> set[int]:
    return set().union(*map(tokenizer.token_bytes, range(tokenizer.vocab_size)))


def test_smollm2_tokens_equal_transformers(smollm2: Path, tokenizer: Tokenizer) -> None:
    reference = theirs(smollm2)
    texts = varied(COUNT, seed=1)
    # The step it leaves out shows only at digits behind a run of white space and at digits of
    # other scripts.
    plain = [t for t in texts if not re.search(r"\s\s\d|[½²Ⅷ]|[^\D0-9]", t)]
    assert len(plain) > COUNT // 2
    assert differences(tokenizer, reference, plain) == []
    assert differences(tokenizer, as_published(reference, "smollm2"), texts) == []


def test_smollm2_look_alikes_stay_text(smollm2: Path, tokenizer: Tokenizer) -> None:
    reference = as_published(theirs(smollm2), "smollm2")
    texts = varied(COUNT, seed=2, extra=[*tokenizer.special, "<|im_", "|>", "<|im_start|>user\n"])
    assert sum("<|im_end|>" in t for t in texts) > 20
    assert differences(tokenizer, reference, texts) == []
    for text in texts:
        assert not set(tokenizer.encode(text)) & set(tokenizer.special.values())


@pytest.mark.slow
def test_qwen_tokens_equal_transformers(qwen05: Path) -> None:
    ours, reference = Tokenizer.from_gguf(qwen05 / WEIGHTS_FILE), theirs(qwen05)
    texts = varied(COUNT, seed=3) + varied(COUNT, seed=4, extra=[*ours.special, "<tool_call>"])
    assert differences(ours, reference, [t for t in texts if normal(t)]) == []
    assert differences(ours, as_published(reference, "qwen2"), texts) == []


def test_text_comes_back(tokenizer: Tokenizer) -> None:
    for text in varied(COUNT, seed=5):
        assert tokenizer.decode(tokenizer.encode(text)) == text


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_any_text_comes_back(tokenizer: Tokenizer, known: set[int], text: str) -> None:
    # This vocabulary has no token for some bytes; such characters vanish, here as there.
    text = "".join(c for c in text if known.issuperset(c.encode()))
    stream = tokenizer.stream()
    ids = tokenizer.encode(text)
    assert "".join(map(stream.push, ids)) + stream.flush() == tokenizer.decode(ids) == text


def test_lone_surrogates_become_replacement_characters(tokenizer: Tokenizer) -> None:
    assert tokenizer.decode(tokenizer.encode("a\ud800b")) == "a\ufffdb"


def test_the_stream_holds_back_half_a_character(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("🧬")
    assert len(ids) > 1
    stream = tokenizer.stream()
    assert [stream.push(i) for i in ids] == [""] * (len(ids) - 1) + ["🧬"]
    half = tokenizer.stream()
    assert half.push(ids[0]) == ""
    assert half.flush() == "\ufffd"


def test_control_tokens_are_no_text(tokenizer: Tokenizer) -> None:
    end = tokenizer.special["<|im_end|>"]
    assert end in tokenizer.eos_ids
    assert tokenizer.decode([*tokenizer.encode("a"), end, *tokenizer.encode("b")]) == "ab"


@pytest.mark.parametrize(
    ("key", "value"), [("tokenizer.ggml.pre", "wordy"), ("tokenizer.ggml.model", "spm7")]
)
def test_an_unknown_kind_is_refused_by_name(
    smollm2: Path, tmp_path: Path, key: str, value: str
) -> None:
    file = tmp_path / "weights.gguf"
    rewrite_metadata(smollm2 / WEIGHTS_FILE, file, {key: value})
    with pytest.raises(MbpmError, match=f"`{value}`.*{key}"):
        Tokenizer.from_gguf(file)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("tokenizer.ggml.merges", ["qq zz"], "merges are unusable"),
        ("tokenizer.ggml.token_type", [1, 1], "does not match the vocabulary"),
        ("tokenizer.ggml.tokens", ["a", "a"], "does not match|twice"),
        ("tokenizer.ggml.tokens", "a", "lists of text"),
        ("tokenizer.ggml.eos_token_id", 10**6, "eos_token_id"),
    ],
)
def test_a_vocabulary_that_contradicts_itself_is_refused(
    smollm2: Path, tmp_path: Path, key: str, value: Any, message: str
) -> None:
    file = tmp_path / "weights.gguf"
    rewrite_metadata(smollm2 / WEIGHTS_FILE, file, {key: value})
    with pytest.raises(IntegrityError, match=message):
        Tokenizer.from_gguf(file)


@pytest.mark.parametrize("keep", [0, 3, 100, 200_000])
def test_a_truncated_file_is_refused(smollm2: Path, tmp_path: Path, keep: int) -> None:
    file = tmp_path / "weights.gguf"
    with (smollm2 / WEIGHTS_FILE).open("rb") as source:
        file.write_bytes(source.read(keep))
    with pytest.raises(IntegrityError, match=re.escape(str(file))):
        Tokenizer.from_gguf(file)
