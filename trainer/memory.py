"""What a run does so that it stays within its memory: a pure function from sizes to a plan.

These are estimates of what one process holds at once; `python -m bench train` shows them
beside what the operating system counts.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch

from runtime.engine import ModelConfig
from specs.errors import DoesNotFitError
from trainer.head import rows_at_once
from trainer.passes import EXACT_ROWS

SMALLEST_PART = 256
"""Tokens of a part below which running layers twice is cheaper than more parts."""
CHUNK = 2048
"""Prompt tokens read at once by a worker, padding included."""
OTHER = 64 << 20
"""Bytes for everything too small to count: tensors of indices, the allocator's own, threads."""
MAPPED, KEPT = 1 << 25, 1 << 26
"""Bytes from which on a tensor is mapped by itself, and freed bytes that stay for the next ones."""
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h


@dataclass(frozen=True)
class Sizes:
    """What the memory of a run depends on."""

    model: ModelConfig
    item: int
    """Bytes of a number in the matrices' type."""
    ranks: int
    """Ranks of all pairs of a layer together."""
    parameters: int
    """Numbers in the adapter."""
    step_tokens: int
    """Most tokens of a step on which the adapter acts."""
    step_prompts: int
    """Most prompt tokens of a step."""
    item_tokens: int
    """Most tokens on which the adapter acts of a row, or of a pair of rows."""
    row_tokens: int
    """Most tokens of one row."""
    prompt_tokens: int
    """Prompt tokens of all rows, each different prompt once."""
    resident: int
    """Bytes the process holds before training begins."""
    workers: int
    processes: int = 1


@dataclass(frozen=True)
class Plan:
    """How a run's steps are computed."""

    parts: int
    """Pieces of every step; their gradients are added in order."""
    recompute: bool
    """Run every layer a second time in the backward pass instead of keeping what it made."""
    kept: int
    """Prompt tokens whose keys and values stay in memory."""
    spilled: int
    """Prompt tokens whose keys and values stay in a file."""
    peak: int
    """Estimated bytes of the process at its peak."""


def layer_bytes(s: Sizes) -> int:
    """Bytes per token that a layer keeps for its backward pass."""
    c = s.model
    q, kv = c.heads * c.head_dim, c.kv_heads * c.head_dim
    numbers = 2 * c.hidden_size + (q + 2 * kv) + q + 2 * c.ffn_size + s.ranks
    return numbers * s.item + 8


def passing_bytes(s: Sizes) -> int:
    """Bytes per token that are needed for a moment inside a layer."""
    c = s.model
    qkv = (c.heads + 2 * c.kv_heads) * c.head_dim
    return 6 * c.ffn_size * s.item + 3 * qkv * (s.item + 4) + 8 * c.hidden_size * 4


def fixed_bytes(s: Sizes) -> int:
    """Bytes that do not depend on how a step is cut."""
    c = s.model
    qkv = (c.heads + 2 * c.kv_heads) * c.head_dim
    layer = c.hidden_size * (qkv + c.heads * c.head_dim + 3 * c.ffn_size)
    matrices = 2 * layer * s.item * 11 // 10
    head = c.vocab_size * c.hidden_size * s.item
    logits = s.workers * c.vocab_size * (rows_at_once(c.vocab_size) * s.item + 3 * EXACT_ROWS * 4)
    optimizer = s.parameters * (4 * (5 + 2 * s.workers) + s.item)
    queries = min(s.row_tokens, 256)
    scores = s.workers * 4 * s.item * max(1 << 20, c.heads * queries * s.row_tokens)
    return s.resident + matrices + head + logits + optimizer + scores + reading_bytes(s) + OTHER


def reading_bytes(s: Sizes) -> int:
    """Bytes for reading prompts: keys and values twice, and what passes through a layer."""
    c = s.model
    tokens = min(max(CHUNK, s.row_tokens), s.prompt_tokens)
    passing = 4 * (3 * c.ffn_size + 4 * c.hidden_size)
    return s.workers * tokens * (2 * prompt_bytes(s) + passing)


def step_bytes(s: Sizes, parts: int, recompute: bool) -> int:
    """Bytes of the parts of a step that are computed at once."""
    at_once = min(parts, s.workers * s.processes) / s.processes
    # whole rows, the longest first to whom has least: 4/3 of the best there is (Graham 1969)
    tokens = min(s.step_tokens, at_once * max(s.step_tokens / parts, s.item_tokens) * 4 / 3)
    prompts = min(s.step_prompts, at_once * (s.step_prompts / parts + s.row_tokens))
    c = s.model
    kept = layer_bytes(s) * (1 if recompute else c.layers)
    entering = c.layers * c.hidden_size * 4 if recompute else 0
    before = 2 * c.layers * c.kv_heads * c.head_dim * s.item
    per_token = kept + entering + passing_bytes(s)
    return int(tokens * per_token + prompts * before * 1.25)


