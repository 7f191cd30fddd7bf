"""PEFT's `adapter_config.json`, read strictly: what changes the computation is carried or refused.

Keys are those of `LoraConfig` up to peft 0.21. A key that is not known here may stand in a file as
long as it is switched off.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from specs.errors import IntegrityError, NotFoundError, UsageError
from specs.model import MAX_DOCUMENT_BYTES, load_json

CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"
PICKLE_FILE = "adapter_model.bin"

_IRRELEVANT = frozenset(
    [
        "auto_mapping", "peft_version", "revision", "inference_mode", "lora_dropout",
        "target_modules", "exclude_modules", "layers_to_transform", "layers_pattern",
        "megatron_core", "qalora_group_size", "runtime_config", "eva_config",
        "base_model_name_or_path",
    ]
)  # fmt: skip
"""Of training, loading or bookkeeping only: the tensors say which modules there are."""
_READ = frozenset(
    [
        "peft_type", "task_type", "r", "lora_alpha", "use_rslora", "rank_pattern", "alpha_pattern",
        "alora_invocation_tokens", "init_lora_weights",
    ]
)  # fmt: skip
_PLAIN_STARTS = (True, False, None, "gaussian", "eva", "orthogonal")
"""Initialisations that leave the base as it is."""
_WHY = {
    "use_dora": "DoRA normalises every row for every token, which a pack cannot say",
    "bias": "a pack changes no biases",
    "lora_bias": "a pack has no biases",
    "modules_to_save": "a pack replaces no modules of the base",
    "trainable_token_indices": "a pack changes no embeddings",
    "target_parameters": "a pack adapts linear modules only",
    "fan_in_fan_out": "the weights would be transposed",
    "layer_replication": "a pack adds no layers",
    "megatron_config": "the modules would be split over devices",
    "use_qalora": "QALoRA pools its input, which a pack cannot say",
    "use_bdlora": "block-diagonal pairs are not low-rank pairs",
    "loftq_config": "LoftQ changes the base's weights",
    "corda_config": "CorDA changes the base's weights",
    "lora_ga_config": "LoRA-GA changes the base's weights",
    "arrow_config": "Arrow mixes several adapters by itself; mbpm's router does that",
}


@dataclass(frozen=True)
class PeftConfig:
    """What of a configuration decides the computation."""

    rank: int
    alpha: float
    rslora: bool
    ranks: dict[str, float]
    alphas: dict[str, float]
    invocation: tuple[int, ...] | None
    """Tokens from whose last occurrence on it acts; None: it acts on all."""
    base: str

    def scale(self, module: str, rank: int, where: Path) -> float:
        """The factor on B(Ax) of a module whose tensors have this rank.

        Raises:
            IntegrityError: the configuration says another rank.
        """
        said = _matching(self.ranks, module, self.rank)
        if said != rank:
            raise IntegrityError(
                f"{where}: module `{module}` has rank {rank}, and {CONFIG_FILE} says {said:g}"
            )
        alpha = _matching(self.alphas, module, self.alpha)
        return alpha / math.sqrt(rank) if self.rslora else alpha / rank


def _matching(patterns: dict[str, float], module: str, default: float) -> float:
    """The value of the first pattern that names the module, as `get_pattern_key` of PEFT."""
    for pattern, value in patterns.items():
        whole = pattern.removeprefix("^")
        if module == whole or (pattern == whole and module.endswith(f".{whole}")):
            return value
    return default


def read_config(folder: Path) -> PeftConfig:
    """Read the configuration of a PEFT adapter folder.

    Raises:
        NotFoundError: there is none.
        UsageError: it asks for what a pack cannot carry, named with the reason.
        IntegrityError: it is malformed.
    """
    file = folder / CONFIG_FILE
    if not file.is_file():
        raise NotFoundError(
            f"{folder}: has no {CONFIG_FILE}", hint="a PEFT adapter folder holds "
            f"{CONFIG_FILE} and {WEIGHTS_FILE}",
        )  # fmt: skip
    with file.open("rb") as stream:
        values = load_json(stream.read(MAX_DOCUMENT_BYTES + 1), str(file))
    if not isinstance(values, dict):
        raise IntegrityError(f"{file}: is not a JSON object")
    _check_keys(values, file)
    read = _Reader(values, file)
    if (kind := values.get("peft_type")) != "LORA":
        raise UsageError(f"{file}: `peft_type` is {kind!r}, and only LORA adapters can be imported")
    if (task := values.get("task_type")) not in (None, "CAUSAL_LM"):
        raise UsageError(f"{file}: `task_type` is {task!r}, and a pack answers: CAUSAL_LM")
    start = values.get("init_lora_weights", True)
    if start not in _PLAIN_STARTS:
        raise UsageError(
            f"{file}: `init_lora_weights` is {start!r}, which changes the base's own weights",
            hint="save it with `path_initial_model_for_weight_conversion` to make a plain adapter",
        )
    tokens = values.get("alora_invocation_tokens")
    if tokens is not None and not (
        isinstance(tokens, list) and tokens and all(type(t) is int and t >= 0 for t in tokens)
    ):
        raise IntegrityError(f"{file}: `alora_invocation_tokens` is not a list of token ids")
    base = values.get("base_model_name_or_path")
    return PeftConfig(
        rank=read.whole("r", 8),
        alpha=read.number("lora_alpha", 8.0),
        rslora=read.flag("use_rslora"),
        ranks=read.patterns("rank_pattern"),
        alphas=read.patterns("alpha_pattern"),
        invocation=None if tokens is None else tuple(tokens),
        base=base if isinstance(base, str) else "",
    )


def _check_keys(values: dict[str, Any], file: Path) -> None:
    for key, value in values.items():
        if key in _IRRELEVANT or key in _READ:
            continue
        if value in (None, False, "none", "") or value == [] or value == {}:
            continue
        why = _WHY.get(key, "mbpm does not know this key, so what it changes would be lost")
        shown = repr(value)
        raise UsageError(
            f"{file}: `{key}` is {shown if len(shown) <= 60 else shown[:57] + '…'}: {why}"
        )


@dataclass(frozen=True)
class _Reader:
    values: dict[str, Any]
    file: Path

    def _value(self, key: str, default: Any, good: Callable[[Any], bool], expected: str) -> Any:
        value = self.values.get(key, default)
        if not good(value):
            raise IntegrityError(f"{self.file}: `{key}` is {value!r} (expected {expected})")
        return value

    def whole(self, key: str, default: int) -> int:
        return int(self._value(key, default, _is_rank, "a rank of 1 to 1024"))

    def number(self, key: str, default: float) -> float:
        return float(self._value(key, default, _is_positive, "a positive number"))

    def flag(self, key: str) -> bool:
        return bool(self._value(key, False, lambda v: isinstance(v, bool), "true or false"))

    def patterns(self, key: str) -> dict[str, float]:
        found = self._value(key, {}, lambda v: v is None or isinstance(v, dict), "an object") or {}
        for name, value in found.items():
            if not re.fullmatch(r"\^?[A-Za-z0-9_.]+", name):
                raise UsageError(
                    f"{self.file}: `{key}` has {name!r}, and only names of modules can be "
                    "imported, no regular expressions"
                )
            if not _is_positive(value):
                raise IntegrityError(f"{self.file}: `{key}` of {name!r} is {value!r}")
        return {name: float(value) for name, value in found.items()}


def _is_positive(value: Any) -> bool:
    return type(value) in (int, float) and 0 < value < 1e9


def _is_rank(value: Any) -> bool:
    return type(value) is int and 1 <= value <= 1024
