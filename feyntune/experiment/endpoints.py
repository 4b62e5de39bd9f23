"""The section of an experiment on commercial models: whom to ask, how, and up to what cost."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import urlsplit

from pydantic import Field, JsonValue, field_validator, model_validator

from feyntune.experiment.sections import CHANGES_NO_RESULT, Above, Name, Positive, Section

LOOPBACK = ("localhost", "127.0.0.1", "::1")
# What an endpoint may call its bound on the tokens of an answer.
BOUNDS = ("max_completion_tokens", "max_tokens")


class Price(Section):
    """US dollars per million tokens: of what is sent, and of what is answered."""

    prompt: Annotated[float, Field(ge=0)]
    answer: Annotated[float, Field(ge=0)]


class Provider(Section):
    """An endpoint that speaks OpenAI's chat completions.

    ``base_url`` null: the experiment's own base model, served on loopback while it is asked.
    ``model`` null: none is named, so none is asked. ``key_variable`` is the *name* of the
    environment variable with the key; null: the endpoint wants none. ``price`` null: not known.
    ``parameters`` go into every request as they are.
    """

    base_url: str | None
    model: Name | None
    key_variable: Annotated[
        Annotated[str, Field(pattern=r"^[A-Z][A-Z0-9_]*$")] | None, CHANGES_NO_RESULT
    ]
    price: Price | None
    parameters: dict[str, JsonValue]

    @field_validator("base_url")
    @classmethod
    def _no_more_than_an_address(cls, value: str | None) -> str | None:
        if value is None:
            return None
        parts = urlsplit(value)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("must be an address like https://host/v1")
        if parts.query or parts.fragment or parts.username or parts.password:
            raise ValueError("must hold no key and no query, only the address")
        return value

    @field_validator("parameters")
    @classmethod
    def _answers_are_bounded(cls, value: dict) -> dict:
        bounds = [value[name] for name in BOUNDS if name in value]
        if len(bounds) != 1 or type(bounds[0]) is not int or bounds[0] < 1:
            raise ValueError(f"must hold one of {', '.join(BOUNDS)}, a whole number above 0")
        taken = sorted({"model", "messages", "stream", "n"} & set(value))
        if taken:
            raise ValueError(f"must not hold {taken[0]}, which every request has its own way")
        return value

    @model_validator(mode="after")
    def _consistent(self) -> Provider:
        if self.base_url is None and (self.model is None or not self.model.isidentifier()):
            raise ValueError("without base_url, model must be a plain name to serve base by")
        if self.base_url is None and self.key_variable is not None:
            raise ValueError("without base_url there is no one to give the key of key_variable to")
        address = urlsplit(self.base_url or "")
        if self.key_variable and address.scheme == "http" and address.hostname not in LOOPBACK:
            raise ValueError("a key goes over https only: begin base_url with https")
        return self

    @property
    def answer_tokens(self) -> int:
        """The most tokens that an answer may have."""
        return next(self.parameters[name] for name in BOUNDS if name in self.parameters)


class Limits(Section):
    """What all requests of an experiment together may cost, those of earlier runs included."""

    usd: Annotated[float, Field(ge=0)] | None
    tokens: Annotated[int, Field(ge=0)] | None

    @model_validator(mode="after")
    def _one_at_least(self) -> Limits:
        if self.usd is None and self.tokens is None:
            raise ValueError("usd or tokens must be set, so that something stops the run")
        return self


class Commercial(Section):
    """Which endpoints are asked to complete abstracts, how, and what that may cost.

    ``providers``: an entry set to null is one that an extended experiment has and this has not.
    """

    abstracts: Positive | None
    instruction: Name
    providers: dict[Annotated[str, Field(pattern=r"^[A-Za-z0-9][\w .-]*$")], Provider | None]
    limits: Annotated[Limits, CHANGES_NO_RESULT]
    parallel: Annotated[Positive, CHANGES_NO_RESULT]
    requests_per_minute: Annotated[Positive | None, CHANGES_NO_RESULT]
    timeout_seconds: Annotated[Above, CHANGES_NO_RESULT]
    retries: Annotated[int, Field(ge=0), CHANGES_NO_RESULT]

    @property
    def present(self) -> dict[str, Provider]:
        """The providers that there are, by name."""
        return {name: provider for name, provider in self.providers.items() if provider}