def plan(s: Sizes, budget: int, disk: int, epochs: int) -> Plan:
    """The quickest way that fits.

    Keeping everything comes first; more and smaller parts next; then running layers twice.

    Args:
        budget: bytes the process may hold.
        disk: bytes that a file of prompts' keys and values may take.

    Raises:
        DoesNotFitError: nothing fits; the message says how much would.
    """
    fixed, first = fixed_bytes(s), s.workers * s.processes
    most = max(first, s.step_tokens // min(SMALLEST_PART, max(1, s.row_tokens)))
    ways = [(parts, recompute) for recompute in (False, True) for parts in _doubled(first, most)]
    for parts, recompute in ways:
        peak = fixed + step_bytes(s, parts, recompute)
        if peak <= budget:
            kept, spilled = _prompts(s, budget - peak, disk) if epochs > 1 else (0, 0)
            size = kept * prompt_bytes(s)
            return Plan(parts, recompute, kept, spilled, peak + size)
    least = min(fixed + step_bytes(s, parts, recompute) for parts, recompute in ways)
    raise DoesNotFitError(
        f"training takes at least {megabytes(least)} of memory here, and {megabytes(budget)} may "
        "be used",
        hint=_hint(s, budget, least),
    )


def prompt_bytes(s: Sizes) -> int:
    """Bytes of one prompt token's keys and values where they are kept."""
    c = s.model
    return 2 * c.layers * c.kv_heads * c.head_dim * max(2, s.item)


def _prompts(s: Sizes, memory: int, disk: int) -> tuple[int, int]:
    each = prompt_bytes(s)
    kept = min(s.prompt_tokens, memory // each)
    return kept, min(s.prompt_tokens - kept, disk // each)


def _doubled(first: int, most: int) -> list[int]:
    counts = [first]
    while counts[-1] < most:
        counts.append(counts[-1] * 2)
    return counts


def _hint(s: Sizes, budget: int, least: int) -> str:
    given = f"{option(least * 21 // 20)} would fit"
    short = s.row_tokens
    while short > 16:
        short //= 2
        small = Sizes(
            **{**s.__dict__, "row_tokens": short, "item_tokens": short, "step_tokens": 2 * short}
        )
        if fixed_bytes(small) + step_bytes(small, s.workers * s.processes, True) <= budget:
            return (
                f"{given}, and so would `--max-length {short} --batch-tokens {max(64, 2 * short)}`"
            )
    return given


def megabytes(count: int) -> str:
    """`1234 MB`, rounded up."""
    return f"{-(-count // 1_000_000)} MB"


def option(count: int) -> str:
    """What to type for so many bytes."""
    return f"`--memory {megabytes(count).replace(' ', '')}`"


def hold_no_more() -> None:
    """Have the C library give freed memory back at once, now and from now on.

    By itself it keeps what a thread freed for that thread, and maps large tensors less and less:
    what a process holds is then more than what it uses, by an amount that nobody can plan with.
    """
    import ctypes

    with suppress(OSError, AttributeError, TypeError):  # glibc alone has it
        library = ctypes.CDLL(None)
        library.mallopt(_M_MMAP_THRESHOLD, MAPPED)
        library.mallopt(_M_TRIM_THRESHOLD, KEPT)
        library.malloc_trim(0)


def out_of_memory(error: BaseException) -> bool:
    """Whether torch or Python could not allocate."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return "can't allocate memory" in str(error) or "not enough memory" in str(error)


def resident(device: torch.device) -> int:
    """Bytes this process holds now, of the device's memory where that is CUDA's; its peak so far
    where the system does not tell."""
    if device.type == "cuda":
        return torch.cuda.memory_reserved(device)
    status = Path("/proc/self/statm")
    if status.is_file():
        import os

        return int(status.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    try:
        import resource
    except ImportError:
        return 500 << 20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def available(device: torch.device) -> int:
    """Bytes this process may take on, beside what it holds: nine tenths of what is free."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0] * 9 // 10
    info = Path("/proc/meminfo")
    if info.is_file():
        for line in info.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024 * 9 // 10
    return 4 << 30
