"""Asking one provider: what is sent, how fast, what is recorded, and when to stop.

The `openai` SDK retries what fails on the way (429, 5xx, timeouts, dropped connections) and waits
as long as `Retry-After` says. Replies that came but hold no answer are asked for again here.

Keys are read from the environment when they are needed, and stored nowhere. A reply may hold the
key (an error that quotes the request, a model that repeats its context), so everything passes
:func:`scrub` before it is recorded or shown.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote, urlsplit

import openai

from feyntune.errors import UserError
from feyntune.evaluation.commercial import answers, costs, replies
from feyntune.evaluation.commercial.answers import Answer, Request
from feyntune.evaluation.commercial.replies import Reply
from feyntune.experiment.endpoints import LOOPBACK, Commercial, Provider

NO_KEY = "none"  # the SDK needs some text; sent only to endpoints without a key
# Seconds before a request that got no answer is sent again; doubled each time.
BACK_OFF = 5.0
LONGEST_HOLD = 120  # seconds; the SDK, too, waits no longer when `Retry-After` asks it to
# After so many failed requests in a row, each with all its retries, the endpoint counts as down.
GIVE_UP = 5
KEY_REFUSED = (401, 403)
MASK = "[key]"
# A shorter text may be a word of an answer, which scrubbing would then damage.
SHORTEST_KEY = 8


class ProviderStopped(Exception):
    """No more is sent to this provider; the message is for the user."""


@dataclass
class ProviderClient:
    """Asks one provider, by several threads."""

    name: str
    provider: Provider
    commercial: Commercial
    base_url: str
    log: answers.AnswerLog
    budget: costs.Budget
    secrets: set[str] = field(repr=False)
    proven: bool = False  # whether it has ever answered
    failures: int = 0
    ended: str | None = None  # why nothing more is sent
    rate: RateLimit = field(init=False)
    client: openai.OpenAI = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.rate = RateLimit(self.commercial.requests_per_minute)
        self.client = sdk_client(self.provider, self.base_url, self.commercial, self.rate)

    def ask(self, request: Request) -> Answer:
        """Ask until there is an answer, and record every reply.

        Raises
        ------
        ProviderStopped
            If asking this provider again is useless, or would pass the limit.
        """
        try:
            answer = self._ask_until_answered(request)
            self._check(answer)
        except ProviderStopped as stopped:
            self.ended = self.ended or str(stopped)
            raise
        return answer

    def _ask_until_answered(self, request: Request) -> Answer:
        """Ask again, after longer and longer waits, while a reply comes that holds no answer."""
        for attempt in range(min(self.commercial.retries + 1, answers.TRIES)):
            if attempt:
                time.sleep(BACK_OFF * 2 ** (attempt - 1))
            if self.ended:
                raise ProviderStopped(self.ended)
            answer = self._ask_once(request)
            # The SDK has retried whatever failed without a reply.
            if answer["status"] in replies.FINAL or answer["http_status"] != 200:
                break
        return answer

    def _ask_once(self, request: Request) -> Answer:
        most = costs.at_most(request, self.provider)
        if not self.budget.reserve(most):
            raise ProviderStopped(
                f"{self.name}: stopped before the limit in commercial.limits was passed. "
                "The answers so far are kept; raise the limit to continue."
            )
        actual = most  # assumed if anything fails below
        try:
            self.rate.wait()
            answer = self._send_and_record(request)
            actual = costs.of_answer_at_most(answer, self.provider)
        finally:
            self.budget.settle(most, actual)
        return answer

    def _send_and_record(self, request: Request) -> Answer:
        """Send a request and record the reply."""
        asked, clock = datetime.now(UTC), time.monotonic()
        reply = self._send(request)
        answer = {
            "key": request.key,
            "provider": self.name,
            "asked": asked.isoformat(timespec="seconds"),
            "seconds": round(time.monotonic() - clock, 3),
            "request": {"base_url": self.provider.base_url, "body": request.body},
            **replies.interpret(reply),
        }
        # The request holds no secret, and scrubbing it would change its hash.
        sent = answer.pop("request")
        answer = {**scrub(answer, self.secrets), "request": sent}
        self.log.add(answer)
        return answer

    def _send(self, request: Request) -> Reply:
        body = {k: v for k, v in request.body.items() if k not in ("model", "messages")}
        try:
            raw = self.client.chat.completions.with_raw_response.create(
                model=request.body["model"], messages=request.body["messages"], extra_body=body
            )
            return Reply(raw.status_code, raw.http_response.content, raw.retries_taken)
        except openai.APIStatusError as error:
            return Reply(error.status_code, error.response.content)
        except openai.APITimeoutError:
            waited = self.commercial.timeout_seconds
            return Reply(None, problem=f"no answer within {waited:g} s")
        except openai.APIConnectionError as error:
            cause = error.__cause__ or error
            return Reply(None, problem=f"no connection ({type(cause).__name__}: {cause})")

    def _check(self, answer: Answer) -> None:
        """Stop if the requests that follow would fail as well."""
        status, code = answer["status"], answer["http_status"]
        if status in replies.FINAL:
            self.proven, self.failures = True, 0
            return
        said = f"{self.name}: {replies.shorten(answer['error'] or '')}"
        if code in KEY_REFUSED:
            variable = self.provider.key_variable or "which it wants (key_variable is null)"
            raise ProviderStopped(f"{said}. It refuses the key {variable}: check it, or unset it.")
        if code == 404:
            raise ProviderStopped(
                f"{said}. It does not know the model {self.provider.model!r}, or "
                f"{self.base_url} is not its address."
            )
        if status == replies.REJECTED and not self.proven:
            raise ProviderStopped(
                f"{said}. It refuses the request: check key, model and parameters in "
                f"commercial.providers.{self.name}."
            )
        if status == replies.MALFORMED and not self.proven:
            raise ProviderStopped(
                f"{said}. {self.base_url} speaks another dialect than OpenAI's chat completions: "
                "check base_url."
            )
        self.failures += 1
        if self.failures >= GIVE_UP or not self.proven:
            raise ProviderStopped(f"{said}. Run again later: only what is missing is asked for.")


class RateLimit:
    """Spreads requests over time, and holds all of them while a provider asks to wait."""

    def __init__(self, per_minute: int | None):
        self._gap = 60 / per_minute if per_minute else 0.0
        self._next = time.monotonic()
        self._lock = threading.Lock()

    def wait(self) -> None:
        """Return when the next request may go."""
        with self._lock:
            now = time.monotonic()
            start = max(now, self._next)
            self._next = start + self._gap
        time.sleep(start - now)

    def hold(self, seconds: float) -> None:
        """Let no request begin before so many seconds have passed."""
        with self._lock:
            self._next = max(self._next, time.monotonic() + seconds)


def sdk_client(
    provider: Provider, base_url: str, commercial: Commercial, rate: RateLimit
) -> openai.OpenAI:
    """The SDK's client for one provider; it takes only the key from the environment."""

    def respect_retry_after(response: Any) -> None:
        after = response.headers.get("retry-after", "")
        if response.status_code == 429 and after.isdigit():
            rate.hold(min(int(after), LONGEST_HOLD))

    local = urlsplit(base_url).hostname in LOOPBACK
    with _hide_variables("OPENAI_"):
        return openai.OpenAI(
            api_key=api_key(provider) or NO_KEY,
            base_url=base_url,
            timeout=commercial.timeout_seconds,
            max_retries=commercial.retries,
            # A proxy from the environment is for outside addresses, not for this machine.
            http_client=openai.DefaultHttpxClient(
                trust_env=not local, event_hooks={"response": [respect_retry_after]}
            ),
        )


