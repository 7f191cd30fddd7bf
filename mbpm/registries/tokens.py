"""Tokens for registries that want one; sent to the registry's own address and nowhere else.

A token is taken from `MBPM_TOKEN_<NAME>` in the environment (the registry's name in capitals, `_`
for everything that is no letter or digit), else from `tokens.toml` in the home, else from the
system's keyring where it was put there. It is kept together with the address it is for.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import re
import stat
import uuid
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from mbpm.files import replace
from mbpm.registries import config
from specs.errors import AuthError, IntegrityError, UsageError
from specs.registries import RegistryList, Token, TokenList, is_url

TOKENS_FILE = "tokens.toml"
SERVICE = "mbpm"
"""What the keyring knows us as."""

_TOKEN = re.compile(r"[!-~]{1,4096}")


class Tokens:
    """The tokens of one home; nothing is read before it is asked for."""

    def __init__(self, home: Path, more: Mapping[str, str] | None = None) -> None:
        """
        Args:
            home: The home folder.
            more: Address -> token, of registries that are about to be added.
        """
        self._home = home
        self._more = more or {}

    def authorize(self, url: str) -> Mapping[str, str]:
        """Headers to send to an address: none where no registry with a token stands there.

        Raises:
            UsageError: others can read the file of tokens, it is malformed, or it is unclear whose
                token a variable holds.
        """
        # the longest address first: one server may hold several registries
        for address in sorted(self._by_address, key=len, reverse=True):
            if _below(url, address):
                token = self._by_address[address]
                return {"Authorization": f"Bearer {token}"}
        return {}

    def has(self, address: str) -> bool:
        """Whether there is a token for a registry."""
        return address in self._by_address

    @cached_property
    def _by_address(self) -> dict[str, str]:
        known = config.read(self._home)
        remote = {n: e for n, e in known.registries.items() if is_url(e.address)}
        stored = read(self._home).tokens if remote else {}
        found = {}
        for name, entry in remote.items():
            token = _from_environment(name, known)
            if token is None and name in stored and stored[name].address == entry.address:
                token = stored[name].token
            if token is None and entry.keyring:
                token = _from_keyring(entry.address)
            if token is not None:
                found[entry.address] = token
        return {**found, **self._more}


def _below(url: str, address: str) -> bool:
    """Whether an address belongs to the registry at `address`: scheme, host, port and path."""
    one, other = urlsplit(url), urlsplit(address)
    if (one.scheme, one.hostname) != (other.scheme, other.hostname):
        return False
    default = {"http": 80, "https": 443}.get(one.scheme)
    if (one.port or default) != (other.port or default):
        return False
    # a path that a server may read as another one gets nothing
    path = one.path.lower() + "/"
    if any(part in path for part in ("/../", "/..;", "/./", "/.;", "%2e", "\\", "%5c", "%2f")):
        return False
    return (one.path + "/").startswith(other.path + "/")


def variable(name: str) -> str:
    """The environment variable that holds a registry's token."""
    return "MBPM_TOKEN_" + re.sub(r"[^A-Z0-9]", "_", name.upper())


def _from_environment(name: str, known: RegistryList) -> str | None:
    token = os.environ.get(variable(name))
    if not token:
        return None
    same = [n for n in known.registries if variable(n) == variable(name)]
    if len(same) > 1:
        raise UsageError(
            f"`{variable(name)}` could mean any of the registries {', '.join(same)}",
            hint="give one of them a name that differs in letters or digits",
        )
    return check_token(token, f"`{variable(name)}`")


def check_token(token: str, where: str) -> str:
    """Return a token that can be sent; UsageError, without showing it, where it cannot."""
    if not _TOKEN.fullmatch(token):
        raise UsageError(f"{where}: a token is 1 to 4096 printable ASCII characters without spaces")
    return token


def read(home: Path) -> TokenList:
    """The tokens kept in the home's file.

    Raises:
        UsageError: others can read that file, or it is malformed.
    """
    file = home / TOKENS_FILE
    try:
        mode = file.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return TokenList()
    if os.name == "posix" and mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise UsageError(
            f"{file}: others can read it (mode {stat.S_IMODE(mode):04o})",
            hint=f"`chmod 600 {file}`, and have tokens replaced that others may have seen",
        )
    try:
        return TokenList.read_toml(file)
    except IntegrityError:
        # what it holds is not for any message
        raise UsageError(
            f"{file}: is malformed",
            hint="remove it, and give the tokens again with `mbpm registry add … --token-stdin`",
        ) from None


def store(home: Path, name: str, address: str, token: str) -> bool:
    """Keep the token of a registry, in the keyring where that works, else in the home's file.

    Returns:
        Whether the keyring has it.
    """
    check_token(token, "the token")
    keyring = _keyring()
    if keyring is not None:
        with contextlib.suppress(Exception):
            keyring.set_password(SERVICE, address, token)
            forget(home, name, None)
            return True
    tokens = {**read(home).tokens, name: Token(address=address, token=token)}
    _write(home, TokenList(tokens=tokens))
    return False


def forget(home: Path, name: str, address: str | None) -> None:
    """Drop the token of a registry from the file and, with `address`, from the keyring."""
    kept = read(home).tokens
    if name in kept:
        _write(home, TokenList(tokens={n: t for n, t in kept.items() if n != name}))
    if address is not None and (keyring := _keyring()) is not None:
        with contextlib.suppress(Exception):
            keyring.delete_password(SERVICE, address)


def _write(home: Path, tokens: TokenList) -> None:
    """Replace the file; it is never readable by others, not even for a moment."""
    import tomli_w

    file = home / TOKENS_FILE
    home.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(f".{file.name}.{uuid.uuid4().hex}")
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(tomli_w.dumps(tokens.model_dump(mode="json")).encode())
            stream.flush()
            os.fsync(stream.fileno())
        replace(temporary, file)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _keyring() -> Any:
    """The system's keyring; None where there is none, or none that keeps anything."""
    try:
        keyring = importlib.import_module("keyring")
        usable = keyring.get_keyring().priority >= 1
    except Exception:
        # a keyring that cannot be asked is as good as none
        return None
    return keyring if usable else None


def _from_keyring(address: str) -> str | None:
    keyring = _keyring()
    try:
        token = keyring.get_password(SERVICE, address) if keyring is not None else None
    except Exception as error:
        raise AuthError(
            f"{address}: the keyring does not give its token ({type(error).__name__})",
            hint="unlock the keyring, or set the token in the environment",
        ) from None
    return None if token is None else check_token(token, "the keyring")
