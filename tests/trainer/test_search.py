"""Finding a learning rate and a rank: what wins, and what a person chose stays."""

from __future__ import annotations

import math

from trainer.config import TrainingConfig
from trainer.schedule import rate
from trainer.search import RATES, search


def quadratic(config: TrainingConfig) -> float | None:
    """Best at 3e-3, no better behind rank 16; the highest rate comes apart."""
    if config.learning_rate == max(RATES):
        return None
    distance = math.log10(config.learning_rate / 3e-3) ** 2
    return 2.0 + distance - 0.1 * math.log2(min(config.rank, 16))


def test_the_best_rate_and_the_smallest_of_the_ranks_that_are_as_good() -> None:
    chosen, tried = search(TrainingConfig(), RATES, (), quadratic)
    assert (chosen.learning_rate, chosen.rank, chosen.alpha) == (3e-3, 16, 32.0)
    assert chosen.scale == TrainingConfig().scale
    assert len(tried) == len({(t.rate, t.rank) for t in tried})
    assert sum(math.isinf(t.loss) for t in tried) == 1


def test_what_a_person_chose_stays() -> None:
    config = TrainingConfig(learning_rate=1e-3, rank=4)
    chosen, tried = search(config, RATES, {"learning_rate"}, quadratic)
    assert chosen.learning_rate == 1e-3
    assert {t.rate for t in tried} == {1e-3}
    chosen, tried = search(config, RATES, {"rank"}, quadratic)
    assert (chosen.rank, chosen.learning_rate) == (4, 3e-3)
    assert search(config, RATES, {"rank", "learning_rate"}, quadratic) == (config, [])


def test_schedules_rise_and_end_where_they_should() -> None:
    for name, middle, end in (("linear", 0.5, 0.0), ("cosine", 0.5, 0.0), ("constant", 1.0, 1.0)):
        config = TrainingConfig(schedule=name, warmup=0.1)
        shares = [rate(config, step, 1000) for step in range(1000)]
        assert shares[:100] == sorted(shares[:100])
        assert shares[100:] == sorted(shares[100:], reverse=True)
        assert max(shares) == 1.0
        assert abs(shares[550] - middle) < 0.01
        assert abs(shares[999] - end) < 0.01
