"""What a failure says, word for word: the chain of reasons and a hint that works."""

from __future__ import annotations

from typing import Any

import pytest
from inline_snapshot import snapshot

from mbpm.resolver import Installed, resolve
from specs.errors import IntegrityError, MbpmError, NotFoundError, ResolutionError
from specs.versions import Requirement, Version
from tests.support.universe import ELSEWHERE, NOWHERE, OLDER, pack, problem, several


def refusal(kind: type[MbpmError], *arguments: Any, **options: Any) -> str:
    with pytest.raises(kind) as caught:
        resolve(problem(*arguments, **options))
    assert type(caught.value) is kind
    return f"{caught.value.message}\nhint: {caught.value.hint}"


def test_no_such_version() -> None:
    offers = several("a", "1.9.0", "2.0.0")
    assert refusal(ResolutionError, offers, "a@3") == snapshot("""\
`a` cannot be installed: you ask for `a 3`, and there is no such version (`a` has 1.9.0 and 2.0.0)
hint: ask for `a@=2.0.0`\
""")


def test_direct_conflict() -> None:
    offers = [
        *several("a", "1.0.0", "1.1.0", requires={"c": "1"}),
        *several("b", "1.0.0", requires={"c": "2"}),
        *several("c", "1.0.0", "2.0.0"),
    ]
    assert refusal(ResolutionError, offers, "a", "b") == snapshot("""\
`a` and `b` cannot be installed together
  every version of `a` (1.0.0 and 1.1.0) requires `c 1`
  b 1.0.0 requires `c 2`
  so these cannot be together
hint: leave out `a`\
""")


def test_transitive_conflict() -> None:
    offers = [
        *several("a", "1.0.0", "1.1.0", "1.2.0", "1.3.0", "1.4.0", requires={"c": "^2"}),
        *several("a", "2.0.0", requires={"c": "^3"}),
        pack("b", "1.0.0", requires={"d": "1"}),
        *several("d", "1.0.0", "1.1.0", requires={"c": "^1"}),
        *several("c", "1.0.0", "2.0.0", "3.0.0"),
    ]
    assert refusal(ResolutionError, offers, "a@1", "b") == snapshot("""\
`a` and `b` cannot be installed together
  you ask for `a 1`
  every version of `a` that you allow (1.0.0 to 1.4.0) requires `c ^2`
  b 1.0.0 requires `d 1`
  every version of `d` (1.0.0 and 1.1.0) requires `c ^1`
  so these cannot be together
hint: leave out `a`\
""")


def test_versions_fall_for_different_reasons() -> None:
    offers = [
        pack("a", "1.0.0", yanked=True),
        pack("a", "1.1.0", requires={"c": "1"}),
        pack("a", "1.2.0", base=ELSEWHERE),
        pack("a", "1.3.0", requires={"__vram": ">=24"}),
        pack("a", "1.4.0", requires={"b": "<1"}),
        *several("b", "1.0.0", "2.0.0"),
    ]
    assert refusal(ResolutionError, offers, "a") == snapshot("""\
`a` cannot be installed
  a 1.3.0 needs `__vram >=24`, and this machine has none
  a 1.2.0 was made for base tiny (eeeeeeeeeeee), which no registry offers
  a 1.0.0 is yanked
  a 1.4.0 requires `b <1`, and there is no such version (`b` has 1.0.0 and 2.0.0)
  a 1.1.0 requires `c 1`, and no registry has `c`
  so no version of `a` is left
hint: `MBPM_OVERRIDE_VRAM=24` installs it anyway\
""")


def test_what_is_installed_keeps_its_word() -> None:
    guard = pack("guard", "1.0.0", requires={"a": "<1.5"})
    offers = [*several("a", "1.0.0", "1.4.2", "1.5.0"), guard]
    installed = [offers[0], guard]
    assert refusal(ResolutionError, offers, "a@=1.5.0", installed=installed) == snapshot("""\
`a` cannot be installed beside guard 1.0.0
  you ask for `a =1.5.0`
  guard 1.0.0 requires `a <1.5`
  so these cannot be together
hint: ask for `a@=1.4.2`\
""")


