"""Proving that no choice of packs meets what is wanted, by steps that can be told.

What can be chosen for two names is compared again and again, and an option falls when nothing that
is left for the other name goes with it (arc consistency, AC-3: Mackworth 1977). Where that is not
enough, options are tried one by one. Each fall keeps its reasons, so that from the name that ends
up with nothing only the falls that matter are told. That there is no choice, and within which names
that shows, is known before (`learn`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from mbpm.resolver.learn import NoChoice
from mbpm.resolver.option import Clash, Option, unversioned
from mbpm.resolver.options import Options
from mbpm.resolver.wants import Want, allows

MAX_COMPARISONS = 300_000
"""Pairs of options; a proof that takes more would not be read either."""


@dataclass(frozen=True, eq=False)
class Fall:
    """Why an option cannot be chosen."""

    number: int
    option: Option
    why: Literal["want", "excluded", "clash", "assumed", "case"]
    want: Want | None = None
    by: str = ""
    """For a clash: the name nothing of which goes with the option."""
    left: tuple[Option, ...] = ()
    """What was left for that name."""
    because: tuple[Fall, ...] = ()
    """The falls this one rests on."""
    inner: tuple[Fall, ...] = ()
    """For a case: what follows from choosing the option."""


@dataclass(frozen=True)
class Refutation:
    """A proof that nothing fits."""

    wants: tuple[Want, ...]
    """As few of the wants as already cannot be met together."""
    name: str
    """The name nothing is left for."""
    falls: tuple[Fall, ...]
    """The falls that matter, in the order they were found; none where they are too many to tell."""
    domains: dict[str, tuple[Option, ...]]
    """Everything that was considered for each name."""


def refute(options: Options, none: NoChoice) -> Refutation:
    """Why the wants cannot be met."""
    wants = list(none.wants)
    found = _refuted(options, wants, none.names)
    if found is None:
        return Refutation(none.wants, none.wants[0].key, (), {})
    for want in found.wants:
        fewer = [w for w in wants if w is not want]
        again = _refuted(options, fewer, none.names)
        if again is not None:
            found, wants = again, [w for w in fewer if w in again.wants]
    return found


def _refuted(options: Options, wants: Sequence[Want], names: Collection[str]) -> Refutation | None:
    """A proof within these names, if there is one that is not too long."""
    try:
        return _Refuter(options, wants, names).run()
    except _TooLongError:
        return None


class _TooLongError(Exception):
    pass


class _Refuter:
    def __init__(self, options: Options, wants: Sequence[Want], names: Collection[str]) -> None:
        self._options = options
        self._wants = wants
        self._names = names
        self._domains: dict[str, tuple[Option, ...]] = {}
        self._beside: dict[str, dict[str, None]] = {}
        self._fallen: dict[Option, Fall] = {}
        self._trail: list[Option] = []
        self._clashes: dict[tuple[Option, Option], Clash | None] = {}
        self._partners: dict[tuple[Option, str], Option] = {}
        self._falls = 0
        self._comparisons = 0
        self._open: dict[str, int] = {}
        """How many options are left for each name."""

    def run(self) -> Refutation | None:
        """A proof, if there is one; raises _TooLongError."""
        self._expand()
        self._connect()
        empty = self._solve(self._domains)
        if empty is None:
            return None
        falls = self._relevant(f for o in self._domains[empty] for f in (self._fallen[o],))
        wants = {f.want: None for f in falls if f.want is not None}
        return Refutation(tuple(wants), empty, tuple(falls), self._domains)

    def _left(self, name: str) -> list[Option]:
        return [o for o in self._domains[name] if o not in self._fallen]

    # what can be chosen at all

    def _expand(self) -> None:
        """Collect the names that the wants lead to, and what can be chosen for each."""
        queue = deque(dict.fromkeys(w.key for w in self._wants))
        while queue:
            name = queue.popleft()
            if name in self._domains or name not in self._names:
                continue
            self._domains[name] = self._domain(name)
            self._open[name] = len(self._domains[name])
            for option in self._domains[name]:
                self._judge(option)
            for option in self._left(name):
                queue += [option.via] if option.via else [n for n, _ in option.requires]

    def _domain(self, name: str) -> tuple[Option, ...]:
        options = self._options
        ranked = options.ranked(name)
        excluded = [o for o in options.packs(name) if o.excluded]
        return (*ranked, *excluded, options.absent(name))

    def _judge(self, option: Option) -> None:
        """Let an option fall that is out of the question by itself."""
        for want in self._wants:
            if want.key == option.name and not allows(want, option, self._options):
                self._fall(option, "want", want=want)
                return
        if option.excluded is not None:
            self._fall(option, "excluded")

    def _connect(self) -> None:
        """Note which names say anything about each other."""
        standing: dict[str, list[str]] = {}
        bases: dict[str, dict[str, set[str]]] = {}
        for name, domain in self._domains.items():
            for option in domain:
                for other in option.stands_for:
                    standing.setdefault(other, []).append(name)
                if option.candidate is not None:
                    prints = bases.setdefault(self._options.base_name(option), {})
                    prints.setdefault(option.candidate.line.base.fingerprint, set()).add(name)
        for name, domain in self._domains.items():
            self._beside.setdefault(name, {})
            for option in domain:
                if option.via is not None:
                    self._link(name, option.via)
                for other, _ in option.requires:
                    self._link(name, other)
                for other, wanted in option.refuses:
                    self._link(name, other)
                    for rival in standing.get(other, ()) if unversioned(wanted) else ():
                        self._link(name, rival)
        for prints in bases.values():
            if len(prints) > 1:
                users = sorted(set().union(*prints.values()))
                for one in users:
                    for other in users:
                        self._link(one, other)

    def _link(self, one: str, other: str) -> None:
        if one != other and one in self._domains and other in self._domains:
            self._beside.setdefault(one, {})[other] = None
            self._beside.setdefault(other, {})[one] = None

    # what follows

    def _fall(
        self,
        option: Option,
        why: Literal["want", "excluded", "clash", "assumed", "case"],
        *,
        want: Want | None = None,
        by: str = "",
        left: tuple[Option, ...] = (),
        because: tuple[Fall, ...] = (),
        inner: tuple[Fall, ...] = (),
    ) -> None:
        self._falls += 1
        fall = Fall(self._falls, option, why, want, by, left, because, inner)
        self._fallen[option] = fall
        self._trail.append(option)
        self._open[option.name] -= 1

    def _clash(self, a: Option, b: Option) -> Clash | None:
        self._comparisons += 1
        if self._comparisons > MAX_COMPARISONS:
            raise _TooLongError
        if (a, b) not in self._clashes:
            self._clashes[a, b] = self._options.clash(a, b)
        return self._clashes[a, b]

    def _propagate(self, changed: Iterable[str]) -> str | None:
        """Let options fall until those left go with each other in pairs; the name that ends up
        with nothing, if one does."""
        queue = deque(changed)
        waiting = set(queue)
        while queue:
            name = queue.popleft()
            waiting.discard(name)
            left = self._left(name)
            if not left:
                return name
            for other in self._beside[name]:
                if self._revise(other, name, left):
                    if not self._left(other):
                        return other
                    if other not in waiting:
                        queue.append(other)
                        waiting.add(other)
        return None

    def _revise(self, name: str, by: str, left: Sequence[Option]) -> bool:
        """Let options of `name` fall that nothing left for `by` goes with."""
        changed = False
        for option in self._left(name):
            # what went with it the last time usually still does (AC-2001)
            partner = self._partners.get((option, by))
            if partner is not None and partner not in self._fallen:
                continue
            # the last one is its absence, which goes with nearly everything
            partner = next((o for o in reversed(left) if not self._clash(option, o)), None)
            if partner is not None:
                self._partners[option, by] = partner
                continue
            because = tuple(
                fall
                for o in self._domains[by]
                if (fall := self._fallen.get(o)) and not self._clash(option, o)
            )
            self._fall(option, "clash", by=by, left=tuple(left), because=because)
            changed = True
        return changed

    def _solve(self, changed: Iterable[str]) -> str | None:
        """Decide every name; the name that ends up with nothing, if that cannot be."""
        while True:
            empty = self._propagate(changed)
            if empty is not None:
                return empty
            name = self._undecided()
            if name is None:
                return None
            option = self._left(name)[0]
            mark = len(self._trail)
            for other in self._left(name):
                if other is not option:
                    self._fall(other, "assumed")
            empty = self._solve([name])
            if empty is None:
                return None
            relevant = self._relevant(self._fallen[o] for o in self._domains[empty])
            inner = [f for f in relevant if self._since(f, mark) and f.why != "assumed"]
            outer = [f for f in relevant if not self._since(f, mark)]
            while len(self._trail) > mark:
                risen = self._trail.pop()
                del self._fallen[risen]
                self._open[risen.name] += 1
            self._fall(option, "case", because=tuple(outer), inner=tuple(inner))
            changed = [name]

    def _since(self, fall: Fall, mark: int) -> bool:
        start = self._trail[mark] if mark < len(self._trail) else None
        return start is not None and fall.number >= self._fallen[start].number

    def _undecided(self) -> str | None:
        """The name with the fewest options of those that must be there. What need not be there can
        be left out, as nothing that must be there needs it."""
        found, least = None, 0
        for name, left in self._open.items():
            if left > 1 and (found is None or left < least):
                if self._options.absent(name) not in self._fallen:
                    continue
                found, least = name, left
                if least == 2:
                    break
        return found

    def _relevant(self, falls: Iterable[Fall]) -> list[Fall]:
        """The falls, and those they rest on."""
        found: dict[Fall, None] = {}
        queue = list(falls)
        while queue:
            fall = queue.pop()
            if fall not in found:
                found[fall] = None
                queue += fall.because
        return sorted(found, key=lambda f: f.number)
