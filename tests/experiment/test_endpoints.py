"""The section on commercial models: what a provider cannot be."""

from __future__ import annotations

import pytest
from commercial_runs import provider, settings

from feyntune.errors import UserError
from feyntune.experiment import load


@pytest.mark.parametrize(
    "change, said",
    [
        ({"base_url": "api.example.org"}, "must be an address like https://host/v1"),
        ({"base_url": "https://example.org/v1?key=sk-secret-1"}, "must hold no key"),
        ({"base_url": "https://me:sk-secret-1@example.org/v1"}, "must hold no key"),
        ({"base_url": "http://example.org/v1"}, "a key goes over https only"),
        ({"key_variable": "sk-secret-1"}, "the name of an environment variable, not a key"),
        ({"parameters": {}}, "must hold one of max_completion_tokens, max_tokens"),
        ({"parameters": {"max_tokens": 0}}, "a whole number above 0"),
        ({"parameters": {"max_tokens": 5, "max_completion_tokens": 5}}, "must hold one of"),
        ({"parameters": {"max_tokens": 5, "stream": True}}, "must not hold stream"),
        ({"price": {"prompt": -1.0, "answer": 1.0}}, "price.prompt"),
        ({"base_url": None, "model": "a/b", "key_variable": None}, "a plain name"),
        ({"base_url": None, "model": "x"}, "no one to give the key"),
    ],
)
def test_a_provider_that_cannot_be(change, said):
    with pytest.raises(UserError) as raised:
        settings({"them": provider("https://example.org/v1", **change)})
    assert said in str(raised.value) and "sk-secret-1" not in str(raised.value)


@pytest.mark.parametrize(
    "change, said",
    [
        ({"limits": {"usd": None, "tokens": None}}, "usd or tokens must be set"),
        ({"limits": {"usd": -1.0, "tokens": None}}, "limits.usd"),
        ({"providers": {"../up": provider("https://example.org")}}, "providers"),
        ({"providers": {"base": provider("https://example.org")}}, "name of a model of ours"),
        ({"parallel": 0}, "parallel"),
    ],
)
def test_settings_that_cannot_be(change, said):
    given = {f"commercial.{key}": value for key, value in change.items()}
    with pytest.raises(UserError, match=said):
        load.with_settings("smoke", given)


def test_a_provider_set_to_null_is_not_there():
    given = settings({"them": provider("https://example.org"), "stand-in": None})
    assert list(given.commercial.present) == ["them"]
