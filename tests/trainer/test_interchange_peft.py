"""PEFT folders, with PEFT itself on the other side."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from runtime.adapter import ActiveDelta, Adapter
from runtime.chat_format import ChatFormat
from runtime.gguf_file import open_gguf
from runtime.tokenizer import Tokenizer
from specs.base_card import CARD_FILE, WEIGHTS_FILE, BaseCard
from specs.errors import IntegrityError, MbpmError, NotFoundError, UsageError
from specs.manifest import MANIFEST_FILE, Activation, Manifest
from tests.support.adapters import random_adapter, write_pack
from tests.support.tiny_base import write_tiny_base
from trainer.interchange.compare import CPU, Question, Reference
from trainer.interchange.export import export, header_tokens
from trainer.interchange.importing import read_adapter
from trainer.interchange.peft_config import CONFIG_FILE, PICKLE_FILE
from trainer.interchange.peft_config import WEIGHTS_FILE as PEFT_WEIGHTS

TOKENS = tuple(range(20, 60))


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bases") / "tiny"
    write_tiny_base(folder)
    return folder


def in_transformers(base: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(
        base, gguf_file=WEIGHTS_FILE, dtype=torch.float32
    ).eval()


def exported(base: Path, folder: Path, activation: Activation, to: Any = "peft") -> Path:
    """A random pack, written into `folder` / TO."""
    card = BaseCard.read(base / CARD_FILE)
    pack = write_pack(folder / "p", card, random_adapter(card, 4, 1), 4, 8.0, activation)
    (folder / to).mkdir()
    done = export(
        base, pack, Manifest.read(pack / MANIFEST_FILE), to, folder / to, say=lambda _: None
    )
    assert done.agreement.effect > 0.01
    if to != "merged-gguf":
        assert done.agreement.max_difference == 0 and done.agreement.top1 == 1
    return folder / to


def pack_logits(base: Path, pack: Path, tokens: tuple[int, ...], start: int) -> torch.Tensor:
    """What a pack folder's adapter gives in our reference, from `start` on."""
    card = BaseCard.read(base / CARD_FILE)
    manifest = Manifest.read(pack / MANIFEST_FILE)
    tensors = load_file(pack / "adapter.safetensors")
    adapter = Adapter.build(tensors, card, manifest.adapter.scale, CPU, torch.float32)
    reference = Reference(open_gguf(base / WEIGHTS_FILE))
    return reference.logits([Question(tokens, start)], ActiveDelta([(adapter, 1.0)]))[0]


@pytest.mark.slow
def test_peft_loads_an_export_on_the_real_base_and_agrees(smollm2: Path, tmp_path: Path) -> None:
    from peft import PeftModel

    folder = exported(smollm2, tmp_path, "full")
    loaded = PeftModel.from_pretrained(in_transformers(smollm2), folder).eval()
    with torch.no_grad():
        theirs = loaded(torch.tensor([TOKENS])).logits[0]
    ours = pack_logits(smollm2, tmp_path / "p", TOKENS, 0)
    torch.testing.assert_close(ours, theirs, atol=2e-2, rtol=2e-3)
    assert torch.equal(ours.argmax(-1), theirs.argmax(-1))


def test_peft_acts_from_the_answer_on_as_the_pack_does(base: Path, tmp_path: Path) -> None:
    from peft import PeftModel

    folder = exported(base, tmp_path, "answer")
    chat = ChatFormat.from_gguf(base / WEIGHTS_FILE, Tokenizer.from_gguf(base / WEIGHTS_FILE))
    prompt = chat.prompt([{"role": "user", "content": "Who are you?"}])
    tokens = (*prompt.tokens, 40, 41, 42)
    loaded = PeftModel.from_pretrained(in_transformers(base), folder).eval()
    with torch.no_grad():
        theirs = loaded(input_ids=torch.tensor([tokens])).logits[0, prompt.header_start :]
    ours = pack_logits(base, tmp_path / "p", tokens, prompt.header_start)
    torch.testing.assert_close(ours, theirs, atol=1e-3, rtol=1e-3)
    everywhere = pack_logits(base, tmp_path / "p", tokens, 0)[prompt.header_start :]
    assert not torch.allclose(everywhere, theirs, atol=1e-2)


