"""A proof in words: who wants what, why versions fall, and what is left."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from mbpm.resolver.option import ANY, Clash, Option, phrase, unversioned
from mbpm.resolver.options import Options
from mbpm.resolver.refute import Fall, Refutation
from mbpm.resolver.wants import Want, allows
from specs.versions import Requirement

_PLURAL = {
    "is": "are",
    "was": "were",
    "needs": "need",
    "requires": "require",
    "conflicts": "conflict",
    "replaces": "replace",
    "does": "do",
}
MOST = 6
"""Versions that are listed one by one."""
MOST_REASONS = 30
"""Reasons that are told; more of them nobody reads."""


def message(options: Options, proof: Refutation) -> str:
    """What cannot be, and the chain of reasons below it."""
    story = _Story(options, proof)
    lines = story.lines()
    if len(lines) == 1:
        return f"{_headline(proof)}: {lines[0]}"
    together = len({w.key for w in proof.wants}) > 1
    asked = next((w.key for w in proof.wants), proof.name)
    end = "so these cannot be together" if together else f"so no version of `{asked}` is left"
    return "\n  ".join([_headline(proof), _cut("\n  ".join(lines), "\n  "), end])


def in_one_line(options: Options, proof: Refutation) -> str:
    """Why a pack that is recommended cannot be had beside what is chosen."""
    return _cut("; ".join(_Story(options, proof, settled=True).lines()), "; ")


def _cut(text: str, between: str) -> str:
    reasons = text.split(between)
    if len(reasons) <= MOST_REASONS:
        return text
    more = f"and {len(reasons) - MOST_REASONS:,} more reasons"
    return between.join([*reasons[:MOST_REASONS], more])


def _headline(proof: Refutation) -> str:
    asked = list(dict.fromkeys(f"`{w.key}`" for w in proof.wants if w.kind == "ask"))
    gone = list(dict.fromkeys(f"`{w.key}`" for w in proof.wants if w.kind == "gone"))
    kept = [str(_installed(proof, w.key)) for w in proof.wants if w.kind == "keep"]
    beside = f" beside {listed(kept)}" if kept and asked else ""
    if not asked and gone:
        return f"{listed(gone)} cannot be removed"
    if not asked:
        return f"{listed(kept)} cannot stay as it is" if kept else "nothing fits"
    without = f" without {listed(gone)}" if gone else ""
    together = " together" if len(asked) > 1 and not beside and not without else ""
    return f"{listed(asked)} cannot be installed{together}{beside}{without}"


def _installed(proof: Refutation, name: str) -> Option:
    return next(o for o in proof.domains[name] if o.installed)


def listed(words: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def span(chosen: Iterable[Option], of: Iterable[Option]) -> str:
    """Versions in words: one by one where they are few, as a range where none lies between."""
    every = sorted({o.version for o in of})
    versions = sorted({o.version for o in chosen})
    first, last = every.index(versions[0]), every.index(versions[-1])
    if len(versions) > 2 and last - first == len(versions) - 1:
        return f"{versions[0]} to {versions[-1]}"
    texts = [str(v) for v in versions]
    if len(texts) > MOST:
        texts = [*texts[: MOST - 1], f"{len(texts) - MOST + 1} more"]
    return listed(texts)


class _Story:
    def __init__(self, options: Options, proof: Refutation, *, settled: bool = False) -> None:
        self._options = options
        self._proof = proof
        self._settled = settled
        """Whether what is installed is what was chosen a moment ago."""
        self._order = {name: i for i, name in enumerate(proof.domains)}

    def lines(self) -> list[str]:
        """The sentences: what is wanted first, then pack by pack, as one leads to the other."""
        if not self._proof.falls:
            return ["the reasons are too many to tell"]
        return self._sorted(self._proof.falls)

    def _sorted(self, falls: Iterable[Fall]) -> list[str]:
        told = sorted(self._tell(falls), key=lambda t: (t[0], self._order.get(t[1], 0)))
        return list(dict.fromkeys(text for _, _, text in told))

    def _tell(self, falls: Iterable[Fall]) -> Iterator[tuple[int, str, str]]:
        """Whether it comes early or late, whose pack it is about, and the sentence."""
        groups: dict[tuple[object, ...], list[Fall]] = {}
        for fall in falls:
            groups.setdefault(_group(fall), []).append(fall)
        for group in groups.values():
            first = group[0]
            name = first.option.name
            if first.want is not None:
                yield from ((0, name, text) for text in self._wanted(first.want, group))
            elif first.why == "excluded":
                yield from ((1, name, text) for text in self._excluded(group))
            elif first.why == "case":
                inner = self._sorted(first.inner)
                below = "; ".join(inner) if self._settled else "\n    ".join(["", *inner])
                yield 2, name, f"with {first.option}: {below}".replace(": \n", ":\n")
            elif first.why == "clash":
                yield from ((1, *told) for told in self._clashing(group))

    # who says what

    def _packs(self, name: str) -> list[Option]:
        return [o for o in self._proof.domains.get(name, ()) if o.candidate is not None]

    def _say(self, name: str, speakers: Iterable[Option], what: str) -> str:
        """`a 1.0.0 requires b`, `every version of a (1.0.0 to 1.4.0) requires b`."""
        packs = self._packs(name)
        said = [o for o in packs if o in set(speakers)]
        if len(said) == 1:
            return f"{said[0]} {what}"
        if len(said) == len(packs):
            return f"every version of `{name}` ({span(said, packs)}) {what}"
        asks = [w for w in self._proof.wants if w.kind == "ask" and w.key == name]
        others = [o for o in packs if o not in said]
        if all(any(not allows(w, o, self._options) for w in asks) for o in others):
            return f"every version of `{name}` that you allow ({span(said, packs)}) {what}"
        verb, _, rest = what.partition(" ")
        return f"{name} {span(said, packs)} {_PLURAL.get(verb, verb)} {rest}"

    def _wanted(self, want: Want, group: Sequence[Fall]) -> Iterator[str]:
        name = want.key
        early = [f.option for f in group if _only_early(f.option, want.wanted)]
        tail = self._no_such(name, want.wanted)
        if want.kind == "ask" and want.digest is not None:
            mine = next(o for o in self._packs(name) if _is(o, want))
            if len(self._packs(name)) > 1:
                yield f"you ask for {mine}"
        elif want.kind == "ask" and want.wanted is not ANY:
            yield f"you ask for {phrase(name, want.wanted)}{tail}"
        elif want.kind == "need" and want.by is not None and (tail or not unversioned(want.wanted)):
            yield f"{want.by} recommends {phrase(name, want.wanted)}{tail}"
        if early:
            yield self._say(name, early, "is a pre-release")

    def _excluded(self, group: Sequence[Fall]) -> Iterator[str]:
        reasons: dict[str, list[Option]] = {}
        for fall in group:
            assert fall.option.excluded is not None
            reasons.setdefault(fall.option.excluded.what, []).append(fall.option)
        for what, speakers in reasons.items():
            name, excluded = speakers[0].name, speakers[0].excluded
            if excluded is not None and excluded.kind in ("held", "pinned"):
                own = self._options.own(name)
                yield f"{own} is chosen" if self._settled else f"{name} {what}"
            else:
                yield self._say(name, speakers, what)

    def _clashing(self, group: Sequence[Fall]) -> Iterator[tuple[str, str]]:
        """What makes options of one name fall beside what is left for another."""
        said: dict[tuple[str, str], dict[Option, None]] = {}
        for fall in group:
            for other in fall.left:
                clash = self._options.clash(fall.option, other)
                if clash is not None:
                    against = other if clash.by is fall.option else fall.option
                    for speaker, what in self._phrase(clash, against):
                        said.setdefault((speaker.name, what), {})[speaker] = None
        for (name, what), speakers in said.items():
            if next(iter(speakers)).via is not None:
                yield name, what
            else:
                yield name, self._say(name, speakers, what)

    def _phrase(self, clash: Clash, other: Option) -> Iterator[tuple[Option, str]]:
        name = clash.name
        wanted = phrase(name, clash.wanted)
        if clash.kind == "requires":
            yield clash.by, f"requires {wanted}" + self._no_such(name, clash.wanted)
        elif clash.kind == "base":
            yield clash.by, f"was made for {self._base(clash.by)}"
            yield other, f"was made for another {self._base(other)}"
        elif clash.kind == "stands":
            assert clash.by.via is not None
            if other.candidate is None:
                yield clash.by, f"`{clash.by.name}` is only provided by {clash.by.via}"
            else:
                yield other, f"does not provide `{clash.by.name}`"
        else:
            verb = "replaces" if clash.kind == "replaces" else "conflicts with"
            if name != other.name:
                yield clash.by, f"{verb} `{name}`, which `{other.name}` provides"
            else:
                alone = len(self._met(name, clash.wanted)) == 1
                yield clash.by, f"{verb} {other if alone else wanted}"

    def _base(self, option: Option) -> str:
        assert option.candidate is not None
        fingerprint = option.candidate.line.base.fingerprint
        return f"base {self._options.base_name(option)} ({fingerprint[:12]})"

    def _met(self, name: str, wanted: Requirement) -> list[Option]:
        return [o for o in self._packs(name) if wanted.admits(o.version, prereleases=True)]

    def _no_such(self, name: str, wanted: Requirement) -> str:
        """What to add where nothing at all is what somebody wants."""
        packs = self._packs(name)
        others = [o for o in self._proof.domains.get(name, ()) if o.via is not None]
        if not packs and not others:
            return f", and no registry has `{name}`"
        if self._met(name, wanted) or (others and unversioned(wanted)):
            early = [o for o in self._met(name, wanted) if not wanted.admits(o.version)]
            if early and len(early) == len(self._met(name, wanted)) and not others:
                are = "is a pre-release" if len(early) == 1 else "are pre-releases"
                return f", and {name} {span(early, packs)} {are}"
            return ""
        if packs:
            texts = [str(o.version) for o in reversed(packs)]
            has = listed(texts) if len(texts) <= MOST else f"{texts[0]} to {texts[-1]}"
            return f", and there is no such version (`{name}` has {has})"
        provided = listed([f"`{o.via}`" for o in others])
        verb = "provides" if len(others) == 1 else "provide"
        return f", and {provided} {verb} it without a version"


def _group(fall: Fall) -> tuple[object, ...]:
    if fall.want is not None:
        return ("want", fall.want)
    if fall.why == "excluded":
        return ("excluded", fall.option.name)
    if fall.why == "case":
        return ("case", fall)
    return (fall.why, fall.by, fall.option.name)


def _is(option: Option, want: Want) -> bool:
    return option.candidate is not None and option.candidate.line.manifest == want.digest


def _only_early(option: Option, wanted: Requirement) -> bool:
    """Whether a version would do if it were no pre-release."""
    if option.candidate is None or option.version.prerelease is None:
        return False
    return wanted.admits(option.version, prereleases=True) and not wanted.admits(option.version)