@contextmanager
def _hide_variables(prefix: str) -> Iterator[None]:
    """Hide variables that the SDK would send as headers to every provider."""
    hidden = {name: os.environ.pop(name) for name in list(os.environ) if name.startswith(prefix)}
    try:
        yield
    finally:
        os.environ.update(hidden)


# --- keys --------------------------------------------------------------------------------------


def api_key(provider: Provider) -> str | None:
    """The provider's key; ``None`` if it needs none or its variable is not set.

    Raises
    ------
    UserError
        If the variable holds what an HTTP header cannot carry, or less than a key.
    """
    key = os.environ.get(provider.key_variable or "", "").strip()
    if not key:
        return None
    if not (key.isascii() and key.isprintable()) or " " in key or len(key) < SHORTEST_KEY:
        raise UserError(
            f"{provider.key_variable} does not hold a key: one is of at least {SHORTEST_KEY} ASCII "
            "characters without spaces. Set it again, or unset it."
        )
    return key


def missing_variable(provider: Provider) -> str | None:
    """The variable that must still be set before the provider can be asked, if any."""
    variable = provider.key_variable
    return variable if variable and not os.environ.get(variable, "").strip() else None


def known_keys(providers: Iterable[Provider]) -> set[str]:
    """Every key that is set."""
    return {key for provider in providers if (key := api_key(provider))}


def scrub(value: Any, secrets: Iterable[str]) -> Any:
    """A JSON-like value without the secrets, also as JSON and addresses spell them."""
    if isinstance(value, str):
        for secret in secrets:
            slashed = secret.replace("/", "\\/")
            for form in (secret, json.dumps(secret)[1:-1], slashed, quote(secret, safe="")):
                value = value.replace(form, MASK)
        return value
    if isinstance(value, dict):
        return {scrub(k, secrets): scrub(each, secrets) for k, each in value.items()}
    if isinstance(value, list):
        return [scrub(each, secrets) for each in value]
    return value
