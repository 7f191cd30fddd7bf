"""Data sets of the Hugging Face hub, through huggingface_hub: data files only, at one commit.

Nothing of a data set is executed: its loading script, where it has one, is not even fetched. Files
lie in the user's own hub cache, as every tool of the hub puts them there.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from mbpm.files import check_space
from specs.errors import (
    AuthError,
    IntegrityError,
    MbpmError,
    NetworkError,
    NotFoundError,
    UsageError,
)
from specs.manifest import DataSource
from trainer.data.files import FORMATS, DataFile, find_files, is_data

if TYPE_CHECKING:
    from mbpm.state import State

FORM = "hf:OWNER/NAME[@REVISION][/PATH]"
MAX_FILES = 1000
_ADDRESS = re.compile(
    r"hf:(?P<repo>[\w.-]+/[\w.-]+)(?:@(?P<revision>refs/[\w.-]+/[\w.-]+|[\w.-]+))?(?:/(?P<path>.+))?"
)
_NOT_TRAINING = re.compile(
    r"(^|[/_.-])(test|validation|valid|val|dev|eval)([/_.-]|$)", re.IGNORECASE
)
_TRAINING = re.compile(r"(^|[/_.-])train(ing)?([/_.-]|$)", re.IGNORECASE)


@dataclass(frozen=True)
class Address:
    """A data set, or a file or folder of it."""

    repo: str
    revision: str
    path: str

    @classmethod
    def parse(cls, text: str) -> Address:
        """Read `hf:OWNER/NAME[@REVISION][/PATH]`.

        Raises:
            UsageError: it is not of that form.
        """
        match = _ADDRESS.fullmatch(text)
        if match is None or ".." in text:
            raise UsageError(f"`{text}` is no data set of the hub (expected `{FORM}`)")
        return cls(match["repo"], match["revision"] or "main", (match["path"] or "").rstrip("/"))

    def wants(self, name: str) -> bool:
        """Whether a file is meant; a README beside the data is not."""
        inside = not self.path or name == self.path or name.startswith(f"{self.path}/")
        place = PurePosixPath(name)
        return inside and is_data(place) and (name == self.path or place.stem.lower() != "readme")


def dataset_files(state: State, text: str, license: str) -> tuple[list[DataFile], DataSource]:
    """Fetch a data set's files, unless they are here, and check them.

    Where the files are named by splits and no PATH was given, only those for training are taken.

    Args:
        state: Whether there is a network, and who is told.
        text: `hf:OWNER/NAME[@REVISION][/PATH]`.
        license: What to record where the data set names none.

    Raises:
        UsageError: the address is wrong, or there is no data.
        NotFoundError, AuthError, NetworkError: as the hub answers.
        IntegrityError: a file is not what the hub says it is.
    """
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")
    from huggingface_hub import constants

    address = Address.parse(text)
    if state.offline or constants.HF_HUB_OFFLINE:
        return _cached(state, address, text, license)
    from huggingface_hub import HfApi, hf_hub_download
    from huggingface_hub.utils.tqdm import disable_progress_bars

    disable_progress_bars()
    endpoint = constants.ENDPOINT
    with told(text):
        info = HfApi(endpoint=endpoint).dataset_info(
            address.repo, revision=address.revision, files_metadata=True
        )
        commit = info.sha or ""
        siblings = {s.rfilename: s for s in info.siblings or ()}
        names = _chosen(state, address, sorted(siblings), text)
        check_space(Path(constants.HF_HUB_CACHE), sum(siblings[n].size or 0 for n in names), text)
        files = []
        for number, name in enumerate(names, 1):
            state.out.note(f"fetching {name} of {address.repo} ({number} of {len(names)})")
            path = Path(
                hf_hub_download(
                    address.repo,
                    name,
                    repo_type="dataset",
                    revision=address.revision,
                    endpoint=endpoint,
                    cache_dir=constants.HF_HUB_CACHE,
                )
            )
            if commit not in path.parts:
                raise NetworkError(
                    f"{text}: changed while it was fetched", hint="run the same command again"
                )
            lfs = siblings[name].lfs
            _check(path, lfs.sha256 if lfs else None, siblings[name].blob_id, f"{text}: {name}")
            files.append(_file(address, path, name))
    named = getattr(info.card_data, "license", None)
    if isinstance(named, list):
        named = " AND ".join(map(str, named))
    return files, _record(address, commit, str(named) if named else license)


def _cached(
    state: State, address: Address, text: str, license: str
) -> tuple[list[DataFile], DataSource]:
    from huggingface_hub import constants

    repo = "datasets--" + address.repo.replace("/", "--")
    folder = Path(constants.HF_HUB_CACHE) / repo
    ref = folder / "refs" / address.revision
    commit = ref.read_text("utf-8").strip() if ref.is_file() else address.revision
    snapshot = folder / "snapshots" / commit
    found = find_files(snapshot) if re.fullmatch("[0-9a-f]+", commit) and snapshot.is_dir() else []
    if not any(address.wants(f.group) for f in found):
        switch = "--offline" if state.offline else "HF_HUB_OFFLINE"
        raise NetworkError(
            f"{text}: is not in the hub's cache, and the network is switched off (`{switch}`)"
        )
    names = _chosen(state, address, [f.group for f in found], text)
    files = [_file(address, f.path, f.group) for f in found if f.group in names]
    return files, _record(address, commit, license)


def _file(address: Address, path: Path, name: str) -> DataFile:
    return DataFile.of(path, f"hf:{address.repo}/{name}", name)


def _record(address: Address, commit: str, license: str) -> DataSource:
    note = f"files under {address.path}" if address.path else ""
    return DataSource(name=f"hf:{address.repo}", version=commit, license=license, note=note)


def _chosen(state: State, address: Address, names: list[str], text: str) -> list[str]:
    found = [name for name in names if address.wants(name)]
    if not found:
        raise UsageError(
            f"{text}: holds no data that can be read (expected files in {FORMATS})",
            hint=f"a converted copy may be at `hf:{address.repo}@refs/convert/parquet`",
        )
    if len(found) > MAX_FILES:
        raise UsageError(
            f"{text}: has {len(found):,} files, more than {MAX_FILES:,}", hint="name a folder of it"
        )
    training = [n for n in found if _TRAINING.search(n)]
    kept = [n for n in found if not _NOT_TRAINING.search(n)] if not address.path else found
    if training and len(kept) < len(found):
        state.out.note(f"{len(found) - len(kept)} files of other splits than training left out")
        return kept
    return found


def _check(path: Path, sha256: str | None, blob_id: str | None, where: str) -> None:
    """A large file has its SHA-256 at the hub, a small one Git's digest of a blob."""
    if sha256 is not None:
        digest, expected = hashlib.sha256(), sha256
    elif blob_id is not None:
        digest = hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
        expected = blob_id
    else:
        raise IntegrityError(f"{where}: the hub gives no digest of it")
    with path.open("rb") as stream:
        while piece := stream.read(1 << 20):
            digest.update(piece)
    if digest.hexdigest() != expected:
        # what is wrong must not be what the next attempt finds
        path.resolve().unlink()
        raise IntegrityError(f"{where}: its bytes do not match the digest the hub gives")


@contextmanager
def told(text: str, what: str = "data set") -> Iterator[None]:
    """What huggingface_hub raises, as errors of ours; `what` is what the text names."""
    from huggingface_hub import errors

    try:
        yield
    except MbpmError:
        raise
    except errors.GatedRepoError:
        raise AuthError(
            f"{text}: is only for those who accepted its terms",
            hint="accept them on its page, then `hf auth login`",
        ) from None
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError) as error:
        kind = "revision" if isinstance(error, errors.RevisionNotFoundError) else what
        raise NotFoundError(
            f"{text}: there is no such {kind} at the hub, or it is private",
            hint="`hf auth login` for one that is",
        ) from None
    except errors.HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else 0
        kind_of = AuthError if status in (401, 403) else NetworkError
        raise kind_of(f"{text}: the hub answers {status}") from None
    except Exception as error:  # of whichever HTTP library this version of it uses
        reason = str(error).split("\n")[0][:200]
        raise NetworkError(f"{text}: cannot be fetched ({reason})") from None
