"""A pack in other programs' formats, each followed by a comparison of logits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from runtime.chat_format import ChatFormat
from runtime.gguf_file import GGUFFile, model_config, open_gguf
from runtime.tokenizer import Tokenizer
from specs.attach import check_attach
from specs.base_card import CARD_FILE, WEIGHTS_FILE, BaseCard
from specs.manifest import ADAPTER_FILE, Manifest
from specs.safetensors_header import read_header
from trainer.interchange.compare import PROMPTS, Agreement, Reference, agreement, questions
from trainer.interchange.gguf_adapter import read_gguf_adapter, write_gguf_adapter
from trainer.interchange.lora import Lora, LoraDelta, read_pack_lora
from trainer.interchange.merge import write_merged
from trainer.interchange.ollama import as_chatml, modelfile
from trainer.interchange.peft_folder import read_peft, write_peft

Format = Literal["peft", "gguf", "merged-gguf", "ollama"]
FORMATS: tuple[Format, ...] = ("peft", "gguf", "merged-gguf", "ollama")
GGUF_ADAPTER, MERGED, MODELFILE = "adapter.gguf", "merged.gguf", "Modelfile"
_MERGED_FORMATS = ("merged-gguf", "ollama")
"""In which the pack acts on every token."""
_ROUTING = "routing: the other program applies the adapter to every question it is given"
_SCORES = "evals, recorded answers and the attach proof: they stay in the pack"


@dataclass(frozen=True)
class Exported:
    """What was written."""

    files: tuple[str, ...]
    agreement: Agreement
    lost: tuple[str, ...]


@dataclass(frozen=True)
class _Pack:
    """Everything that an export looks at."""

    base_dir: Path
    card: BaseCard
    file: GGUFFile
    chat: ChatFormat
    manifest: Manifest
    lora: Lora
    header: tuple[int, ...]

    @classmethod
    def open(cls, base_dir: Path, pack_dir: Path, manifest: Manifest) -> _Pack:
        card = BaseCard.read(base_dir / CARD_FILE)
        check_attach(manifest, read_header(pack_dir / ADAPTER_FILE), card, str(pack_dir))
        weights = base_dir / WEIGHTS_FILE
        chat = ChatFormat.from_gguf(weights, Tokenizer.from_gguf(weights))
        lora = read_pack_lora(pack_dir / ADAPTER_FILE, manifest.adapter, card.fingerprint)
        return cls(base_dir, card, open_gguf(weights), chat, manifest, lora, header_tokens(chat))


def header_tokens(chat: ChatFormat) -> tuple[int, ...]:
    """What opens the assistant's turn in a chat format."""
    prompt = chat.prompt([{"role": "user", "content": "?"}])
    return tuple(prompt.tokens[prompt.header_start :])


def export(
    base_dir: Path,
    pack_dir: Path,
    manifest: Manifest,
    to: Format,
    folder: Path,
    *,
    kind: str = "Q8_0",
    base_model: str | None = None,
    say: Callable[[str], None],
) -> Exported:
    """Write a pack into `folder` in another format, read it back, and compare.

    Args:
        pack_dir: where the pack's files are.
        kind: for `merged-gguf` and `ollama`, the type of the matrices that change.
        base_model: for `peft`, what PEFT is to load as the base.
        say: told what is being done.

    Raises:
        IntegrityError: the pack does not attach to the base.
    """
    pack = _Pack.open(base_dir, pack_dir, manifest)
    say("writing")
    if to == "peft":
        files, lost = _peft(pack, folder, base_model)
    elif to == "gguf":
        files, lost = _gguf(pack, folder)
    elif to == "merged-gguf":
        files, lost = _merged(pack, folder, kind)
    else:
        files, lost = _ollama(pack, folder, kind)
    say("comparing logits")
    return Exported(tuple(files), _compare(pack, to, folder), (_ROUTING, *lost, _SCORES))


def _peft(pack: _Pack, folder: Path, base_model: str | None) -> tuple[list[str], list[str]]:
    lost = []
    if base_model is None:
        lost.append(
            f"the base: `base_model_name_or_path` says `{pack.card.name}`, which PEFT cannot load; "
            "`--base-model OWNER/NAME` names the repository it is to load"
        )
    lost.append("the base's quantised weights: PEFT applies the adapter to those it loads")
    if pack.lora.activation == "answer":
        lost.append(
            "nothing of the activation: it is written as `alora_invocation_tokens`, which needs "
            "peft 0.18 or later"
        )
    name = base_model or pack.card.name
    return write_peft(pack.lora, pack.manifest, pack.card, pack.header, name, folder), lost


def _gguf(pack: _Pack, folder: Path) -> tuple[list[str], list[str]]:
    config = model_config(pack.file)
    write_gguf_adapter(
        pack.lora, pack.manifest, config, pack.card, pack.header, folder / GGUF_ADAPTER
    )
    lost = []
    if pack.lora.activation == "answer":
        lost.append(
            "nothing of the activation in llama-server, which reads "
            "`adapter.alora.invocation_tokens`; other programs act on every token"
        )
    return [GGUF_ADAPTER], lost


def _merged(pack: _Pack, folder: Path, kind: str) -> tuple[list[str], list[str]]:
    config = model_config(pack.file)
    count = write_merged(pack.file, config, pack.lora, pack.manifest, kind, folder / MERGED)
    lost = [f"precision: {count} matrices were quantised again, to {kind}", *_activation(pack)]
    return [MERGED], lost


def _ollama(pack: _Pack, folder: Path, kind: str) -> tuple[list[str], list[str]]:
    """Merged, because Ollama takes no adapters any more since 0.34.1 (ollama/ollama#14969)."""
    files, lost = _merged(pack, folder, kind)
    chatml = as_chatml(pack.chat)
    text = modelfile(MERGED, chatml, pack.card.context_length, pack.manifest.license)
    (folder / MODELFILE).write_text(text, "utf-8")
    if chatml is None:
        lost.append("the chat format, which is not ChatML: Ollama guesses one from the GGUF file")
    return [MODELFILE, *files], lost


def _activation(pack: _Pack) -> list[str]:
    if pack.lora.activation == "full":
        return []
    return ["activation `answer`: the adapter acts on the question too, which it was not made for"]


def _compare(pack: _Pack, to: Format, folder: Path) -> Agreement:
    """The pack before, and what was written read back."""
    config = model_config(pack.file)
    prompts = [*(c.prompt for c in pack.manifest.canaries), *PROMPTS]
    everywhere = to in _MERGED_FORMATS
    asked = questions(pack.chat, prompts, "full" if everywhere else pack.lora.activation)
    own = LoraDelta(pack.lora, pack.card)
    reference = Reference(pack.file)
    if to in _MERGED_FORMATS:
        alone, before = reference.logits(asked, None, own)
        (after,) = Reference(open_gguf(folder / MERGED)).logits(asked, None)
        return agreement(asked, alone, before, after)
    if to == "peft":
        back = read_peft(folder, pack.card, pack.header)
    else:
        back = read_gguf_adapter(folder / GGUF_ADAPTER, config, pack.card, pack.header)
    alone, before, after = reference.logits(asked, None, own, LoraDelta(back, pack.card))
    return agreement(asked, alone, before, after)