def made_by_peft(base: Path, folder: Path, **settings: Any) -> Any:
    """A model of PEFT with random weights, saved to `folder`."""
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=4,
        lora_alpha=6,
        target_modules=["q_proj", "v_proj", "down_proj"],
        task_type="CAUSAL_LM",
        **settings,
    )
    model = get_peft_model(in_transformers(base), config)
    torch.manual_seed(0)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(0, 0.1)
    model.save_pretrained(folder)
    return model.eval()


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"use_rslora": True},
        {
            "rank_pattern": {"layers.1.self_attn.q_proj": 2, "down_proj": 7},
            "alpha_pattern": {"v_proj": 5, "^model.layers.0.mlp.down_proj": 3},
        },
        {"use_rslora": True, "rank_pattern": {"q_proj": 3}, "layers_to_transform": [0, 2]},
    ],
)
def test_an_adapter_of_peft_says_the_same_as_a_pack(
    base: Path, tmp_path: Path, settings: dict[str, Any]
) -> None:
    model = made_by_peft(base, tmp_path / "theirs", **settings)
    lora = read_adapter(tmp_path / "theirs", base)
    assert lora.activation == "full"
    tensors, info = lora.pack()
    adapter = Adapter.build(
        tensors, BaseCard.read(base / CARD_FILE), info.scale, CPU, torch.float32
    )
    reference = Reference(open_gguf(base / WEIGHTS_FILE))
    ours, plain = reference.logits([Question(TOKENS, 0)], ActiveDelta([(adapter, 1.0)]), None)
    with torch.no_grad():
        theirs = model(torch.tensor([TOKENS])).logits[0]
    torch.testing.assert_close(ours, theirs, atol=1e-3, rtol=1e-3)
    assert (plain - theirs).abs().max() > 0.1


def test_an_export_comes_back_bit_for_bit(base: Path, tmp_path: Path) -> None:
    folder = exported(base, tmp_path, "answer")
    lora = read_adapter(folder, base)
    tensors, info = lora.pack()
    expected = load_file(tmp_path / "p" / "adapter.safetensors")
    assert tensors.keys() == expected.keys()
    for name, tensor in expected.items():
        assert tensors[name].dtype == tensor.dtype and torch.equal(tensors[name], tensor)
    assert info == Manifest.read(tmp_path / "p" / MANIFEST_FILE).adapter
    assert lora.fingerprint == BaseCard.read(base / CARD_FILE).fingerprint


def test_an_export_for_another_base_of_the_same_shape_is_refused(
    base: Path, tmp_path: Path
) -> None:
    folder = exported(base, tmp_path, "full")
    write_tiny_base(tmp_path / "other", seed=9)
    with pytest.raises(IntegrityError, match="was made for base"):
        read_adapter(folder, tmp_path / "other")


def changed(base: Path, tmp_path: Path, **changes: Any) -> Path:
    """A sound folder whose configuration says something else."""
    folder = exported(base, tmp_path, "full")
    file = folder / CONFIG_FILE
    config = json.loads(file.read_text()) | changes
    file.write_text(json.dumps({k: v for k, v in config.items() if v != "-"}))
    return folder


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"use_dora": True}, ["use_dora", "DoRA"]),
        ({"bias": "all"}, ["bias", "biases"]),
        ({"lora_bias": True}, ["lora_bias"]),
        ({"modules_to_save": ["lm_head"]}, ["modules_to_save", "lm_head"]),
        ({"trainable_token_indices": [1]}, ["trainable_token_indices"]),
        ({"fan_in_fan_out": True}, ["fan_in_fan_out"]),
        ({"layer_replication": [[0, 2]]}, ["layer_replication"]),
        ({"init_lora_weights": "pissa_niter_16"}, ["init_lora_weights", "pissa_niter_16"]),
        ({"peft_type": "IA3"}, ["peft_type", "IA3"]),
        ({"task_type": "SEQ_CLS"}, ["task_type", "SEQ_CLS"]),
        ({"frobnicate": 3}, ["frobnicate", "does not know"]),
        ({"alora_invocation_tokens": [5, 6]}, ["alora_invocation_tokens", "[5, 6]"]),
        ({"alpha_pattern": {".*q_proj": 3}}, ["alpha_pattern", "regular expressions"]),
        ({"r": 3}, ["rank 4", "says 3"]),
        ({"r": "4"}, ["`r`", "1 to 1024"]),
        ({"lora_alpha": -1}, ["lora_alpha", "positive"]),
        ({"rank_pattern": [1]}, ["rank_pattern", "object"]),
    ],
)
def test_what_a_pack_cannot_say_is_refused_by_name(
    base: Path, tmp_path: Path, changes: dict[str, Any], words: list[str]
) -> None:
    folder = changed(base, tmp_path, **changes)
    with pytest.raises(MbpmError) as caught:
        read_adapter(folder, base)
    assert all(word in caught.value.message for word in (CONFIG_FILE, *words)) or all(
        word in caught.value.message for word in words
    )
    assert caught.value.exit_code in (2, 5)


