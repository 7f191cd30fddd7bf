"""From a problem to its solution."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from mbpm.resolver.option import Option, requirement
from mbpm.resolver.options import Options
from mbpm.resolver.problem import Installed, Problem, Solution
from mbpm.resolver.result import Chosen
from mbpm.resolver.wants import Want, roots
from specs.errors import NotFoundError, ResolutionError

if TYPE_CHECKING:
    from mbpm.resolver.learn import NoChoice


def resolve(problem: Problem) -> Solution:
    """Choose what is installed afterwards.

    Raises:
        NotFoundError: a pack that is asked for does not exist.
        ResolutionError: nothing fits; the message says why, the hint what would help.
        IntegrityError: it would fit, but was made for a base that nobody offers.
    """
    options = Options(problem)
    if _nothing_to_do(options):
        return Chosen(options, _installed(options)).solution({})
    _check_names(options)
    found = choose(options)
    if not isinstance(found, dict):
        from mbpm.resolver.hints import failure
        from mbpm.resolver.refute import refute

        raise failure(options, refute(options, found))
    left_out = _add_recommended(options, found) if problem.recommends else {}
    return Chosen(options, found).solution(left_out)


def _installed(options: Options) -> dict[str, Option]:
    names = options.problem.installed
    return {n: own for n in names if (own := options.own(n)) is not None}


def _nothing_to_do(options: Options) -> bool:
    """Whether what is asked for is there; then resolvelib need not even be imported."""
    problem = options.problem
    if problem.upgrade or problem.remove or problem.removable or problem.exact or problem.locked:
        return False
    for request in problem.requests:
        own = options.own(request.name)
        if own is None or own.candidate is None or own.broken:
            return False
        if request.requirement is not None and not options.satisfies(own, request.requirement):
            return False
        if request.pinned and request.pinned.line.manifest != own.candidate.line.manifest:
            return False
    return True


def _check_names(options: Options) -> None:
    for request in options.problem.requests:
        name = request.name
        if options.own(name) is not None or options.packs(name):
            continue
        others = list(dict.fromkeys(o.via for o in options.stand_ins(name) if o.via))
        if others:
            listed = " and ".join(f"`{n}`" for n in others[:5])
            raise NotFoundError(
                f"no pack is called `{name}`; it is provided by {listed}",
                hint=f"`mbpm install {others[0]}`",
            )
        if name in options.shelf.missing:
            raise options.shelf.missing[name]


def choose(options: Options) -> dict[str, Option] | NoChoice:
    """What is installed afterwards, or that nothing can be.

    Installed packs take part only where a choice touches them: those whose demands would be broken
    join, until none is.

    Raises:
        ResolutionError: neither was found within the bounds.
    """
    problem = options.problem
    if problem.upgrade and not (problem.requests or problem.remove or problem.exact):
        return Chosen(options, _upgrade(options)).with_better_upgrades()
    wants = roots(options) + [Want(n, "keep") for n in _first(options)]
    found = _satisfy(options, wants)
    if not isinstance(found, dict) or problem.exact:
        return found
    return Chosen(options, found).with_better_upgrades()


def _upgrade(options: Options) -> dict[str, Option]:
    """As many upgrades as go together; those of one half after those of the other where all at once
    are too much to decide. What is installed is always an answer, so this does not fail."""
    problem, names = options.problem, _first(options)
    with suppress(ResolutionError):
        found = _satisfy(options, [Want(n, "keep") for n in names])
        if isinstance(found, dict):
            return found
    if len(names) < 2:
        return _installed(options)
    for half in (names[: len(names) // 2], names[len(names) // 2 :]):
        step = Options(replace(problem, upgrade=problem.upgrade.intersection(half)), options.shelf)
        chosen = {n: o.candidate for n, o in _upgrade(step).items() if o.candidate is not None}
        records = {
            n: problem.installed.get(n) or Installed(c, auto=True) for n, c in chosen.items()
        }
        records = {n: replace(r, candidate=chosen[n]) for n, r in records.items()}
        problem = replace(problem, installed=records)
    return {n: options.of(n, r.candidate) for n, r in problem.installed.items()}


def _satisfy(options: Options, wants: list[Want]) -> dict[str, Option] | NoChoice:
    """Choose so that the wants are met and what is installed goes on working."""
    while True:
        found = _search(options, wants)
        if not isinstance(found, dict) or options.problem.exact:
            return found
        there = {w.key for w in wants if w.kind in ("keep", "gone")}
        untouched = {n: o for n, o in _installed(options).items() if n not in there}
        chosen = Chosen(options, {**untouched, **found})
        if touched := sorted(chosen.broken() - there):
            wants = wants + [Want(n, "keep") for n in touched]
        elif unjustified := chosen.removed_needlessly():
            options.staying |= unjustified
        else:
            return chosen.packs


def _first(options: Options) -> list[str]:
    """Installed packs that take part from the beginning: those something newer may be had for."""
    problem = options.problem
    if problem.exact:
        names = {n for n, i in problem.installed.items() if i.held}
    else:
        names = {
            n
            for n in problem.upgrade & problem.installed.keys()
            if options.supplanted(n) or options.newest(n) is not options.own(n)
        }
    return sorted(names - problem.remove)


def _search(options: Options, wants: list[Want]) -> dict[str, Option] | NoChoice:
    from mbpm.resolver.search import search

    found = search(options, wants)
    if found is None:
        from mbpm.resolver.learn import learn

        return learn(options, wants)
    return found


def _add_recommended(options: Options, found: dict[str, Option]) -> dict[str, str]:
    """Add what fresh packs recommend, as far as it fits round everything else.

    Returns:
        Name -> why it was left out.
    """
    left_out: dict[str, str] = {}
    tried: set[tuple[str, str]] = set()
    while True:
        soft = [w for w in _recommended(options, found) if (w.key, w.wanted.text) not in tried]
        if not soft:
            return {n: reason for n, reason in left_out.items() if n not in found}
        tried |= {(w.key, w.wanted.text) for w in soft}
        if _add(options, found, soft) is None:
            continue
        for want in soft:
            reason = _add(options, found, [want])
            if reason is not None:
                left_out[want.key] = reason


def _recommended(options: Options, found: Mapping[str, Option]) -> list[Want]:
    problem = options.problem
    chosen = Chosen(options, found)
    soft = []
    for name, option in sorted(found.items()):
        assert option.candidate is not None
        record = problem.installed.get(name)
        wanted = dict(option.candidate.line.recommends)
        if record is not None and not problem.exact:
            for known in record.candidate.line.recommends:
                wanted.pop(known, None)
            if option.installed and name in options.asked:
                line = option.candidate.line
                wanted |= {n: line.requires[n] for n in option.broken if not n.startswith("__")}
        for other, text in wanted.items():
            want = Want(other, "need", requirement(text), by=option)
            if other not in problem.remove and not chosen.meeting(other, want.wanted):
                soft.append(want)
    return soft


def _add(options: Options, found: dict[str, Option], soft: list[Want]) -> str | None:
    """Add packs to `found` without touching what is there; the reason where that cannot be."""
    problem = options.problem
    there = {n: Installed(o.candidate, held=True) for n, o in found.items() if o.candidate}
    room = replace(
        problem,
        requests=(),
        installed=there,
        upgrade=frozenset(),
        remove=problem.remove | (problem.installed.keys() - found.keys()),
        removable=False,
        exact=False,
    )
    inner = Options(room, options.shelf)
    try:
        more = _satisfy(inner, [*roots(inner), *soft])
    except ResolutionError as error:
        return error.message
    if not isinstance(more, dict):
        from mbpm.resolver.refute import refute
        from mbpm.resolver.sentences import in_one_line

        return in_one_line(inner, refute(inner, more))
    for name in more.keys() - found.keys():
        candidate = more[name].candidate
        assert candidate is not None
        found[name] = options.of(name, candidate)
    return None
