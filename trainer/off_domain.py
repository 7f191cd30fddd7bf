"""What a pack changes where it should change nothing: proven once and measured once.

By construction the base alone is the same with a pack loaded, bit for bit; that is looked at. How
far the pack moves the base when it takes part is measured as divergence on the base's own answers
to general prompts, and as accuracy on the general suite; both also as they are where the router
decides which prompts the pack gets.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from specs.evals import Divergence, OffDomain
from trainer.batches import Row
from trainer.data.general_suite import general_suite
from trainer.evaluate import Setting, Watch, choices
from trainer.scoring import divergence, in_order, readers

F64 = npt.NDArray[np.float64]

ANSWER_TOKENS = 16
"""Tokens of the base's own answer that are looked at."""
WITNESSES = 4
"""Prompts on which the base's logits are compared bit for bit."""

Takes = Callable[[Sequence[str]], npt.NDArray[np.bool_]]
"""Which prompts the router gives to the pack."""


def base_logits(setting: Setting, prompts: Sequence[str]) -> list[npt.NDArray[np.float32]]:
    """Logits of the base alone at every token of some prompts, each in a cache of its own."""
    found = []
    for prompt in prompts[:WITNESSES]:
        tokens = _prompt(setting, prompt).tokens
        cache = setting.engine.new_cache(len(tokens))
        logits = setting.engine.forward(cache, tokens, logits="all").logits
        assert logits is not None
        found.append(logits)
    return found


def off_domain(
    setting: Setting,
    prompts: Sequence[str],
    before: Sequence[npt.NDArray[np.float32]],
    takes: Takes,
    watch: Watch,
) -> OffDomain:
    """Measure a loaded pack on general prompts.

    Args:
        setting: Its second system is the pack.
        before: What `base_logits` gave before the pack was loaded.
        takes: The router, with this pack.
    """
    (pack,) = setting.systems[1:]
    rows = own_answers(setting, prompts, watch)
    found = divergence(setting.engine, rows, pack, watch("divergence", len(rows)))
    after = base_logits(setting, prompts)
    taken = takes(prompts)
    questions = general_suite()
    suite = choices(setting, "general", questions, watch)
    assert suite is not None
    active = replace(
        suite,
        name="general_accuracy",
        description="right option of a general question has the highest likelihood per token, "
        "with the pack active",
    )
    routed = suite.where(
        takes([e.messages[0].content for e in questions]),
        "general_accuracy",
        "the same where the router decides",
    )
    return OffDomain(
        prompts=len(prompts),
        tokens=sum(len(f) for f in found),
        identical=all(np.array_equal(a, b) for a, b in zip(before, after, strict=True)),
        taken=int(taken.sum()),
        active=_summary(found),
        routed=_summary([f if t else np.zeros_like(f) for f, t in zip(found, taken, strict=True)]),
        suite_active=active.metric(setting.seed),
        suite_routed=routed.metric(setting.seed),
    )


def own_answers(setting: Setting, prompts: Sequence[str], watch: Watch) -> list[Row]:
    """Prompts with what the base alone answers, as rows."""
    asked = [_prompt(setting, p) for p in prompts]
    (reader,) = readers(setting.engine, asked, ((),), ANSWER_TOKENS)
    rows: list[Row] = [*asked]
    tick = watch("the base's own answers", len(asked))
    for index in in_order(asked):
        row = asked[index]
        # the token that ends an answer is looked at too
        made = reader.generate(row, (), ANSWER_TOKENS, lambda token: False)
        ends = [i for i, t in enumerate(made) if t in setting.tokenizer.eos_ids]
        made = made[: ends[0] + 1] if ends else made
        rows[index] = replace(row, tokens=(*row.tokens, *made))
        tick(1)
    return rows


def _prompt(setting: Setting, prompt: str) -> Row:
    made = setting.chat.prompt([{"role": "user", "content": prompt}])
    start = 0 if setting.activation == "full" else made.header_start
    return Row(tuple(made.tokens), start, len(made.tokens), prompt)


def _summary(found: Sequence[F64]) -> Divergence:
    nats = np.concatenate(found)
    p95, p99 = np.percentile(nats, [95, 99])
    return Divergence(mean=float(nats.mean()), p95=float(p95), p99=float(p99))
