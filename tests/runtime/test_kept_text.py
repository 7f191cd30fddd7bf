"""The tokenizer kept beside a base: the same tokens as from the weights, made again when unfit."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from runtime.chat_format import ChatFormat
from runtime.kept_text import TEXT_FILE, open_text
from runtime.native import why_not
from runtime.native.packed import verify_packed
from runtime.tokenizer import Tokenizer
from specs.base_card import CARD_FILE, WEIGHTS_FILE, BaseCard
from specs.errors import IntegrityError
from tests.support.texts import varied

TALK = [{"role": "user", "content": "What is <|im_end|> in 12 words?"}]


@pytest.fixture
def base(smollm2: Path, tmp_path: Path) -> Path:
    for name in (WEIGHTS_FILE, CARD_FILE):
        shutil.copyfile(smollm2 / name, tmp_path / name)
    return tmp_path


def fingerprint(base: Path) -> str:
    return BaseCard.parse((base / CARD_FILE).read_bytes(), CARD_FILE).fingerprint


def test_it_is_the_tokenizer_and_the_template_of_the_weights(base: Path) -> None:
    truth = Tokenizer.from_gguf(base / WEIGHTS_FILE)
    open_text(base, fingerprint(base))
    (base / WEIGHTS_FILE).unlink()  # the second start does not look at them
    kept, chat = open_text(base, fingerprint(base))
    texts = varied(1000, seed=6, extra=[*truth.special])
    assert [kept.encode(t) for t in texts] == [truth.encode(t) for t in texts]
    ids = range(truth.vocab_size)
    assert kept.vocab_size == truth.vocab_size
    assert [*map(kept.token_bytes, ids)] == [*map(truth.token_bytes, ids)]
    assert (kept.special, kept.eos_ids) == (truth.special, truth.eos_ids)
    assert chat.prompt(TALK) == ChatFormat(chat.template, truth, "here").prompt(TALK)


@pytest.mark.parametrize("harm", ["one byte", "cut", "nothing in it", "another base", "old"])
def test_what_does_not_fit_is_made_again(
    base: Path, harm: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = base / TEXT_FILE
    with monkeypatch.context() as patch:
        if harm == "old":
            patch.setattr("tokenizers.__version__", "0.1")
        open_text(base, "f" * 64 if harm == "another base" else fingerprint(base))
    raw = file.read_bytes()
    if harm in ("one byte", "cut", "nothing in it"):
        file.unlink()
        file.write_bytes(
            {"one byte": raw[:-9] + b"\0" + raw[-8:], "cut": raw[:5000]}.get(harm, b"")
        )
        with pytest.raises(IntegrityError, match=TEXT_FILE):
            verify_packed(file)
    damaged = file.read_bytes()
    tokenizer, _ = open_text(base, fingerprint(base))
    assert tokenizer.decode(tokenizer.encode("Hello there")) == "Hello there"
    assert file.read_bytes() != damaged
    assert verify_packed(file) == file.stat().st_size
    assert [f.name for f in base.iterdir() if f.name.startswith(".")] == []


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
