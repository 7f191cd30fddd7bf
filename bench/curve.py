"""`curve`: the loss of every step beside peft's, from the same start on the same batches.

The weights are the base's own: dequantised by ours as it trains, by transformers when it loads the
same GGUF file. A seed draws A and the order of the rows, on both sides alike.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING

from bench.report import Case, Report, cores, machine
from bench.train_worker import ALPHA, RANK, RATE, Rows
from specs.base_card import CARD_FILE, WEIGHTS_FILE, BaseCard

if TYPE_CHECKING:
    import torch

    from trainer.batches import Row
    from trainer.config import TrainingConfig

PEER = "peft"
SEEDS = (0, 1, 2)
EPOCHS, BATCH_TOKENS = 2, 640
Losses = list[float]


def curve(base_dir: Path, base: str, given: Rows) -> Report:
    """Distances of loss curves: ours and peft's in bfloat16 from peft's in float32."""
    import torch

    from trainer.batches import Row
    from trainer.config import TrainingConfig

    rows = [Row(tuple(tokens), 0, answer, "") for tokens, _, answer in given]
    card = BaseCard.read(base_dir / CARD_FILE)
    ours, low, exact = [], [], []
    for seed in SEEDS:
        config = TrainingConfig(
            rank=RANK, alpha=ALPHA, activation="full", epochs=EPOCHS, learning_rate=RATE,
            batch_tokens=BATCH_TOKENS, schedule="constant", warmup=0.0, seed=seed,
        )  # fmt: skip
        ours.append(of_ours(base_dir, card, rows, config, torch.bfloat16))
        low.append(of_peft(base_dir, card, rows, config, torch.bfloat16))
        exact.append(of_peft(base_dir, card, rows, config, torch.float32))
    name = f"{PEER} in bfloat16"

    def case(what: str, ours: float, peer: float, peer_name: str) -> Case:
        return Case.of_rounds(what, [ours], [peer], peer_name, "mnat", higher_is_better=False)

    steps = [_distances(curves, exact) for curves in (ours, low)]
    epochs = [[_means(losses) for losses in curves] for curves in (ours, low, exact)]
    means = [_distances(curves, epochs[2]) for curves in epochs[:2]]
    seeds = [d for one, other in combinations(epochs[2], 2) for d in _distances([one], [other])]
    of_step = f"loss of a step, from {PEER} in float32"
    of_epoch = f"mean loss of an epoch, from {PEER} in float32"
    cases = [
        case(f"{of_step}: mean", mean(steps[0]), mean(steps[1]), name),
        case(f"{of_step}: largest", max(steps[0]), max(steps[1]), name),
        case(f"{of_epoch}: mean", mean(means[0]), mean(means[1]), name),
        case(f"{of_epoch}: mean", mean(means[0]), mean(seeds), f"{PEER} with two seeds"),
    ]
    notes = [
        f"{len(rows)} rows, {len(exact[0])} steps of at most {BATCH_TOKENS} tokens, seeds {SEEDS}"
    ]
    for seed, curves in zip(SEEDS, zip(ours, low, exact, strict=True), strict=True):
        for side, losses in zip(("ours", name, f"{PEER} in float32"), curves, strict=True):
            notes.append(f"seed {seed}, {side}: " + " ".join(f"{x:.3f}" for x in losses))
    return Report(
        "curve", {**machine(), "base": base, "rank": RANK, "threads": cores()}, cases, notes
    )


def _distances(some: Sequence[Losses], others: Sequence[Losses]) -> Losses:
    """Of all pairs of losses, in thousandths of a nat."""
    pairs = [
        p for one, other in zip(some, others, strict=True) for p in zip(one, other, strict=True)
    ]
    return [1000 * abs(a - b) for a, b in pairs]


def _means(losses: Losses) -> Losses:
    """Of every epoch."""
    size = len(losses) // EPOCHS
    return [mean(losses[at : at + size]) for at in range(0, size * EPOCHS, size)]


def of_ours(
    base: Path,
    card: BaseCard,
    given: Sequence[Row],
    config: TrainingConfig,
    dtype: torch.dtype,
) -> Losses:
    """Losses of our trainer."""
    import torch

    from trainer.frozen import load_frozen
    from trainer.loop import train

    cpu = torch.device("cpu")
    model = load_frozen(base / WEIGHTS_FILE, cpu, dtype)
    with tempfile.TemporaryDirectory() as folder:
        made = train(model, card, given, given[:2], config, Path(folder), lambda step: None)
    return list(made.losses)


def of_peft(
    base: Path,
    card: BaseCard,
    given: Sequence[Row],
    config: TrainingConfig,
    dtype: torch.dtype,
) -> Losses:
    """Losses of a loop with transformers and peft as anyone would write it."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    from trainer.batches import batches
    from trainer.loop import hash_seed
    from trainer.lora import TrainableAdapter

    loaded = AutoModelForCausalLM.from_pretrained(
        str(base), gguf_file=WEIGHTS_FILE, dtype=torch.float32
    ).to(dtype)
    chosen = LoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
        use_rslora=config.rslora,
    )
    model = get_peft_model(loaded, chosen)
    cpu = torch.device("cpu")
    start = TrainableAdapter(card, config.rank, config.scale, config.seed, cpu).values()
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            ours = name.removeprefix("base_model.model.").replace(".default", "")
            parameter.data.copy_(start.pop(ours))
    assert not start
    groups = [
        [p for n, p in model.named_parameters() if half in n] for half in ("lora_A", "lora_B")
    ]
    optimizer = torch.optim.AdamW(
        [
            {"params": groups[0], "lr": config.learning_rate},
            {"params": groups[1], "lr": config.learning_rate * config.lora_plus},
        ],
        weight_decay=0.0,
    )
    losses = []
    for epoch in range(config.epochs):
        for batch in batches(given, config.batch_tokens, hash_seed(config.seed, epoch)):
            width = max(len(r.tokens) for r in batch)
            ids = torch.zeros(len(batch), width, dtype=torch.long)
            mask, labels = torch.zeros_like(ids), torch.full_like(ids, -100)
            for i, row in enumerate(batch):
                length = len(row.tokens)
                ids[i, :length] = torch.tensor(row.tokens)
                mask[i, :length] = 1
                labels[i, row.answer : length] = ids[i, row.answer : length]
            loss = model(input_ids=ids, attention_mask=mask, labels=labels).loss
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_([*groups[0], *groups[1]], config.max_gradient_norm)
            optimizer.step()
            losses.append(loss.item())
    return losses
