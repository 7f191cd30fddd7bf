"""Index files of a remote registry: fetched when they are asked for, valid while the summary names
their digest."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, NamedTuple

from pydantic import ValidationError

from mbpm.fetch import limits
from registry_index.tree import INDEX_DIR, index_path, parse_index, split_lines
from specs.errors import IntegrityError, MbpmError, NetworkError, NotFoundError
from specs.index_line import IndexLine
from specs.summary import MAX_INDEX_BYTES

if TYPE_CHECKING:
    from mbpm.fetch.network import Document, Network
    from mbpm.registries.cache import Cache

MAX_AHEAD = 1000
"""Index files fetched before anybody asked for them, at most."""
AHEAD_BYTES = 32 * 1024 * 1024
"""Bytes of such files of one wave, which are in memory together."""
GROWN_BYTES = 64 * 1024
"""How much longer one may have become since the summary was written."""
MAX_WAVES = 12
NEWEST = 3
"""Versions whose requirements are looked at for that."""
BARE_SECONDS = 600.0
"""How long an index file of a registry without summary is believed not to have changed."""


Read = dict[str, tuple[str, Sequence[IndexLine]]]
"""Name -> digest and lines of an index file."""


class _Ref(NamedTuple):
    name: str
    digest: str
    size: int


class Indexes:
    """The index files of one registry."""

    def __init__(
        self,
        cache: Cache,
        network: Network,
        address: str,
        again: Callable[[], None],
        read: Read,
    ) -> None:
        """
        Args:
            cache: What is here, with a summary that is fresh enough.
            network: The way there.
            address: The registry.
            again: Refreshes the summary now.
            read: Index files that this command has read before.
        """
        self._cache = cache
        self._network = network
        self._address = address
        self._again = again
        self._read = read

    def lines(self, name: str) -> Sequence[IndexLine]:
        """See `Source.lines`."""
        if self._cache.meta("root") is None:
            return self._bare(name)
        ref = self._ref(name)
        if (known := self._known(ref)) is not None:
            return known
        self._insist(name)
        if self._read:
            # who looks at a second pack is choosing versions, and will want what this one requires
            self.prefetch([name])
            if (known := self._known(ref)) is not None:
                return known
        raw = self._fetched(ref)
        self._keep(ref, raw)
        return self._parsed(ref, raw)

    def _known(self, ref: _Ref) -> Sequence[IndexLine] | None:
        """The lines of an index file that is here."""
        digest, lines = self._read.get(ref.name, ("", ()))
        if digest == ref.digest:
            return lines
        raw = self._here(ref)
        return None if raw is None else self._parsed(ref, raw)

    def _parsed(self, ref: _Ref, raw: bytes) -> Sequence[IndexLine]:
        lines = parse_checked(raw, ref.name, self._url(ref.name))
        self._read[ref.name] = (hashlib.sha256(raw).hexdigest(), lines)
        return lines

    def _url(self, name: str) -> str:
        return f"{self._address}/{INDEX_DIR}/{index_path(name).as_posix()}"

    def _insist(self, name: str) -> None:
        if self._network.offline:
            raise NetworkError(
                f"the index file of `{name}` is not cached of {self._address}, and the network is "
                "switched off (`--offline`)",
                hint=f"run `mbpm show {name}` once without `--offline`",
            )

    def _ref(self, name: str) -> _Ref:
        """What the summary says of a pack's index file.

        Raises:
            NotFoundError: the registry has no such pack.
            IntegrityError: it cannot be known, because a line of the summary is malformed.
        """
        found = self._refs([name])
        if found:
            return found[0]
        from specs.summary import page_of

        with self._cache.guarded() as db:
            (pages,) = db.execute("SELECT count(*) FROM pages").fetchone()
            rows = db.execute(
                "SELECT message FROM problems WHERE name = ? OR (name IS NULL AND page = ?)",
                (name, page_of(name, pages)),
            ).fetchone()
        if rows is not None:
            # a damaged entry must not send anybody to another registry for this name
            raise IntegrityError(rows[0], hint=f"tell whoever runs {self._address}")
        raise NotFoundError(
            f"no pack `{name}` in the registry {self._address}",
            hint="`mbpm search` lists the packs there are",
        )

    def _refs(self, names: Iterable[str]) -> list[_Ref]:
        one = "SELECT name, digest, bytes FROM packs WHERE name = ?"
        with self._cache.guarded() as db:
            rows = [db.execute(one, (name,)).fetchone() for name in names]
        return [_Ref(*row) for row in rows if row is not None]

    def _here(self, ref: _Ref) -> bytes | None:
        with self._cache.guarded() as db:
            ask = "SELECT raw FROM files WHERE name = ? AND digest = ?"
            row = db.execute(ask, (ref.name, ref.digest)).fetchone()
        if row is None or hashlib.sha256(row[0]).hexdigest() != ref.digest:
            return None
        return bytes(row[0])

    def _keep(self, ref: _Ref, raw: bytes) -> None:
        """Keep an index file whose lines were checked."""
        digest = hashlib.sha256(raw).hexdigest()
        with self._cache.guarded() as db:
            db.execute(
                "INSERT OR REPLACE INTO files (name, digest, raw) VALUES (?, ?, ?)",
                (ref.name, digest, raw),
            )

    def _fetched(self, ref: _Ref) -> bytes:
        """An index file as the summary knows it, its lines checked."""
        raw = self._get(ref)
        fitting = _fitting(ref, raw)
        if fitting is None:
            # published a moment ago: the summary will say so too
            self._again()
            ref = self._ref(ref.name)
            fitting = _fitting(ref, raw) or _fitting(ref, self._get(ref))
        if fitting is None:
            raise IntegrityError(
                f"{self._url(ref.name)}: is not what the registry's summary says",
                hint="try again in a minute; if it stays so, tell whoever runs the registry: "
                "`python -m registry_index summarise DIRECTORY` mends it",
            )
        parse_index(fitting, ref.name, self._url(ref.name))
        return fitting

    def _get(self, ref: _Ref, limit: int = MAX_INDEX_BYTES) -> bytes:
        data = self._network.get(self._url(ref.name), limit=limit).data
        assert data is not None
        return data

    def prefetch(self, names: Sequence[str]) -> None:
        """Fetch what is missing of these packs and of what their newest versions require, many at
        once; what cannot be had is left for when it is asked for."""
        if self._cache.meta("root") is None:
            return
        seen: set[str] = set()
        wave = list(names)
        for _ in range(MAX_WAVES):
            wave = [n for n in dict.fromkeys(wave) if n not in seen][: MAX_AHEAD - len(seen)]
            if not wave:
                return
            seen.update(wave)
            refs = self._refs(wave)
            here = {ref: self._known(ref) for ref in refs}
            missing = list(_fitting_in([ref for ref in refs if here[ref] is None], AHEAD_BYTES))
            for ref, raw in zip(missing, self._tried(missing), strict=True):
                if raw is not None:
                    self._keep(ref, raw)
                    here[ref] = self._parsed(ref, raw)
            lines = [line for known in here.values() for line in (known or ())[-NEWEST:]]
            wave = [name for line in lines for name in line.requires]

    def _tried(self, refs: Sequence[_Ref]) -> list[bytes | None]:
        if len(refs) < 2:
            return [self._try(ref) for ref in refs]
        with ThreadPoolExecutor(limits.CONNECTIONS) as pool:
            return list(pool.map(self._try, refs))

    def _try(self, ref: _Ref) -> bytes | None:
        try:
            raw = _fitting(ref, self._get(ref, ref.size + GROWN_BYTES))
            if raw is not None:
                parse_index(raw, ref.name, self._url(ref.name))
            return raw
        except MbpmError:
            return None

    def _bare(self, name: str) -> Sequence[IndexLine]:
        """The lines of a pack in a registry that has no summary."""
        with self._cache.guarded() as db:
            ask = "SELECT raw, etag, modified, checked FROM files WHERE name = ?"
            row = db.execute(ask, (name,)).fetchone()
        raw, etag, modified, checked = row or (None, None, None, None)
        recent = isinstance(checked, float) and 0 <= time.time() - checked < BARE_SECONDS
        if raw is None:
            self._insist(name)
        if raw is None or not (recent or self._network.offline):
            raw = self._bare_fetched(name, raw, etag, modified)
        return parse_checked(raw, name, self._url(name))

    def _bare_fetched(
        self, name: str, old: bytes | None, etag: str | None, modified: str | None
    ) -> bytes:
        url = self._url(name)
        if old is None:
            etag = modified = None
        try:
            document: Document = self._network.get(
                url, limit=MAX_INDEX_BYTES, etag=etag, modified=modified
            )
        except NotFoundError:
            raise NotFoundError(
                f"no pack `{name}` in the registry {self._address}",
                hint="this registry has no summary: it knows only names that are spelled exactly",
            ) from None
        raw = document.data
        if raw is None:
            assert old is not None
            raw = old
        else:
            parse_index(raw, name, url)
        with self._cache.guarded() as db:
            db.execute(
                "INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?, ?)",
                (
                    name,
                    hashlib.sha256(raw).hexdigest(),
                    raw,
                    document.etag,
                    document.modified,
                    time.time(),
                ),
            )
        return raw


def _fitting_in(refs: Iterable[_Ref], room: int) -> Iterator[_Ref]:
    """As many index files as have room together."""
    for ref in refs:
        if ref.size <= room:
            room -= ref.size
            yield ref


def _fitting(ref: _Ref, raw: bytes) -> bytes | None:
    """The part of an index file that the summary vouches for: all of it, or all but the lines that
    were added since."""
    for known in (raw, raw[: ref.size]):
        if hashlib.sha256(known).hexdigest() == ref.digest:
            return known
    return None


def parse_checked(raw: bytes, name: str, where: str) -> Sequence[IndexLine]:
    """The lines of an index file that `parse_index` accepted before; much faster."""
    try:
        return [IndexLine.model_validate_json(text) for text in split_lines(raw)]
    except ValidationError:
        # lines of a newer format are among them
        return parse_index(raw, name, where).lines