@pytest.mark.parametrize(
    "changes",
    [
        {"frobnicate": None, "use_tomorrow": False, "more": [], "most": {}},
        {"lora_dropout": 0.3, "peft_version": "9.9", "inference_mode": False},
    ],
)
def test_what_is_off_or_of_training_alone_is_let_pass(
    base: Path, tmp_path: Path, changes: dict[str, Any]
) -> None:
    assert read_adapter(changed(base, tmp_path, **changes), base).pairs


@pytest.mark.parametrize(
    ("name", "shape", "words"),
    [
        ("base_model.model.lm_head.lora_A.weight", (4, 64), "output matrix"),
        ("base_model.model.model.embed_tokens.lora_embedding_A", (4, 261), "embeddings"),
        (
            "base_model.model.model.layers.0.mlp.up_proj.lora_magnitude_vector.weight",
            (96,),
            "DoRA",
        ),
        ("base_model.model.model.layers.0.mlp.up_proj.bias", (96,), "no part of a LoRA"),
        ("base_model.model.model.layers.9.mlp.up_proj.lora_A.weight", (4, 64), "only one half"),
        ("base_model.model.model.layers.0.mlp.up_proj.lora_A.weight", (4, 65), "has shape"),
        ("base_model.model.model.layers.0.mlp.up_proj.lora_A.weight", (4000, 64), "a rank lies"),
        ("base_model.model.model.layers.0.mlp.up_proj.lora_A.weight", (64,), "a rank lies"),
    ],
)
def test_other_tensors_are_refused_by_name(
    base: Path, tmp_path: Path, name: str, shape: tuple[int, ...], words: str
) -> None:
    folder = exported(base, tmp_path, "full")
    tensors = load_file(folder / PEFT_WEIGHTS)
    save_file({**tensors, name: torch.zeros(shape)}, folder / PEFT_WEIGHTS)
    with pytest.raises(MbpmError, match=words):
        read_adapter(folder, base)


def test_numbers_of_other_types_are_refused(base: Path, tmp_path: Path) -> None:
    folder = exported(base, tmp_path, "full")
    tensors = load_file(folder / PEFT_WEIGHTS)
    for dtype in (torch.float64, torch.int8):
        save_file({n: t.to(dtype) for n, t in tensors.items()}, folder / PEFT_WEIGHTS)
        with pytest.raises(UsageError, match="has dtype"):
            read_adapter(folder, base)


def test_a_pack_that_does_not_attach_is_not_exported(base: Path, tmp_path: Path) -> None:
    card = BaseCard.read(base / CARD_FILE)
    pack = write_pack(tmp_path / "p", card, random_adapter(card, 4, 1), 4, 8.0, "full")
    file = pack / "adapter.safetensors"
    tensors = load_file(file)
    tensors.pop(next(n for n in tensors if n.endswith("lora_B.weight")))
    save_file(tensors, file)
    with pytest.raises(IntegrityError, match="only one half"):
        export(
            base, pack, Manifest.read(pack / MANIFEST_FILE), "peft", tmp_path, say=lambda _: None
        )


def test_a_pickle_is_never_read(base: Path, tmp_path: Path) -> None:
    folder = exported(base, tmp_path, "full")
    (folder / PEFT_WEIGHTS).rename(folder / PICKLE_FILE)
    with pytest.raises(UsageError, match="pickle") as caught:
        read_adapter(folder, base)
    assert caught.value.hint is not None and PEFT_WEIGHTS in caught.value.hint
    with pytest.raises(UsageError) as caught:
        read_adapter(folder / PICKLE_FILE, base)
    assert caught.value.hint is not None and "pickle" in caught.value.hint


def test_missing_and_damaged_files(base: Path, tmp_path: Path) -> None:
    folder = exported(base, tmp_path, "full")
    weights = (folder / PEFT_WEIGHTS).read_bytes()
    (folder / PEFT_WEIGHTS).write_bytes(weights[:-10])
    with pytest.raises(IntegrityError, match=PEFT_WEIGHTS):
        read_adapter(folder, base)
    (folder / PEFT_WEIGHTS).unlink()
    with pytest.raises(NotFoundError, match=PEFT_WEIGHTS):
        read_adapter(folder, base)
    (folder / CONFIG_FILE).write_bytes(b"[]")
    with pytest.raises(IntegrityError, match=CONFIG_FILE):
        read_adapter(folder, base)
    (folder / CONFIG_FILE).unlink()
    with pytest.raises(NotFoundError, match=CONFIG_FILE):
        read_adapter(folder, base)


def test_header_tokens_open_every_answer(base: Path) -> None:
    chat = ChatFormat.from_gguf(base / WEIGHTS_FILE, Tokenizer.from_gguf(base / WEIGHTS_FILE))
    for text in ("a", "Something longer, with 3 numbers."):
        prompt = chat.prompt([{"role": "user", "content": text}])
        assert tuple(prompt.tokens[prompt.header_start :]) == header_tokens(chat)
