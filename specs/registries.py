"""`registries.toml` and `tokens.toml` in the home: which registries are asked, and as whom."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field

from specs.model import Contract
from specs.names import Name

BUNDLED = "bundled"
BUNDLED_PRIORITY = 100
DEFAULT_PRIORITY = 50
MAX_PRIORITY = 1000
MAX_REGISTRIES = 100

_URL = re.compile(r"[!#$%&'()*+,./0-9:;=?@A-Z\[\]_a-z~-]{1,2000}")
_HOST = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,251}[a-z0-9])?|[0-9a-f:.]+")
_DEFAULT_PORTS = {"http": 80, "https": 443}


def is_url(text: str) -> bool:
    """Whether a text is meant as an address rather than a directory."""
    return "://" in text


def normal_url(text: str) -> str:
    """An address in its one normal form: lower-case host, no default port, no slash at the end.

    Raises:
        ValueError: not an http(s) address, or one with credentials, a query or a fragment.
    """
    if not _URL.fullmatch(text):
        # a host of look-alike letters is seen for what it is in its ASCII form (`xn--…`)
        raise ValueError(f"{text[:200]!r} is not an address in plain ASCII")
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise ValueError(f"{text!r} is not an address") from None
    host = (parts.hostname or "").lower()
    if parts.scheme not in _DEFAULT_PORTS or not _HOST.fullmatch(host):
        raise ValueError(f"{text!r} is not an http or https address")
    if "@" in parts.netloc:
        raise ValueError(f"{parts.scheme}://…@{host} holds credentials; give a token instead")
    if "?" in text or "#" in text:
        raise ValueError(f"{text!r} has a query or fragment, which no registry has")
    segments = [s for s in parts.path.split("/") if s]
    if any(s in (".", "..") for s in segments):
        raise ValueError(f"{text!r} has `.` or `..` in its path")
    netloc = f"[{host}]" if ":" in host else host
    if port not in (None, _DEFAULT_PORTS[parts.scheme]):
        netloc += f":{port}"
    return "/".join([f"{parts.scheme}://{netloc}", *segments])


def _check_address(text: str) -> str:
    if is_url(text):
        if text != normal_url(text):
            raise ValueError(f"{text!r} is to be written as {normal_url(text)!r}")
        return text
    if not Path(text).is_absolute():
        raise ValueError(f"{text!r} is neither an address nor the whole path of a directory")
    return text


def _check_url(text: str) -> str:
    if text != normal_url(text):
        raise ValueError(f"{text!r} is to be written as {normal_url(text)!r}")
    return text


Url = Annotated[str, AfterValidator(_check_url)]
Address = Annotated[str, Field(min_length=1, max_length=2000), AfterValidator(_check_address)]
Priority = Annotated[int, Field(ge=0, le=MAX_PRIORITY)]


class Entry(Contract):
    """One registry that is asked."""

    address: Address
    """A directory or an http(s) address."""
    priority: Priority = DEFAULT_PRIORITY
    """Of the registries that have a name nobody provided before, the highest one's is taken."""
    mirrors: Annotated[tuple[Url, ...], Field(max_length=16)] = ()
    """Addresses of trees with the same `blobs/`, asked before the registry itself."""
    keyring: bool = False
    """Whether its token is in the system's keyring."""


class BundledEntry(Contract):
    """The registry that ships with the program."""

    priority: Priority = BUNDLED_PRIORITY


class RegistryList(Contract):
    """`registries.toml`."""

    format: Literal[1] = 1
    bundled: BundledEntry = BundledEntry()
    registries: Annotated[dict[Name, Entry], Field(max_length=MAX_REGISTRIES)] = {}


class Token(Contract):
    """A secret, and the one address it is for."""

    address: Url
    token: Annotated[str, Field(pattern=r"^[!-~]{1,4096}$")]


class TokenList(Contract):
    """`tokens.toml`, which nobody but its owner can read."""

    format: Literal[1] = 1
    tokens: Annotated[dict[Name, Token], Field(max_length=MAX_REGISTRIES)] = {}