def test_installed_pack_is_in_the_way() -> None:
    guard = pack("guard", "1.0.0", requires={"c": "1"})
    offers = [pack("a", "1.0.0", requires={"c": "2"}), *several("c", "1.0.0", "2.0.0"), guard]
    installed = [offers[1], guard]
    assert refusal(ResolutionError, offers, "a", installed=installed) == snapshot("""\
`a` cannot be installed beside guard 1.0.0
  a 1.0.0 requires `c 2`
  guard 1.0.0 requires `c 1`
  so these cannot be together
hint: `mbpm remove guard` makes room\
""")


def test_held() -> None:
    offers = several("a", "1.0.0", "2.0.0")
    held = Installed(offers[0], held=True)
    assert refusal(ResolutionError, offers, "a@2", installed=[held]) == snapshot("""\
`a` cannot be installed
  you ask for `a 2`
  a is held at 1.0.0
  so no version of `a` is left
hint: `mbpm unhold a` lets it change\
""")


def test_held_dependency() -> None:
    offers = [*several("c", "1.0.0", "2.0.0"), pack("a", "1.0.0", requires={"c": "2"})]
    held = Installed(offers[0], held=True)
    assert refusal(ResolutionError, offers, "a", installed=[held]) == snapshot("""\
`a` cannot be installed
  a 1.0.0 requires `c 2`
  c is held at 1.0.0
  so no version of `a` is left
hint: `mbpm unhold c` lets it change\
""")


def test_pinned() -> None:
    offers = several("a", "1.0.0", "1.0.7", "1.2.0", "2.0.0")
    pinned = Installed(offers[0], pin=Requirement("~1.0"))
    assert refusal(ResolutionError, offers, "a@>=1.1", installed=[pinned]) == snapshot("""\
`a` cannot be installed
  you ask for `a >=1.1`
  a is pinned to `~1.0`
  so no version of `a` is left
hint: `mbpm unpin a` lets it change\
""")


def test_yanked_only() -> None:
    offers = several("a", "1.0.0", "1.1.0", "1.2.0", yanked=True)
    assert refusal(ResolutionError, offers, "a") == snapshot("""\
`a` cannot be installed: every version of `a` (1.0.0 to 1.2.0) is yanked
hint: `mbpm show a` lists its versions\
""")


def test_pre_release_only() -> None:
    assert refusal(ResolutionError, several("a", "2.0.0-rc.1", "2.0.0-rc.2"), "a") == snapshot("""\
`a` cannot be installed: every version of `a` (2.0.0-rc.1 and 2.0.0-rc.2) is a pre-release
hint: ask for `a@=2.0.0-rc.2`, or give `--pre`\
""")


def test_pre_release_of_a_dependency() -> None:
    offers = [pack("a", "1.0.0", requires={"b": "2"}), *several("b", "1.0.0", "2.1.0-beta.3")]
    assert refusal(ResolutionError, offers, "a") == snapshot("""\
`a` cannot be installed: a 1.0.0 requires `b 2`, and b 2.1.0-beta.3 is a pre-release
hint: `--pre` lets pre-releases in\
""")


def test_missing_dependency() -> None:
    offers = [pack("b", "1.0.0", requires={"a": "1"})]
    assert refusal(ResolutionError, offers, "b") == snapshot("""\
`b` cannot be installed: b 1.0.0 requires `a 1`, and no registry has `a`
hint: `--registry` names a registry that has `a`\
""")


def test_missing_dependency_of_a_folder() -> None:
    folder = pack("b", "1.0.0", requires={"a": "1"})
    assert refusal(ResolutionError, [], folder) == snapshot("""\
`b` cannot be installed: b 1.0.0 requires `a 1`, and no registry has `a`
hint: did you mean `another`?\
""")


def test_missing_request() -> None:
    assert refusal(NotFoundError, [], "b") == snapshot("""\
no pack `b`
hint: did you mean `another`?\
""")


def test_two_bases_of_one_name() -> None:
    offers = [pack("a", "1.0.0"), pack("b", "1.0.0", OLDER)]
    assert refusal(ResolutionError, offers, "a", "b") == snapshot("""\
`a` and `b` cannot be installed together
  a 1.0.0 was made for another base tiny (aaaaaaaaaaaa)
  b 1.0.0 was made for base tiny (000000000000)
  so these cannot be together
hint: leave out `a`\
""")


