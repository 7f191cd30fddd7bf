"""Whose word is taken for who a server is."""

from __future__ import annotations

import contextlib
import os
import ssl
from pathlib import Path

from specs.errors import UsageError

VARIABLE = "MBPM_CERT"
_REPLACING = ("SSL_CERT_FILE", "SSL_CERT_DIR")


def trusted() -> ssl.SSLContext:
    """The system's certificates; certifi's where the system has none.

    `SSL_CERT_FILE` and `SSL_CERT_DIR` replace them; `MBPM_CERT`, a file or folder, comes on top.

    Raises:
        UsageError: a variable names what holds no certificates.
    """
    replaced = [name for name in _REPLACING if os.environ.get(name)]
    for name in replaced:
        if not Path(os.environ[name]).exists():
            raise UsageError(f"`{name}`: there is no {os.environ[name]}")
    context = ssl.create_default_context()
    if not replaced and not context.cert_store_stats()["x509_ca"]:
        with contextlib.suppress(ImportError):
            import certifi

            context.load_verify_locations(certifi.where())
    if named := os.environ.get(VARIABLE):
        add(context, Path(named).expanduser(), f"`{VARIABLE}`")
    return context


def add(context: ssl.SSLContext, place: Path, what: str) -> None:
    """Trust the certificates of a file or folder too.

    Raises:
        UsageError: it holds none.
    """
    try:
        if place.is_dir():
            # OpenSSL finds only files that are named by their hash
            for file in sorted(place.iterdir()):
                if file.suffix in (".pem", ".crt", ".cer"):
                    context.load_verify_locations(cafile=file)
            context.load_verify_locations(capath=place)
        else:
            context.load_verify_locations(cafile=place)
    except OSError as error:
        raise UsageError(
            f"{what}: {place}: is not a file of certificates in PEM form ({error})"
        ) from None


def nobody() -> ssl.SSLContext:
    """Trusts no certificate: for plain HTTP, where reading them all would only take time."""
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
