"""The held-out split."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from specs.errors import UsageError
from trainer.data.example import Example
from trainer.data.inspection import whole_text
from trainer.data.near import shingles, similarity
from trainer.data.split import (
    MAX_SIMILARITY,
    MIN_HELD_OUT_GROUPS,
    position,
    split_as_given,
    split_by_group,
    without_near_repeats,
)


def example(prompt: str, group: str) -> Example:
    return Example.of_pair(prompt, "answer", group)


def rows(groups: int, per_group: int = 3) -> list[Example]:
    return [example(f"{g} {i}", f"g{g}") for g in range(groups) for i in range(per_group)]


@given(st.integers(8, 300), st.integers(0, 5), st.floats(0.05, 0.3))
def test_no_group_stands_on_both_sides_and_nothing_is_lost(
    groups: int, seed: int, fraction: float
) -> None:
    data = rows(groups)
    try:
        split = split_by_group(data, fraction=fraction, seed=seed)
    except UsageError:
        assert groups < 20
        return
    assert not {e.group for e in split.train} & {e.group for e in split.held_out}
    assert len(split.train) + len(split.held_out) == len(data)


def test_a_group_keeps_its_side_when_data_is_added() -> None:
    before = split_by_group(rows(500), fraction=0.1)
    after = split_by_group(rows(900), fraction=0.1)
    assert {e.group for e in before.held_out} < {e.group for e in after.held_out}
    assert {e.group for e in before.train} < {e.group for e in after.train}
    assert 0.06 < len(after.held_out) / 2700 < 0.14


def test_another_seed_holds_out_other_groups() -> None:
    one, two = (split_by_group(rows(200), seed=s).held_out for s in (0, 1))
    assert {e.group for e in one} != {e.group for e in two}


def test_a_held_out_prompt_that_training_also_asks_is_dropped() -> None:
    data = rows(200)
    held = sorted({e.group for e in split_by_group(data).held_out})
    trained = next(e for e in split_by_group(data).train)
    repeat = trained.messages[0].content
    data += [example(f"  {repeat.upper()}?", held[0]), example("new", held[0])]
    split = split_by_group(data)
    assert split.dropped == 1
    assert "new" in {e.messages[0].content for e in split.held_out}
    assert trained in split.train


@pytest.mark.parametrize("groups", [1, 2 * MIN_HELD_OUT_GROUPS - 1])
def test_too_few_groups(groups: int) -> None:
    with pytest.raises(UsageError) as caught:
        split_by_group(rows(groups, 40))
    number = "1 group" if groups == 1 else f"{groups} groups"
    assert f"{40 * groups} examples in {number} (expected at least 12" in caught.value.message


def test_too_few_examples_to_train_on() -> None:
    with pytest.raises(UsageError, match="7 examples beside 6 held out"):
        split_by_group(rows(13, 1))


def test_one_group_that_is_most_of_the_data_is_named() -> None:
    seed = next(s for s in range(100) if position("big", s) < 0.1)
    data = rows(12, 1) + [example(f"big {i}", "big") for i in range(48)]
    with pytest.raises(UsageError, match="beside 53 held out") as caught:
        split_by_group(data, fraction=0.1, seed=seed)
    assert "the group `big` has 48 of 60 examples" in str(caught.value.hint)


def test_a_single_row_is_counted_as_one() -> None:
    with pytest.raises(UsageError, match=r"1 example in 1 group \("):
        split_by_group(rows(1, 1), fraction=0.1, seed=0)


def test_held_out_data_that_is_all_in_training() -> None:
    data = [example("the same question", f"g{g}") for g in range(100)]
    with pytest.raises(UsageError, match="0 groups left after dropping"):
        split_by_group(data)


def test_positions_are_spread_evenly() -> None:
    places = [position(f"g{i}", 0) for i in range(2000)]
    assert min(places) >= 0 and max(places) < 1
    assert abs(sum(places) / 2000 - 0.5) < 0.03


def test_what_a_split_leaves_may_be_held_out() -> None:
    words = [f"word{i}" for i in range(40)]
    examples = [
        Example.of_pair(f"Ask {i}", " ".join([*words, f"end{i}"]), f"group {i}") for i in range(40)
    ]
    alike = similarity(*(shingles(whole_text(e)) for e in examples[:2]))
    assert 0.8 < alike < MAX_SIMILARITY
    made = without_near_repeats(split_by_group(examples))
    sides = ([(str(i), e) for i, e in enumerate(part)] for part in (made.train, made.held_out))
    assert split_as_given(*sides).dropped == 0