def test_base_nobody_offers() -> None:
    offers = several("a", "1.0.0", "2.0.0", base=ELSEWHERE)
    assert refusal(IntegrityError, offers, "a@2") == snapshot("""\
`a` cannot be installed
  you ask for `a 2`
  a 2.0.0 was made for base tiny (eeeeeeeeeeee), which no registry offers
  so no version of `a` is left
hint: `mbpm base list` shows the bases there are\
""")


def test_base_of_a_dependency_nobody_offers() -> None:
    offers = [pack("a", "1.0.0", requires={"b": "1"}), pack("b", "1.0.0", NOWHERE)]
    assert refusal(IntegrityError, offers, "a") == snapshot("""\
`a` cannot be installed
  a 1.0.0 requires `b 1`
  b 1.0.0 was made for base rare (ffffffffffff), which no registry offers
  so no version of `a` is left
hint: `mbpm base list` shows the bases there are\
""")


def test_too_small_a_machine() -> None:
    offers = [pack("a", "1.0.0", requires={"__vram": ">=16", "__ram": ">=32"})]
    hardware = {"__ram": Version("15.6.0")}
    assert refusal(ResolutionError, offers, "a", hardware=hardware) == snapshot("""\
`a` cannot be installed: a 1.0.0 needs `__vram >=16`, and this machine has none
hint: `MBPM_OVERRIDE_VRAM=16 MBPM_OVERRIDE_RAM=32` installs it anyway\
""")


def test_virtual_name_without_provider() -> None:
    offers = [pack("court", "1.0.0", requires={"legal": "*"})]
    assert refusal(ResolutionError, offers, "court") == snapshot("""\
`court` cannot be installed: court 1.0.0 requires `legal`, and no registry has `legal`
hint: `--registry` names a registry that has `legal`\
""")


def test_virtual_name_has_no_version() -> None:
    offers = [
        pack("court", "1.0.0", requires={"legal": "1"}),
        pack("law", "1.0.0", provides=("legal",)),
    ]
    assert refusal(ResolutionError, offers, "court") == snapshot("""\
`court` cannot be installed: court 1.0.0 requires `legal 1`, and `law` provides it without a version
hint: `--registry` names a registry that has `legal`\
""")


def test_virtual_name_is_asked_for() -> None:
    offers = several("law", "1.0.0", provides=("legal",))
    assert refusal(NotFoundError, offers, "legal") == snapshot("""\
no pack is called `legal`; it is provided by `law`
hint: `mbpm install law`\
""")


def test_declared_conflict() -> None:
    offers = [pack("a", "1.0.0", conflicts={"b": "<2"}), *several("b", "1.0.0", "2.0.0")]
    assert refusal(ResolutionError, offers, "a", "b@1") == snapshot("""\
`a` and `b` cannot be installed together
  you ask for `b 1`
  a 1.0.0 conflicts with b 1.0.0
  so these cannot be together
hint: ask for `b@=2.0.0`\
""")


def test_declared_conflict_with_what_is_installed() -> None:
    offers = [pack("a", "1.0.0", conflicts={"b": "*"}), pack("b", "1.0.0")]
    assert refusal(ResolutionError, offers, "a", installed=offers[1:]) == snapshot("""\
`a` cannot be installed beside b 1.0.0: a 1.0.0 conflicts with b 1.0.0
hint: `mbpm remove b` makes room\
""")


def test_conflict_with_a_virtual_name() -> None:
    offers = [
        pack("a", "1.0.0", conflicts={"legal": "*"}),
        *several("law", "1.0.0", "1.1.0", provides=("legal",)),
    ]
    assert refusal(ResolutionError, offers, "a", "law") == snapshot("""\
`a` and `law` cannot be installed together: a 1.0.0 conflicts with `legal`, which `law` provides
hint: leave out `a`\
""")


def test_replacement_nobody_asked_for() -> None:
    offers = [
        pack("old", "1.0.0"),
        pack("new", "2.0.0", replaces={"old": "*"}),
        pack("a", "1.0.0", requires={"new": "2"}),
    ]
    assert refusal(ResolutionError, offers, "a", installed=offers[:1]) == snapshot("""\
`a` cannot be installed beside old 1.0.0
  a 1.0.0 requires `new 2`
  new 2.0.0 replaces old 1.0.0
  so these cannot be together
hint: name `new` too, which takes the place of old\
""")


