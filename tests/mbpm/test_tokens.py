"""Tokens: kept from others, and sent to nobody but the registry they are for."""

from __future__ import annotations

import os
import stat
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mbpm.registries import config, tokens
from mbpm.registries.tokens import Tokens, variable
from registry_index.publish import publish_base
from registry_index.tree import Registry
from specs.errors import UsageError
from specs.registries import Entry, RegistryList
from tests.support.cli import Cli
from tests.support.static import Static, serve

SECRET = "s3cret-token"


@pytest.fixture
def private(registry: Path, publish: Callable[..., None], tmp_path: Path) -> Iterator[Static]:
    """A registry that wants the token for everything."""
    publish("alpha")
    card = Registry(registry).base("tiny")
    publish_base(card, registry, {"weights.gguf": tmp_path / "base-files" / "tiny.gguf"})
    with serve(registry, token=SECRET) as site:
        yield site


@pytest.fixture(autouse=True)
def _no_keyring(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "keyring", None)


def home_with(tmp_path: Path, **addresses: str) -> Path:
    """A home whose registries have these addresses, and tokens named after them."""
    home = tmp_path / "tokens-home"
    home.mkdir()
    entries = {name: Entry(address=address) for name, address in addresses.items()}
    config.write(home, RegistryList(registries=entries))
    for name, address in addresses.items():
        tokens.store(home, name, address, f"token-of-{name}")
    return home


def test_a_private_registry_with_a_token(cli: Cli, private: Static) -> None:
    refused = cli("registry", "add", "team", private.url)
    assert refused.code == 7
    added = cli("registry", "add", "team", private.url, "--token-stdin", answer=SECRET + "\n")
    assert added.code == 0, added
    installed = cli.ok("install", "alpha", "--yes", "--json")
    listed = cli.ok("registry", "list")
    listed_json = cli.ok("registry", "list", "--json")
    for result in (refused, added, installed, listed, listed_json):
        assert SECRET not in result.out + result.err
    assert listed_json.json["registries"][1]["token"] is True
    assert set(private.authorization[1:]) == {f"Bearer {SECRET}"}


def test_the_file_is_for_its_owner_alone(cli: Cli, private: Static) -> None:
    cli.ok("registry", "add", "team", private.url, "--token", SECRET)
    file = cli.home / "tokens.toml"
    if os.name == "posix":
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
    cli.ok("registry", "remove", "team")
    assert SECRET not in file.read_text()


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX permissions")
@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644])
def test_a_file_that_others_can_read_is_refused(cli: Cli, private: Static, mode: int) -> None:
    cli.ok("registry", "add", "team", private.url, "--token", SECRET)
    file = cli.home / "tokens.toml"
    file.chmod(mode)
    private.forget()
    result = cli("registry", "refresh")
    assert result.code == 2
    assert f"others can read it (mode {mode:04o})" in result.err
    assert f"`chmod 600 {file}`" in result.err
    assert private.asked == []


def test_a_malformed_file_shows_nothing_of_itself(cli: Cli, private: Static) -> None:
    cli.ok("registry", "add", "team", private.url, "--token", SECRET)
    file = cli.home / "tokens.toml"
    file.write_text(f'[tokens.team]\ntoken = "{SECRET}" nonsense')
    result = cli("registry", "refresh")
    assert result.code == 2
    assert "is malformed" in result.err
    assert SECRET not in result.err


@pytest.mark.parametrize("bad", ["", " ", "two words", "line\nbreak", "tüken", "x" * 5000])
def test_what_is_no_token_is_refused_without_being_shown(bad: str) -> None:
    with pytest.raises(UsageError) as caught:
        tokens.check_token(bad, "the token")
    assert not bad.strip() or bad not in caught.value.message


def test_environment_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = home_with(tmp_path, **{"my-team": "https://a.example/r"})
    assert variable("my-team") == "MBPM_TOKEN_MY_TEAM"
    asked = Tokens(home).authorize("https://a.example/r/config.json")
    assert asked == {"Authorization": "Bearer token-of-my-team"}
    monkeypatch.setenv("MBPM_TOKEN_MY_TEAM", "another")
    asked = Tokens(home).authorize("https://a.example/r/config.json")
    assert asked == {"Authorization": "Bearer another"}


