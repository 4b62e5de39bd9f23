"""Keys of providers: read from the environment at the moment of the call, and nowhere left behind.

What a provider sends back may hold the key (an error that quotes the request, a model that repeats
its context), so everything passes :func:`scrubbed` before it is kept or shown.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from typing import Any
from urllib.parse import quote

from feyntune.errors import UserError
from feyntune.experiment.endpoints import Provider

MASK = "[key]"
# A shorter text may well be a word of an answer, which scrubbing would then spoil.
SHORTEST = 8


def of(provider: Provider) -> str | None:
    """The provider's key; ``None`` if it wants none or its variable is not set.

    Raises
    ------
    UserError
        If the variable holds what no HTTP header can carry, or next to nothing.
    """
    key = os.environ.get(provider.key_variable or "", "").strip()
    if not key:
        return None
    if not (key.isascii() and key.isprintable()) or " " in key or len(key) < SHORTEST:
        raise UserError(
            f"{provider.key_variable} does not hold a key: one is of at least {SHORTEST} ASCII "
            "characters without spaces. Set it anew, or unset it."
        )
    return key


def missing(provider: Provider) -> str | None:
    """The variable that has to be set before the provider can be asked; ``None`` if none has."""
    variable = provider.key_variable
    return variable if variable and not os.environ.get(variable, "").strip() else None


def all_set(providers: Iterable[Provider]) -> set[str]:
    """Every key that is set."""
    return {key for provider in providers if (key := of(provider))}


def scrubbed(value: Any, secrets: Iterable[str]) -> Any:
    """A JSON-like value without the secrets, as they are and as JSON or an address spells them."""
    if isinstance(value, str):
        for secret in secrets:
            slashed = secret.replace("/", "\\/")
            for form in (secret, json.dumps(secret)[1:-1], slashed, quote(secret, safe="")):
                value = value.replace(form, MASK)
        return value
    if isinstance(value, dict):
        return {scrubbed(k, secrets): scrubbed(each, secrets) for k, each in value.items()}
    if isinstance(value, list):
        return [scrubbed(each, secrets) for each in value]
    return value
