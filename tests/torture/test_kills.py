"""Commands killed at random moments: the old generation or the new one, and nothing else."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest

from tests.torture.conftest import SHARDS
from tests.torture.runner import Torture
from tests.torture.world import World

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and SIGKILL")


def test_thirty_kills(things: World, place: Path) -> None:
    report = Torture(things, place, "suite").run(30)
    assert report.kills == 30 and report.undone and report.commands > 30


@pytest.mark.parametrize(
    ("links", "locks"),
    [(False, errno.ENOLCK), (True, errno.ENOSYS), (False, errno.EOPNOTSUPP)],
)
def test_a_few_kills_on_a_poor_file_system(
    things: World, place: Path, links: bool, locks: int
) -> None:
    assert Torture(things, place, "suite", links=links, locks=locks).run(3).kills == 3


@pytest.mark.torture
@pytest.mark.parametrize("shard", range(SHARDS))
def test_a_thousand_kills(
    things: World,
    place: Path,
    seed: str,
    kills: int,
    shard: int,
    record_property: Callable[[str, object], None],
) -> None:
    share = kills // SHARDS + (shard < kills % SHARDS)
    # every fifth home has a file system without links, every fifth one without locks
    locks = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)[shard % 3] if shard % 5 == 1 else None
    torture = Torture(things, place, f"{seed}/{shard}", links=shard % 5 != 2, locks=locks)
    report = torture.run(share)
    assert report.kills == share
    record_property("torture", asdict(report))