def test_a_variable_that_could_mean_two_registries(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = home_with(tmp_path, **{"a-b": "https://a.example", "a.b": "https://b.example"})
    monkeypatch.setenv("MBPM_TOKEN_A_B", "whose")
    with pytest.raises(UsageError, match=r"any of the registries a-b, a\.b"):
        Tokens(home).authorize("https://a.example/config.json")


@pytest.mark.parametrize(
    "url",
    [
        "http://packs.example/team/config.json",
        "https://packs.example:8443/team/config.json",
        "https://packs.example.evil.example/team/config.json",
        "https://evil.example/https://packs.example/team/config.json",
        "https://packs.example@evil.example/team/config.json",
        "https://packs.example/teammates/config.json",
        "https://packs.example/other/config.json",
        "https://packs.example/team/../other/config.json",
        "https://packs.example/team/..",
        "https://packs.example/team/..;/other/config.json",
        "https://packs.example/team/%2e%2e/other/config.json",
        "https://packs.example/team/..%2fother/config.json",
        "https://packs.example/",
        "ftp://packs.example/team/x",
    ],
)
def test_a_token_goes_to_no_other_place(tmp_path: Path, url: str) -> None:
    home = home_with(tmp_path, team="https://packs.example/team")
    assert Tokens(home).authorize(url) == {}
    assert Tokens(home).authorize("https://packs.example/team/index/al/ph/alpha") != {}
    assert Tokens(home).authorize("https://PACKS.example:443/team/config.json") != {}


def test_registries_on_one_server_have_their_own_tokens(tmp_path: Path) -> None:
    home = home_with(tmp_path, all="https://packs.example", team="https://packs.example/team")
    inner = Tokens(home).authorize("https://packs.example/team/config.json")
    outer = Tokens(home).authorize("https://packs.example/config.json")
    assert inner == {"Authorization": "Bearer token-of-team"}
    assert outer == {"Authorization": "Bearer token-of-all"}


def test_an_address_that_was_edited_gets_no_token(tmp_path: Path) -> None:
    home = home_with(tmp_path, team="https://packs.example/team")
    file = home / "registries.toml"
    file.write_text(file.read_text().replace("packs.example", "evil.example"))
    assert Tokens(home).authorize("https://evil.example/team/config.json") == {}


def test_a_token_follows_no_redirect_and_no_mirror(
    cli: Cli, private: Static, registry: Path, tmp_path: Path
) -> None:
    with serve(registry) as elsewhere:
        cli.ok("registry", "add", "team", private.url, "--token", SECRET, "--mirror", elsewhere.url)
        cli.ok("install", "alpha", "--yes")
        assert elsewhere.asked
        assert set(elsewhere.authorization) == {None}


def test_credentials_in_an_address_are_refused(cli: Cli) -> None:
    result = cli("registry", "add", "team", "https://jane:hunter2@packs.example")
    assert result.code == 2
    assert "hunter2" not in result.err
    assert "give a token instead" in result.err


def test_a_directory_takes_no_token(cli: Cli, registry: Path) -> None:
    assert cli("registry", "add", "team", registry, "--token", SECRET).code == 2


class Backend:
    """A keyring that works, or does not."""

    def __init__(self, priority: int = 5, *, locked: bool = False) -> None:
        self.priority = priority
        self.locked = locked
        self.kept: dict[tuple[str, str], str] = {}

    def module(self) -> types.SimpleNamespace:
        return types.SimpleNamespace(
            get_keyring=lambda: self,
            set_password=self.set_password,
            get_password=self.get_password,
            delete_password=lambda s, n: self.kept.pop((s, n)),
        )

    def set_password(self, service: str, name: str, secret: str) -> None:
        if self.locked:
            raise RuntimeError("locked")
        self.kept[service, name] = secret

    def get_password(self, service: str, name: str) -> str | None:
        if self.locked:
            raise RuntimeError("locked")
        return self.kept.get((service, name))


def test_a_keyring_that_works_is_used(
    cli: Cli, private: Static, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = Backend()
    monkeypatch.setitem(sys.modules, "keyring", backend.module())
    cli.ok("registry", "add", "team", private.url, "--token", SECRET)
    assert backend.kept == {("mbpm", private.url): SECRET}
    assert not (cli.home / "tokens.toml").exists()
    cli.ok("install", "alpha", "--yes")
    backend.locked = True
    result = cli("registry", "refresh")
    assert result.code == 7
    assert "the keyring does not give its token" in result.err
    backend.locked = False
    cli.ok("registry", "remove", "team")
    assert backend.kept == {}


@pytest.mark.parametrize("backend", [Backend(0), Backend(locked=True)])
def test_a_keyring_that_keeps_nothing_is_passed_over(
    cli: Cli, private: Static, monkeypatch: pytest.MonkeyPatch, backend: Backend
) -> None:
    monkeypatch.setitem(sys.modules, "keyring", backend.module())
    cli.ok("registry", "add", "team", private.url, "--token", SECRET)
    assert SECRET in (cli.home / "tokens.toml").read_text()
    cli.ok("registry", "refresh")
