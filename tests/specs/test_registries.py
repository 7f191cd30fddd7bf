"""The list of registries: addresses in one form, and files that are refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from specs.errors import IntegrityError
from specs.registries import RegistryList, normal_url


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("https://Packs.Example/", "https://packs.example"),
        ("HTTPS://packs.example:443/team/", "https://packs.example/team"),
        ("http://packs.example:80//a//b/", "http://packs.example/a/b"),
        ("http://127.0.0.1:8080/x", "http://127.0.0.1:8080/x"),
        ("http://[::1]:8080/", "http://[::1]:8080"),
        ("https://xn--bcher-kva.example/~team", "https://xn--bcher-kva.example/~team"),
    ],
)
def test_one_address_has_one_form(text: str, normal: str) -> None:
    assert normal_url(text) == normal
    assert normal_url(normal) == normal


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("packs.example", "not an http or https"),
        ("ftp://packs.example", "not an http or https"),
        ("file:///etc", "not an http or https"),
        ("https://", "not an http or https"),
        ("https://p\u0430cks.example", "plain ASCII"),
        ("https://packs.example/a b", "plain ASCII"),
        ("https://packs.example/\x00", "plain ASCII"),
        ("https://packs.example\\@evil.example", "plain ASCII"),
        ("https://packs.example\n", "plain ASCII"),
        ("https://jane@packs.example", "credentials"),
        ("https://jane:pw@packs.example", "credentials"),
        ("https://packs.example/?token=x", "query or fragment"),
        ("https://packs.example/#x", "query or fragment"),
        ("https://packs.example/../x", "in its path"),
        ("https://packs.example:99999", "not an address"),
        ("https://packs.example:x", "not an address"),
        ("https://[::1", "not an address"),
        ("https://" + "a" * 3000, "plain ASCII"),
    ],
)
def test_what_is_no_address(text: str, rule: str) -> None:
    with pytest.raises(ValueError, match=rule) as caught:
        normal_url(text)
    assert "pw" not in str(caught.value)


@given(st.text(max_size=40))
def test_a_normal_form_is_its_own(text: str) -> None:
    try:
        normal = normal_url(f"https://{text}")
    except ValueError:
        return
    assert normal_url(normal) == normal
    assert normal.isascii()


def entry(**changes: object) -> dict[str, object]:
    return {"registries": {"team": {"address": "https://packs.example"} | changes}}


@pytest.mark.parametrize(
    ("value", "rule"),
    [
        ({"format": 2}, "has format 2"),
        ({"surprise": 1}, "unknown key `surprise`"),
        ({"registries": {"../x": {"address": "/r"}}}, "registries"),
        ({"registries": {"Team": {"address": "/r"}}}, "registries"),
        (entry(address="relative/path"), "neither an address nor the whole path"),
        (entry(address=""), "address"),
        (entry(address="https://Packs.Example/"), "is to be written as 'https://packs.example'"),
        (entry(priority=-1), "priority"),
        (entry(priority=1001), "priority"),
        (entry(priority=True), "priority"),
        (entry(priority="10"), "priority"),
        (entry(mirrors=["/a/folder"]), "mirrors"),
        (entry(mirrors=["https://m.example"] * 17), "mirrors"),
        (entry(keyring="yes"), "keyring"),
        (entry(colour="red"), "unknown key `registries.team.colour`"),
        ({"bundled": {"priority": 5000}}, "bundled"),
        ({"bundled": {"address": "/r"}}, "unknown key `bundled.address`"),
    ],
)
def test_a_malformed_list_names_the_field(value: dict[str, object], rule: str) -> None:
    with pytest.raises(Exception, match=rule):
        RegistryList.from_object(value, "registries.toml")


def test_defaults() -> None:
    found = RegistryList.from_object(entry(), "registries.toml")
    assert found.bundled.priority == 100
    assert found.registries["team"].priority == 50
    with pytest.raises(IntegrityError):
        RegistryList.from_object([], "registries.toml")
