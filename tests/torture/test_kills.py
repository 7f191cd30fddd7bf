"""Commands killed at random moments: the old generation or the new one, and nothing else."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest

from tests.torture.conftest import SHARDS
from tests.torture.runner import Torture
from tests.torture.world import World

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and SIGKILL")


def test_thirty_kills(things: World, tmp_path: Path) -> None:
    report = Torture(things, tmp_path, "suite").run(30)
    assert report.kills == 30 and report.undone and report.commands > 30


@pytest.mark.torture
@pytest.mark.parametrize("shard", range(SHARDS))
def test_a_thousand_kills(
    things: World,
    tmp_path: Path,
    seed: str,
    kills: int,
    shard: int,
    record_property: Callable[[str, object], None],
) -> None:
    share = kills // SHARDS + (shard < kills % SHARDS)
    report = Torture(things, tmp_path, f"{seed}/{shard}").run(share)
    assert report.kills == share
    record_property("torture", asdict(report))
