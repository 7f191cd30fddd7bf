"""Which proxy an address is reached through: the environment's, else the system's."""

from __future__ import annotations

import contextlib
import ipaddress
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

_PORTS = {"http": 80, "https": 443}


def proxy_for(url: str) -> str | None:
    """The proxy for an address; None where it is reached directly.

    `HTTP_PROXY`, `HTTPS_PROXY` and `ALL_PROXY` name proxies, and `NO_PROXY` lists what needs none:
    `*`, names (with all below them), addresses, networks as `10.0.0.0/8`, each with `:PORT` or
    without. Lower-case names win. Where none is set, the settings of macOS and Windows count.
    """
    parts = urlsplit(url)
    proxies = getproxies()
    proxy = proxies.get(parts.scheme) or proxies.get("all")
    host = (parts.hostname or "").rstrip(".")
    if not proxy or not host:
        return None
    if "no" in proxies:
        port = parts.port or _PORTS.get(parts.scheme, 0)
        if any(_covers(entry.strip(), host, port) for entry in proxies["no"].split(",")):
            return None
    elif proxy_bypass(host):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"


def _covers(entry: str, host: str, port: int) -> bool:
    if entry == "*":
        return True
    name, colon, number = entry.rpartition(":")
    # an address with several colons is an IPv6 one, and its last field no port
    if colon and number.isdecimal() and (":" not in name or name.endswith("]")):
        if int(number) != port:
            return False
        entry = name
    entry = entry.strip("[]").removeprefix("*").lstrip(".").lower()
    if not entry:
        return False
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host) in ipaddress.ip_network(entry, strict=False)
    return host == entry or host.endswith(f".{entry}")
