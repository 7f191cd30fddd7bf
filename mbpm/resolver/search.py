"""Finding a choice with resolvelib (`resolvelib.AbstractProvider` describes the methods).

A key is the name of a pack, or of a base that several fingerprints share. Its candidates are
options, and choosing one makes further demands: on what the pack requires, on what it conflicts
with, and on the names it provides. A name that is only refused or provided stands for nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Container, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from resolvelib import AbstractProvider, BaseReporter, ResolutionImpossible, ResolutionTooDeep
from resolvelib.resolvers import Resolution
from resolvelib.resolvers.criterion import Criterion

from mbpm.resolver.option import Option, unversioned
from mbpm.resolver.options import Options
from mbpm.resolver.wants import Want, allows

if TYPE_CHECKING:
    from resolvelib.structs import RequirementInformation

MAX_ROUNDS = 10_000


def search(options: Options, wants: Sequence[Want]) -> dict[str, Option] | None:
    """Choose an option for every name that the wants lead to.

    Returns:
        Name -> a version, for the packs that the wants need; None where the first choice for some
        name leads nowhere. Then `learn` goes on, for resolvelib learns nothing from a wrong turn.
    """
    # not `Resolver`: to leave out what nothing leads to, it follows requirements upwards, and comes
    # to no end in a circle that a changed choice has cut off (resolvelib 1.2.1, `_build_result`)
    resolution = _Resolution(_Provider(options), _OneWay())
    try:
        state = resolution.resolve(wants, max_rounds=MAX_ROUNDS)
    except (ResolutionImpossible, ResolutionTooDeep, _WrongTurnError):
        return None
    return reached(wants, state.mapping)


def reached(wants: Iterable[Want], mapping: Mapping[str, Option]) -> dict[str, Option]:
    """The packs among chosen options that the wants lead to."""
    packs: dict[str, Option] = {}
    seen = set()
    queue = [w.key for w in wants]
    while queue:
        name = queue.pop()
        option = mapping.get(name)
        if name in seen or option is None:
            continue
        seen.add(name)
        if option.via is not None:
            queue.append(option.via)
        elif option.candidate is not None:
            packs[name] = option
            queue += [n for n, _ in option.requires]
    return packs


_LAST = 5


def turn(options: Options, name: str) -> int:
    """When a name is decided: what was asked for first, what only others provide last."""
    if name in options.asked:
        return 0
    record = options.problem.installed.get(name)
    if record is not None:
        return 2 if record.auto else 1
    return 3 if options.packs(name) else 4


def at_hand_first(ranked: Sequence[Option], there: Container[str]) -> Sequence[Option]:
    """The options of a name, best first, where some packs are there anyway: of packs in place of
    the name those come before others."""
    if not ranked or ranked[0].via is None or ranked[0].replacing is not None:
        return ranked
    return sorted(ranked, key=lambda o: o.via not in there)


class _WrongTurnError(Exception):
    pass


class _OneWay(BaseReporter[Want, Option, str]):
    """Goes back on no choice."""

    def resolving_conflicts(self, causes: Collection[RequirementInformation[Want, Option]]) -> None:
        raise _WrongTurnError


class _Resolution(Resolution[Want, Option, str]):
    """resolvelib's, which asks of every choice in every round whether it still fits; most have not
    changed since the last time."""

    def __init__(self, provider: _Provider, reporter: BaseReporter[Want, Option, str]) -> None:
        super().__init__(provider, reporter)
        self._fitting: dict[str, tuple[Criterion[Want, Option], Option, bool]] = {}

    def _attempt_to_pin_criterion(self, name: str) -> list[Criterion[Want, Option]]:
        # the candidates were put in order when the first demand was made
        old = self.state.criteria[name]
        if next(iter(old.candidates)).via is not None:
            found = at_hand_first(list(old.candidates), self.state.mapping)
            self.state.criteria[name] = Criterion(found, old.information, old.incompatibilities)
        return super()._attempt_to_pin_criterion(name)

    def _is_current_pin_satisfying(self, name: str, criterion: Criterion[Want, Option]) -> bool:
        pin = self.state.mapping.get(name)
        if pin is None:
            return False
        known = self._fitting.get(name)
        # a criterion is never changed, but replaced
        if known is None or known[0] is not criterion or known[1] is not pin:
            known = (criterion, pin, super()._is_current_pin_satisfying(name, criterion))
            self._fitting[name] = known
        return known[2]


class _Provider(AbstractProvider[Want, Option, str]):
    def __init__(self, options: Options) -> None:
        self._options = options
        self._wants: dict[Option, tuple[Want, ...]] = {}
        self._met: dict[tuple[Want, Option], bool] = {}
        self._bases: dict[str, Option] = {}
        names = list(options.problem.bases.values())
        self._shared_bases = {n for n in names if names.count(n) > 1}

    def identify(self, requirement_or_candidate: Want | Option) -> str:
        return requirement_or_candidate.key

    def narrow_requirement_selection(
        self,
        identifiers: Iterable[str],
        resolutions: Mapping[str, Option],
        candidates: Mapping[str, Iterator[Option]],
        information: Mapping[str, Iterator[RequirementInformation[Want, Option]]],
        backtrack_causes: Sequence[RequirementInformation[Want, Option]],
    ) -> Iterable[str]:
        # to the one name that is to be decided next, the first of those that rank alike
        best, best_rank = "", _LAST + 1
        for identifier in identifiers:
            rank = self._rank(identifier, information)
            if rank < best_rank:
                best, best_rank = identifier, rank
                if rank == 0:
                    break
        return [best]

    def get_preference(
        self,
        identifier: str,
        resolutions: Mapping[str, Option],
        candidates: Mapping[str, Iterator[Option]],
        information: Mapping[str, Iterator[RequirementInformation[Want, Option]]],
        backtrack_causes: Sequence[RequirementInformation[Want, Option]],
    ) -> Any:
        return self._rank(identifier, information)

    def _rank(
        self,
        identifier: str,
        information: Mapping[str, Iterator[RequirementInformation[Want, Option]]],
    ) -> int:
        if not any(i.requirement.positive for i in information[identifier]):
            return _LAST
        return turn(self._options, identifier)

    def find_matches(
        self,
        identifier: str,
        requirements: Mapping[str, Iterator[Want]],
        incompatibilities: Mapping[str, Iterator[Option]],
    ) -> Callable[[], Iterator[Option]]:
        wants = list(requirements[identifier])
        wrong = set(incompatibilities[identifier])
        if not self._together(wants):
            return lambda: iter(())
        if wants and wants[0].kind == "base":
            token = self._bases.setdefault(identifier, Option(identifier))
            return lambda: iter(() if token in wrong else (token,))
        return lambda: self._matches(identifier, wants, wrong)

    def _matches(self, name: str, wants: Sequence[Want], wrong: set[Option]) -> Iterator[Option]:
        options = self._options
        for option in self._candidates(name, wants):
            if option not in wrong and all(allows(w, option, options) for w in wants):
                yield option

    def _candidates(self, name: str, wants: Sequence[Want]) -> Iterator[Option]:
        options = self._options
        positive = [w for w in wants if w.positive]
        if not positive:
            yield options.absent(name)
            return
        own = options.own(name) if options.stays_first(name) else None
        if own is not None:
            # before anything is looked up
            yield own
        ranked = options.ranked(name, stand_ins=self._open(name, positive))
        yield from (o for o in ranked if o is not own)
        yield options.absent(name)

    def _open(self, name: str, wants: Sequence[Want]) -> bool:
        """Whether a pack of another name could meet the wants."""
        if any(w.kind == "keep" for w in wants) and not self._options.supplanted(name):
            return False
        return all(w.kind == "keep" or (w.kind == "need" and unversioned(w.wanted)) for w in wants)

    def _together(self, wants: Sequence[Want]) -> bool:
        """Whether demands on one name do not exclude each other by themselves."""
        by = [(w.by, w) for w in wants if w.by is not None]
        exact = self._options.problem.exact
        if by and wants[0].kind == "base":
            new = {w.digest for b, w in by if not b.installed or exact}
            old = {w.digest for b, w in by if b.installed}
            return len(new) < 2 and (not new or old <= new)
        provided = [b for b, w in by if w.kind == "provided"]
        if not provided:
            return True
        return not any(
            p is not b and (exact or not (p.installed and b.installed))
            for b, w in by
            if w.kind == "refuse" and unversioned(w.wanted)
            for p in provided
        )

    def is_satisfied_by(self, requirement: Want, candidate: Option) -> bool:
        # asked of every choice in every round
        pair = (requirement, candidate)
        if pair not in self._met:
            self._met[pair] = allows(requirement, candidate, self._options)
        return self._met[pair]

    def get_dependencies(self, candidate: Option) -> Iterable[Want]:
        if candidate not in self._wants:
            self._wants[candidate] = tuple(self._consequences(candidate))
        return self._wants[candidate]

    def _consequences(self, option: Option) -> Iterator[Want]:
        if option.via is not None:
            yield Want(option.via, "stand", by=option)
        if option.candidate is None:
            return
        for name, wanted in option.requires:
            yield Want(name, "need", wanted, by=option)
        for name, wanted in option.refuses:
            yield Want(name, "refuse", wanted, by=option)
        for name in option.stands_for:
            yield Want(name, "provided", by=option)
        base = self._options.base_name(option)
        if base in self._shared_bases:
            fingerprint = option.candidate.line.base.fingerprint
            yield Want(f"base {base}", "base", by=option, digest=fingerprint)
