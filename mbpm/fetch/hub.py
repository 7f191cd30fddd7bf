"""Blobs from Hugging Face repositories.

huggingface_hub knows the user's cache, the address and the token; the bytes are fetched as all are.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

from mbpm.fetch.files import from_file
from specs.blobs import HubSource
from specs.errors import MbpmError, NetworkError

if TYPE_CHECKING:
    from mbpm.fetch.job import Job


DATASETS = "datasets/"
"""What the address of a data set's repository begins with."""


def cached(source: HubSource) -> Path | None:
    """The file in the user's own hub cache, if it is there."""
    # read when it is first imported
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")
    from huggingface_hub import try_to_load_from_cache

    repo, sort = _repo(source)
    found = try_to_load_from_cache(repo, source.file, revision=source.revision, repo_type=sort)
    return Path(found) if isinstance(found, str) else None


def from_hub(source: HubSource, job: Job) -> None:
    """Take the file from the user's own hub cache, or fetch it as any other address.

    Nothing is left in that cache, and the download resumes as every other does.

    Raises:
        NetworkError: it is not cached and cannot be downloaded.
        NotFoundError, AuthError: the hub says so.
        IntegrityError: wrong bytes.
    """
    if (file := cached(source)) is not None:
        with contextlib.suppress(MbpmError):
            from_file(file, job)
        if not job.part.missing():
            return
    from huggingface_hub import constants, hf_hub_url

    from mbpm.fetch.ranges import from_url

    if job.network.offline or constants.HF_HUB_OFFLINE:
        switch = "`--offline`" if job.network.offline else "`HF_HUB_OFFLINE`"
        raise NetworkError(f"not in the hub's cache, and the network is switched off ({switch})")
    repo, sort = _repo(source)
    url = hf_hub_url(repo, source.file, revision=source.revision, repo_type=sort)
    from_url(url, job, authorization())


def authorization() -> dict[str, str]:
    """The header with the user's token for the hub, where there is one to be sent."""
    from huggingface_hub import constants, get_token

    token = None if constants.HF_HUB_DISABLE_IMPLICIT_TOKEN else get_token()
    return {"Authorization": f"Bearer {token}"} if token else {}


def _repo(source: HubSource) -> tuple[str, str | None]:
    """The repository and its type as huggingface_hub names them."""
    apart = source.repo.removeprefix(DATASETS)
    return apart, None if apart == source.repo else "dataset"
