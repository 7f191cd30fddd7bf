"""Blobs from Hugging Face repositories, through huggingface_hub."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

from mbpm.files import check_space, remove
from specs.blobs import HubSource
from specs.errors import AuthError, MbpmError, NetworkError, NotFoundError

if TYPE_CHECKING:
    from mbpm.fetch.parts import Part
    from mbpm.output import Progress


def from_hub(
    source: HubSource, part: Part, name: str, offline: bool, parts: Path, progress: Progress
) -> None:
    """Take the file from the user's own hub cache, or download it.

    Raises:
        NetworkError: it is not cached and cannot be downloaded.
        NotFoundError, AuthError: the hub says so.
        IntegrityError: wrong bytes.
    """
    # its own bars would count bytes that nobody verified; read when it is first imported
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    # its retries are not news; what fails in the end is said in one line of ours
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")
    import httpx
    from huggingface_hub import constants, hf_hub_download, try_to_load_from_cache
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    from mbpm.fetch import from_file

    cached = try_to_load_from_cache(source.repo, source.file, revision=source.revision)
    if isinstance(cached, str):
        with contextlib.suppress(MbpmError):
            from_file(Path(cached), part, name)
        if not part.missing():
            return
    if offline or constants.HF_HUB_OFFLINE:
        switch = "`--offline`" if offline else "`HF_HUB_OFFLINE`"
        raise NetworkError(f"not in the hub's cache, and the network is switched off ({switch})")
    check_space(parts, part.blob.size, name)
    # a folder of its own: huggingface_hub resumes there, and nothing is left in the user's cache
    folder = parts / f"{part.blob.sha256}.hf"
    progress.status("downloading from the hub")
    try:
        file = hf_hub_download(source.repo, source.file, revision=source.revision, local_dir=folder)
    except GatedRepoError:
        raise AuthError("the repository wants an accepted licence and a token") from None
    except LocalEntryNotFoundError as error:
        raise NetworkError(f"the hub could not be reached ({_first_line(error)})") from None
    except (RepositoryNotFoundError, RevisionNotFoundError, EntryNotFoundError) as error:
        raise NotFoundError(_first_line(error)) from None
    except OfflineModeIsEnabled as error:
        raise NetworkError(_first_line(error)) from None
    except (HfHubHTTPError, httpx.HTTPError) as error:
        raise NetworkError(_first_line(error)) from None
    finally:
        progress.status("")
    try:
        from_file(Path(file), part, name)
    except MbpmError:
        remove(folder)
        raise


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0] or type(error).__name__
