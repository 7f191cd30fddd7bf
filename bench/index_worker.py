"""One job of `python -m bench index`, in a process of its own: `HOME URL JOB [NUMBER…]`.

    refresh             bring the cache up to date
    search TERMS…       find packs, several times
    resolve SEED…       choose versions for 30 packs each, several times; index files are here
    resolve-cold SEED   the same once, with no index file here
    resolve-ahead SEED  the same once, after fetching what it will need
    refuse SEED…        as `resolve`, with one more pack that cannot be there with the others

Prints one JSON object: seconds, and what came of it.
"""

from __future__ import annotations

import json
import random
import sqlite3
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from bench.many_packs import PACKS, VERSIONS, name_of, newest

if TYPE_CHECKING:
    from mbpm.resolver import Problem, Request

ROUNDS = 7
ASKED = 30
FIRST = 1000
"""Packs below are what others require."""


def asked(seed: int) -> list[int]:
    """The packs of one request."""
    chance = random.Random(seed)
    return [chance.randrange(FIRST, PACKS) for _ in range(ASKED)]


def main(home_path: Path, url: str, job: str, numbers: list[str]) -> dict[str, Any]:
    """Do the job."""
    from mbpm.catalogue import Catalogue
    from mbpm.fetch.network import Network
    from mbpm.home import Home
    from mbpm.registries import remote
    from mbpm.registries.cache import folder_of

    # a benchmark that takes longer than ten minutes is still one
    remote.FRESH_SECONDS = 1e9
    home = Home(home_path)
    if job == "refresh":
        return _refresh(home_path, url)
    if job == "search":
        return _search(Catalogue.open(home, Network(), [url]), numbers)
    seeds = [int(n) for n in numbers]
    if job.startswith("resolve-"):
        with sqlite3.connect(folder_of(home_path, url) / "index.sqlite") as db:
            db.execute("DELETE FROM files")
        ahead = job == "resolve-ahead"
        return _resolve(Catalogue.open(home, Network(), [url]), seeds[0], ahead=ahead)
    found = []
    for seed in seeds:
        work = _refuse if job == "refuse" else _resolve
        runs = [work(Catalogue.open(home, Network(), [url]), seed) for _ in range(ROUNDS)]
        middle = sorted(runs, key=lambda run: run["processor"])[ROUNDS // 2]
        found.append({**middle, "seed": seed})
    return {"requests": found}


def _refresh(home: Path, url: str) -> dict[str, Any]:
    from mbpm.fetch.network import Network
    from mbpm.registries.config import Known
    from mbpm.registries.remote import RemoteRegistry

    def quiet(text: str) -> None:
        """Nobody is watching."""

    source = RemoteRegistry(Known("many", url, 50), home, Network(), warn=quiet, note=quiet)
    start = time.perf_counter()
    result = source.refresh()
    return {"seconds": time.perf_counter() - start, **vars(result)}


def _search(catalogue: Any, terms: list[str]) -> dict[str, Any]:
    from mbpm.registries.query import Query

    found = {}
    for text in terms:
        query = Query(tuple(text.split()))
        taken, processor = [], []
        for _ in range(ROUNDS):
            start, busy = time.perf_counter(), time.process_time()
            _, total = catalogue.search(query, 50)
            taken.append(time.perf_counter() - start)
            processor.append(time.process_time() - busy)
        found[text] = {"seconds": median(taken), "processor": median(processor), "total": total}
    return found


def _problem(catalogue: Any, requests: Iterable[Request]) -> Problem:
    from mbpm.resolver import Problem

    return Problem(
        requests=tuple(requests),
        installed={},
        lookup=catalogue.candidates,
        providers=catalogue.providers,
        bases={o.card.fingerprint: o.card.name for o in catalogue.bases()},
        hardware={},
    )


def _refuse(catalogue: Any, seed: int) -> dict[str, Any]:
    """Ask for the newest version of a pack that insists on another, and for that one as it was."""
    from mbpm.resolver import Request, resolve
    from specs.errors import ResolutionError
    from specs.versions import Requirement

    insists, other = next(
        (n, other)
        for n in asked(seed)
        for other, text in newest(n)["requires"].items()
        if text == "^3"
    )
    wanted = [Request(name_of(n)) for n in asked(seed) if n != insists]
    wanted += [
        Request(name_of(insists), Requirement(f"={VERSIONS[-1]}")),
        Request(other, Requirement("1")),
    ]
    start, processor = time.perf_counter(), time.process_time()
    try:
        resolve(_problem(catalogue, wanted))
    except ResolutionError as error:
        told = f"{error.message} {error.hint}"
    taken, processor = time.perf_counter() - start, time.process_time() - processor
    return {"seconds": taken, "processor": processor, "told": told}


def _resolve(catalogue: Any, seed: int, *, ahead: bool = False) -> dict[str, Any]:
    from mbpm.resolver import Request, resolve

    names = [name_of(n) for n in asked(seed)]
    start, processor = time.perf_counter(), time.process_time()
    if ahead:
        catalogue.prefetch(names)
    solution = resolve(_problem(catalogue, map(Request, names)))
    taken, processor = time.perf_counter() - start, time.process_time() - processor
    versions = [c.line.version for c in solution.packs.values()]
    older = sum(v != VERSIONS[-1] for v in versions)
    return {"seconds": taken, "processor": processor, "packs": len(versions), "older": older}


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4:])))
