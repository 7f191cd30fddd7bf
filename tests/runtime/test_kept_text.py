"""The tokenizer kept beside a base: the same tokens as from the weights, made again when unfit."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from runtime.chat_format import ChatFormat
from runtime.kept_file import read_directory, verify_kept, write_head
from runtime.kept_text import TEXT_FILE, open_text, verify_text
from runtime.native import why_not
from runtime.tokenizer import Tokenizer
from specs.base_card import CARD_FILE, WEIGHTS_FILE, BaseCard
from specs.errors import IntegrityError
from tests.support.texts import varied
from tests.support.tiny_base import make_tiny_base

LONG = "Hello there. " * 300
TALK = [{"role": "user", "content": "What is <|im_end|> in 12 words?"}]


@pytest.fixture
def base(smollm2: Path, tmp_path: Path) -> Path:
    return copied(smollm2, tmp_path)


def copied(base: Path, tmp_path: Path) -> Path:
    for name in (WEIGHTS_FILE, CARD_FILE):
        shutil.copyfile(base / name, tmp_path / name)
    return tmp_path


def fingerprint(base: Path) -> str:
    return BaseCard.parse((base / CARD_FILE).read_bytes(), CARD_FILE).fingerprint


def test_it_is_the_tokenizer_and_the_template_of_the_weights(base: Path) -> None:
    truth = Tokenizer.from_gguf(base / WEIGHTS_FILE)
    open_text(base, fingerprint(base))
    (base / WEIGHTS_FILE).unlink()  # the second start does not look at them
    kept, chat = open_text(base, fingerprint(base))
    texts = varied(2000, seed=6, extra=[*truth.special])
    texts += [LONG, "x" * 199, "ab" * 150, "ab" * 2000, "\ud800 lone", "".join(texts[:300])]
    assert [kept.encode(t) for t in texts] == [truth.encode(t) for t in texts]
    ids = range(truth.vocab_size)
    assert kept.vocab_size == truth.vocab_size
    assert [*map(kept.token_bytes, ids)] == [*map(truth.token_bytes, ids)]
    assert (kept.special, kept.eos_ids) == (truth.special, truth.eos_ids)
    assert chat.prompt(TALK) == ChatFormat(chat.template, truth, "here").prompt(TALK)


@pytest.mark.slow
def test_the_larger_base_too(qwen05: Path, tmp_path: Path) -> None:
    test_it_is_the_tokenizer_and_the_template_of_the_weights(copied(qwen05, tmp_path))


def test_tokens_matched_whole_and_letters_without_a_token(tmp_path: Path) -> None:
    tiny = make_tiny_base(tmp_path)  # its control tokens are of the kind that users define
    truth = Tokenizer.from_gguf(tiny / WEIGHTS_FILE)
    open_text(tiny, fingerprint(tiny))
    kept, _ = open_text(tiny, fingerprint(tiny))
    texts = varied(500, seed=7, extra=["<|im_start|>", "<|im_end|>", "<|im_", "thinthinth"])
    assert [kept.encode(t) for t in texts] == [truth.encode(t) for t in texts]
    assert kept.decode(kept.encode(texts[-1])) == truth.decode(truth.encode(texts[-1]))
    with pytest.raises(IndexError):
        kept.token_bytes(truth.vocab_size)


@pytest.mark.parametrize(
    "harm", ["a table", "the rest", "cut", "nothing in it", "another base", "old", "another way"]
)
def test_what_does_not_fit_is_made_again(
    base: Path, harm: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = base / TEXT_FILE
    with monkeypatch.context() as patch:
        if harm == "old":
            patch.setattr("tokenizers.__version__", "0.1")
        if harm == "another way":
            patch.setattr("runtime.kept_text.WAY", 0)
        open_text(base, "f" * 64 if harm == "another base" else fingerprint(base))
    raw = file.read_bytes()
    spoilt = {
        "a table": raw[:90_000] + bytes([raw[90_000] ^ 1]) + raw[90_001:],
        "the rest": raw[:-9] + b"\0" + raw[-8:],
        "cut": raw[:5000],
        "nothing in it": b"",
    }
    if harm in spoilt:
        file.unlink()
        file.write_bytes(spoilt[harm])
        with pytest.raises(IntegrityError, match=TEXT_FILE):
            verify_kept(file)
    damaged = file.read_bytes()
    tokenizer, _ = open_text(base, fingerprint(base))
    for text in ("Hello there", LONG):  # what only a long text needs is looked at by then
        assert tokenizer.decode(tokenizer.encode(text)) == text
    assert file.read_bytes() != damaged
    assert verify_kept(file) == file.stat().st_size
    assert [f.name for f in base.iterdir() if f.name.startswith(".")] == []


def test_what_its_own_digests_cannot_tell(tmp_path: Path) -> None:
    tiny = make_tiny_base(tmp_path)
    file, print_ = tiny / TEXT_FILE, fingerprint(tiny)
    open_text(tiny, print_)
    verify_text(file, print_)
    with file.open("rb") as stream:
        directory, start = read_directory(stream, file)
        stream.seek(start)
        data = stream.read()

    def forge(data: bytes, **changes: object) -> None:
        tables = directory["tables"]["size"]
        whole = {
            **directory,
            "sha256": hashlib.sha256(data).hexdigest(),
            "tables": {"size": tables, "sha256": hashlib.sha256(data[:tables]).hexdigest()},
            **changes,
        }
        with file.open("w+b") as stream:
            stream.seek(start)
            stream.write(data)
            write_head(stream, whole, start)
        verify_kept(file)

    file.chmod(0o644)
    forge(data)
    verify_text(file, print_)
    for forged, changes in (
        (data[:-5] + bytes([data[-5] ^ 1]) + data[-4:], {}),
        (bytes([data[0] ^ 1]) + data[1:], {}),
        (data, {"chat_template": "obey me" + directory["chat_template"]}),
    ):
        forge(forged, **changes)
        with pytest.raises(IntegrityError, match=r"something else than weights\.gguf"):
            verify_text(file, print_)
    forge(data[:-1] + b"x", way=0)
    verify_text(file, print_)  # nobody reads it: it is made again


def test_a_second_start_reads_no_gguf(base: Path) -> None:
    open_text(base, fingerprint(base))
    code = (
        "import sys; from pathlib import Path; from runtime.load import load\n"
        f"load(Path({str(base)!r}), [], engine='native'); print('gguf' in sys.modules)"
    )
    if why_not() is not None:
        pytest.skip("the extension was not built")
    command = [sys.executable, "-c", code]
    subprocess.run(command, check=True, capture_output=True)  # packs the weights
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "False"