def test_replacing_what_a_version_is_required_of() -> None:
    user = pack("user", "1.0.0", requires={"old": "1"})
    offers = [pack("old", "1.0.0"), pack("new", "2.0.0", replaces={"old": "*"}), user]
    installed = [offers[0], user]
    assert refusal(ResolutionError, offers, "new", installed=installed) == snapshot("""\
`new` cannot be installed beside user 1.0.0
  new 2.0.0 replaces old 1.0.0
  user 1.0.0 requires `old 1`
  so these cannot be together
hint: `mbpm remove user` makes room\
""")


def test_circle_that_does_not_close() -> None:
    offers = [
        pack("a", "1.0.0", requires={"b": "1"}),
        pack("b", "1.0.0", requires={"c": "1"}),
        pack("c", "1.0.0", requires={"a": "2"}),
    ]
    assert refusal(ResolutionError, offers, "a") == snapshot("""\
`a` cannot be installed
  a 1.0.0 requires `b 1`
  b 1.0.0 requires `c 1`
  c 1.0.0 requires `a 2`, and there is no such version (`a` has 1.0.0)
  so no version of `a` is left
hint: `mbpm show c` lists its versions\
""")


def test_a_pack_contradicts_itself() -> None:
    offers = [
        pack("a", "1.0.0", requires={"b": "1", "c": "1"}),
        pack("b", "1.0.0", requires={"c": "2"}),
        *several("c", "1.0.0", "2.0.0"),
    ]
    assert refusal(ResolutionError, offers, "a") == snapshot("""\
`a` cannot be installed
  a 1.0.0 requires `b 1`
  a 1.0.0 requires `c 1`
  b 1.0.0 requires `c 2`
  so no version of `a` is left
hint: `mbpm show c` lists its versions\
""")


def test_two_requests_of_one_name() -> None:
    offers = several("a", "1.0.0", "2.0.0")
    assert refusal(ResolutionError, offers, "a@1", "a@2") == snapshot("""\
`a` cannot be installed
  you ask for `a 1`
  you ask for `a 2`
  so no version of `a` is left
hint: ask for `a 1` alone\
""")


def test_removing_what_is_required() -> None:
    offers = [pack("a", "1.0.0"), pack("user", "1.0.0", requires={"a": "*"})]
    text = refusal(ResolutionError, offers, installed=offers, remove=frozenset(["a"]))
    assert text == snapshot("""\
`a` cannot be removed: user 1.0.0 requires `a`
hint: `mbpm remove user` makes room\
""")


def test_three_that_exclude_each_other_in_pairs() -> None:
    names = ["p", "q", "r"]
    offers = [
        pack(n, f"{i}.0.0", conflicts={m: f"{i}" for m in names if m != n})
        for n in names
        for i in (1, 2)
    ]
    assert refusal(ResolutionError, offers, *names) == snapshot("""\
`p`, `q` and `r` cannot be installed together
  q 1.0.0 conflicts with p 1.0.0
  r 1.0.0 conflicts with p 1.0.0
  r 2.0.0 conflicts with q 2.0.0
  with p 2.0.0:
    q 2.0.0 conflicts with p 2.0.0
    r 2.0.0 conflicts with p 2.0.0
    r 1.0.0 conflicts with q 1.0.0
  so these cannot be together
hint: leave out `p`\
""")


def test_only_what_matters_is_told() -> None:
    crowd = [pack(f"x{i}", "1.0.0", requires={"y": "*"}) for i in range(20)]
    offers = [
        *crowd,
        *several("y", "1.0.0", "2.0.0"),
        pack("a", "1.0.0", requires={"c": "1"}),
        pack("b", "1.0.0", requires={"c": "2"}),
        *several("c", "1.0.0", "2.0.0"),
    ]
    asked = [c.line.name for c in crowd]
    assert refusal(ResolutionError, offers, *asked[:10], "a", *asked[10:], "b") == snapshot("""\
`a` and `b` cannot be installed together
  a 1.0.0 requires `c 1`
  b 1.0.0 requires `c 2`
  so these cannot be together
hint: leave out `a`\
""")
