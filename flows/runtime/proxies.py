"""Reach the Prefect API on this machine without the HTTP proxies that the environment names."""

from __future__ import annotations

import ipaddress
from contextlib import AbstractContextManager
from importlib.util import find_spec
from urllib.parse import urlsplit
from urllib.request import getproxies_environment

from darkroom.flows.runtime.environment import environment

LOOPBACK = ("localhost", "127.0.0.1", "::1")


def loopback_direct(api_url: str | None) -> AbstractContextManager[None]:
    """Let this process and its children reach addresses of this machine without a proxy, until the block ends.

    Args:
        api_url: the Prefect API's address; None if it will be a local server.
    """
    return environment(_changes(api_url))


def _changes(api_url: str | None) -> dict[str, str | None]:
    """Return the variables to set, or (None) to unset."""
    proxies = getproxies_environment()  # lower-case variables take precedence
    direct = [host.strip() for host in proxies.pop("no", "").split(",") if host.strip()]
    if not proxies:
        return {}
    host = LOOPBACK[0] if api_url is None else _host(api_url)
    direct += [
        name for name in dict.fromkeys([*LOOPBACK, *([host] if _is_loopback(host) else [])]) if name not in direct
    ]
    changes: dict[str, str | None] = dict.fromkeys(("no_proxy", "NO_PROXY"), ",".join(direct))
    if _is_loopback(host):
        # httpx fails to make a client if any proxy is unusable, even one that no request would go through.
        unusable = [scheme for scheme, proxy in proxies.items() if not _is_usable(proxy)]
        changes |= {name: None for scheme in unusable for name in (f"{scheme}_proxy", f"{scheme}_proxy".upper())}
    return changes


def _host(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:  # not a URL, which is reported when it is used
        return ""


def _is_loopback(host: str) -> bool:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
    return address.is_loopback or address.is_unspecified


def _is_usable(proxy: str) -> bool:
    """Return whether httpx can make a client for a proxy."""
    scheme, mark, _ = proxy.partition("://")
    if scheme in {"socks5", "socks5h"}:
        return find_spec("socksio") is not None
    return not mark or scheme in {"http", "https"}
