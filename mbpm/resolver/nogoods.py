"""Searching with sets of options, and learning from every dead end.

What is left for a name is a set of its options: the bits of an integer. A *nogood* says which sets
cannot be met together; where all of its sets but one are met, the last one is ruled out (unit
propagation). A dead end is traced back to the nogood that would have prevented it, which is kept,
and the search goes back to where that one would first have ruled something out. This is
conflict-driven clause learning, and PubGrub, with sets of options in the place of literals and of
ranges of versions (generalised nogoods: Katsirelos and Bacchus 2005).
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mbpm.resolver.wants import Want


@dataclass(frozen=True, eq=False)
class Nogood:
    """Sets of options that cannot be met together."""

    terms: tuple[tuple[str, int], ...]
    """Names, and the options of each; none where there is no choice at all."""
    because: tuple[Nogood, ...] = ()
    """What it was learned from; empty for what packs and wants say themselves."""
    names: tuple[str, ...] = ()
    """For these, all they are about: also names of which every option is meant."""
    want: Want | None = None


class Nogoods:
    """What is left for each name, and why."""

    def __init__(self) -> None:
        self.left: dict[str, int] = {}
        self.waiting: dict[str, None] = {}
        """Names that need a decision: something has to be chosen for them."""
        self._decided: set[str] = set()
        self._every: dict[str, int] = {}
        self._nothing: dict[str, int] = {}
        self._about: dict[str, list[Nogood]] = {}
        self._new: deque[Nogood] = deque()
        self._changed: dict[str, None] = {}
        self._trail: list[tuple[str, int, Nogood | None]] = []
        """Each step: a name, what was left for it before, and why that became less; a decision has
        no reason."""
        self._past: dict[str, list[tuple[int, int]]] = {}
        """Name -> the steps that concern it, and what was left after them."""
        self._levels: list[int] = []
        """The step each decision is."""

    def open(self, name: str, every: int, nothing: int) -> None:
        """Take up a name: all of its options, and those of them that mean having nothing."""
        self.left[name] = self._every[name] = every
        self._nothing[name] = nothing
        self._about[name] = []
        self._past[name] = [(-1, every)]
        self._await(name)

    def needs(self, name: str) -> bool:
        """Whether something has to be chosen for a name."""
        return not self.left[name] & self._nothing[name]

    def add(self, *terms: tuple[str, int], want: Want | None = None) -> None:
        """Rule out that all terms are met."""
        # what any option meets says nothing
        kept = tuple((n, m) for n, m in terms if self._every[n] & ~m)
        nogood = Nogood(kept, names=tuple(n for n, _ in terms), want=want)
        self._note(nogood)
        self._new.append(nogood)

    def _note(self, nogood: Nogood) -> None:
        for name, _ in nogood.terms:
            self._about[name].append(nogood)

    def decide(self, name: str, option: int) -> None:
        """Choose an option of a name, to see what follows."""
        self._levels.append(len(self._trail))
        self._narrow(name, option, None)
        self._decided.add(name)
        self._await(name)

    def _await(self, name: str) -> None:
        if name not in self._decided and self.needs(name):
            self.waiting[name] = None
        else:
            self.waiting.pop(name, None)

    def _narrow(self, name: str, left: int, why: Nogood | None) -> None:
        self._trail.append((name, self.left[name], why))
        self._past[name].append((len(self._trail) - 1, left))
        self.left[name] = left
        self._changed[name] = None
        self._await(name)

    def propagate(self) -> Nogood | None:
        """Rule out what follows; the nogood that is met in full, if one is."""
        while self._new or self._changed:
            if self._new:
                nogoods = [self._new.popleft()]
            else:
                name = next(iter(self._changed))
                del self._changed[name]
                nogoods = self._about[name]
            for nogood in nogoods:
                last = self._last(nogood)
                if last is True:
                    return nogood
                if last:
                    name, options = last
                    self._narrow(name, self.left[name] & ~options, nogood)
        return None

    def _last(self, nogood: Nogood) -> tuple[str, int] | bool:
        """The one term that is not met yet; True where all are, False where it says nothing."""
        found: tuple[str, int] | bool = True
        for term in nogood.terms:
            left, options = self.left[term[0]], term[1]
            if left & ~options:
                if found is not True or not left & options:
                    return False
                found = term
        return found

    def learn(self, met: Nogood) -> Nogood:
        """Go back on the decisions that led to a nogood being met, to where what is learned from it
        first rules something out.

        Returns:
            What was learned; without terms where no decisions led there.
        """
        terms = dict(met.terms)
        because = [met]
        while terms:
            steps = {name: self._step(name, options) for name, options in terms.items()}
            last = max(steps, key=steps.__getitem__)
            level = self._level(steps.pop(last))
            before = max(map(self._level, steps.values()), default=0)
            if before < level:
                return self._return(before, Nogood(tuple(terms.items()), tuple(because)))
            place = self._step(last, terms[last])
            _, _, why = self._trail[place]
            assert why is not None
            because.append(why)
            for name, options in why.terms:
                if name == last:
                    options |= terms[name]
                    if not self._every[name] & ~options:
                        del terms[name]
                        continue
                elif name in terms:
                    options &= terms[name]
                terms[name] = options
        return Nogood((), tuple(because))

    def _step(self, name: str, options: int) -> int:
        """The step since which a term is met."""
        found = len(self._trail)
        for step, left in reversed(self._past[name]):
            if left & ~options:
                break
            found = step
        return found

    def _level(self, step: int) -> int:
        """How many decisions were made up to a step."""
        return bisect_right(self._levels, step)

    def _return(self, level: int, learned: Nogood) -> Nogood:
        """Take steps back to where so many decisions stand, and add what was learned."""
        start = self._levels[level]
        while len(self._trail) > start:
            name, left, why = self._trail.pop()
            self._past[name].pop()
            self.left[name] = left
            if why is None:
                self._decided.discard(name)
            else:
                # what it ruled out may follow from what still stands
                self._new.append(why)
            self._await(name)
        del self._levels[level:]
        self._changed.clear()
        self._note(learned)
        self._new.appendleft(learned)
        return learned


def axioms(root: Nogood) -> list[Nogood]:
    """What a learned nogood rests on in the end."""
    found: dict[Nogood, None] = {}
    seen = {root}
    queue = [root]
    while queue:
        nogood = queue.pop()
        if not nogood.because:
            found[nogood] = None
        for other in nogood.because:
            if other not in seen:
                seen.add(other)
                queue.append(other)
    return list(found)
