"""One side of `train` in a process of its own.

Usage: python -m bench.train_worker ours|bfloat16|float32 BASE_FOLDER THREADS BYTES

BYTES are what ours may hold; the peer has no such option.

Reads one JSON object per line: `{"rows": [[tokens, start, answer], ...], "batch": rows of a step,
"epochs": E}` trains and is answered with the seconds of every step, and of what came before them.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from specs.errors import MbpmError

RANK, ALPHA, RATE = 8, 16.0, 1e-3
Rows = list[tuple[list[int], int, int]]
Step = Callable[[Rows], float]
Begin = Callable[[Rows, int, int], None]
"""Takes the rows, the epochs and the rows of a step."""


def _most(rows: Rows, batch: int) -> int:
    """Tokens of the largest step."""
    sizes = [len(tokens) for tokens, _, _ in rows]
    return max(64, *(sum(sizes[at : at + batch]) for at in range(0, len(sizes), batch)))


def _ours(base_dir: Path, threads: int, memory: int) -> tuple[Begin, Step]:
    """Our trainer, as `trainer.loop` runs it in so many bytes of memory."""
    import torch

    from specs.base_card import CARD_FILE, WEIGHTS_FILE, BaseCard
    from trainer.batches import Row, parts
    from trainer.config import TrainingConfig
    from trainer.device import compute_type
    from trainer.distributed import World
    from trainer.frozen import load_frozen
    from trainer.lora import TrainableAdapter
    from trainer.memory import hold_no_more, plan, resident
    from trainer.objective import Answers
    from trainer.prompts import Prompts
    from trainer.sizing import sizes_of
    from trainer.steps import Steps
    from trainer.workers import Workers

    cpu = torch.device("cpu")
    dtype = compute_type(cpu)
    card = BaseCard.read(base_dir / CARD_FILE)
    model = load_frozen(base_dir / WEIGHTS_FILE, cpu, dtype)
    hold_no_more()
    adapter = TrainableAdapter(card, RANK, ALPHA / RANK, 0, cpu)
    optimizer = torch.optim.AdamW(adapter.flat.values(), lr=RATE, weight_decay=0.0)
    workers = Workers(threads)
    torch.set_num_threads(1)
    objective = Answers()
    loaded = resident(cpu)
    state: dict[str, Any] = {}

    def begin(rows: Rows, epochs: int, batch: int) -> None:
        made = [Row(tuple(tokens), start, answer, "") for tokens, start, answer in rows]
        config = TrainingConfig(rank=RANK, alpha=ALPHA, batch_tokens=_most(rows, batch))
        sizes = sizes_of(model, adapter, made, made[:1], config, workers=workers.count)
        way = plan(replace(sizes, resident=loaded), memory, 0, epochs)
        prompts = Prompts(model, made, dtype, kept=way.kept)
        prompts.fill(lambda read, numbers: workers.map(read, numbers, lambda: None))
        steps = Steps(model, adapter, prompts, workers, World(), recompute=way.recompute)
        state.update(steps=steps, parts=way.parts)

    def step(rows: Rows) -> float:
        made = [Row(tuple(tokens), start, answer, "") for tokens, start, answer in rows]
        weight = objective.weight(made)
        loss: float = state["steps"].gradients(objective, parts(made, state["parts"]), weight)
        torch.nn.utils.clip_grad_norm_(adapter.flat.values(), 1.0)
        optimizer.step()
        return loss

    return begin, step


def _peer(kind: str, base_dir: Path, threads: int, memory: int) -> tuple[Begin, Step]:
    """transformers and peft on the same shape, random weights, rows padded to the longest."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, LlamaConfig, Qwen2Config

    from runtime.gguf_file import model_config, open_gguf
    from specs.base_card import WEIGHTS_FILE

    torch.set_num_threads(threads)
    file = open_gguf(base_dir / WEIGHTS_FILE)
    c = model_config(file)
    config = (Qwen2Config if c.architecture == "qwen2" else LlamaConfig)(
        vocab_size=c.vocab_size,
        hidden_size=c.hidden_size,
        intermediate_size=c.ffn_size,
        num_hidden_layers=c.layers,
        num_attention_heads=c.heads,
        num_key_value_heads=c.kv_heads,
        max_position_embeddings=c.context_length,
        tie_word_embeddings="output.weight" not in file.tensors,
        use_cache=False,
    )
    dtype = getattr(torch, kind)
    base = AutoModelForCausalLM.from_config(config, dtype=dtype)
    chosen = LoraConfig(
        r=RANK, lora_alpha=ALPHA, target_modules="all-linear", task_type="CAUSAL_LM"
    )
    model = get_peft_model(base, chosen)
    model.train()
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=RATE, weight_decay=0.0)

    def step(rows: Rows) -> float:
        width = max(len(tokens) for tokens, _, _ in rows)
        ids = torch.zeros(len(rows), width, dtype=torch.long)
        labels = torch.full_like(ids, -100)
        mask = torch.zeros_like(ids)
        for i, (tokens, _, answer) in enumerate(rows):
            ids[i, : len(tokens)] = torch.tensor(tokens)
            labels[i, answer : len(tokens)] = ids[i, answer : len(tokens)]
            mask[i, : len(tokens)] = 1
        loss = model(input_ids=ids, attention_mask=mask, labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        return float(loss.detach())

    return lambda rows, epochs, batch: None, step


def answer(begin: Begin, step: Step, job: dict[str, Any]) -> dict[str, Any]:
    """Train as a job says."""
    rows: Rows = job["rows"]
    started = time.perf_counter()
    if not job.get("goes_on"):
        begin(rows, job["epochs"], job["batch"])
    before = time.perf_counter() - started
    seconds, processor, losses = [], [], []
    for _ in range(job["epochs"]):
        for at in range(0, len(rows), job["batch"]):
            started, used = time.perf_counter(), time.process_time()
            losses.append(step(rows[at : at + job["batch"]]))
            seconds.append(time.perf_counter() - started)
            processor.append(time.process_time() - used)
    return {"before": before, "seconds": seconds, "processor": processor, "losses": losses}


def main(arguments: Sequence[str]) -> None:
    """Load one side, say so, and serve until the input ends."""
    kind, base_dir = arguments[0], Path(arguments[1])
    threads, memory = map(int, arguments[2:])
    make = _ours if kind == "ours" else partial(_peer, kind)
    begin, step = make(base_dir, threads, memory)
    print(json.dumps({"ready": kind}), flush=True)
    for line in sys.stdin:
        print(json.dumps(answer(begin, step, json.loads(line))), flush=True)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except (MbpmError, ImportError) as error:
        print(json.dumps({"error": str(error)}), flush=True)
        sys.exit(1)
