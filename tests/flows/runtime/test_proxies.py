"""Requests to this machine never go through a proxy."""

from __future__ import annotations

import os
from urllib.request import getproxies, proxy_bypass

import httpx
import pytest
from harness import Api, darkroom

from darkroom.flows.runtime.proxies import loopback_direct

DEAD = "http://127.0.0.1:9"
"""Nothing listens on the discard port: whatever is sent through this proxy fails."""


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)


@pytest.mark.parametrize("name", ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy", "HTTPS_PROXY", "https_proxy"])
@pytest.mark.parametrize("proxy", [DEAD, "127.0.0.1:9", "socks5://127.0.0.1:9", "socks://127.0.0.1:9"])
def test_a_configured_api_on_this_machine_is_reached(name: str, proxy: str, api: Api, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(name, proxy)
    with loopback_direct(api.url):
        assert httpx.get(f"{api.url}/health").is_success
        assert httpx.get(f"{api.url.replace('127.0.0.1', 'localhost')}/health").is_success
    assert os.environ[name] == proxy


@pytest.mark.parametrize("url", ["http://127.0.0.2:1/api", "http://[::1]:1/api", "http://a.localhost:1", None])
def test_every_name_of_this_machine_is_direct_and_no_other(url: str | None, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HTTP_PROXY", DEAD)
    monkeypatch.setenv("NO_PROXY", "example.com")
    with loopback_direct(url):
        for host in ("localhost", "127.0.0.1", "example.com", httpx.URL(url or "http://localhost").host):
            assert proxy_bypass(f"{host}:4200"), host
        assert not proxy_bypass("example.org")
    assert os.environ["NO_PROXY"] == "example.com"
    assert "no_proxy" not in os.environ


def test_an_api_elsewhere_keeps_every_proxy(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:9")
    before = getproxies()
    with loopback_direct("https://api.prefect.cloud/api"):
        assert before.items() <= getproxies().items()


def test_without_proxies_nothing_changes():
    before = dict(os.environ)
    with loopback_direct(None):
        assert dict(os.environ) == before


@pytest.mark.slow
def test_a_run_and_its_workers_reach_local_servers_despite_dead_proxies(folder, api: Api):
    proxies = {"HTTP_PROXY": DEAD, "http_proxy": DEAD, "HTTPS_PROXY": DEAD, "ALL_PROXY": "socks5://127.0.0.1:9"}
    environment = api.environment | proxies
    ended = darkroom("run", folder, folder.parent / "dest", "--workers", "1", environment=environment)
    assert ended.code == 0, ended.err
    del environment["PREFECT_API_URL"]
    ended = darkroom("run", folder, folder.parent / "dest-2", "--workers", "1", environment=environment)
    assert ended.code == 0, ended.err
