"""One provider while it is asked: what is sent, how fast, what is recorded, and when to stop.

The `openai` SDK repeats what fails on the way (429, 5xx, timeouts, dropped connections) and waits
as long as `Retry-After` says. Answers that are no chat completion are asked for again here.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

import openai

from feyntune.evaluation.commercial import answers, costs, keys
from feyntune.evaluation.commercial.answers import Answer, Request
from feyntune.evaluation.commercial.replies import Reply, in_short, interpreted
from feyntune.experiment.endpoints import LOOPBACK, Commercial, Provider

NO_KEY = "none"  # the SDK wants some text; sent only to endpoints that want no key
# Seconds before an answer that could not be read is asked for again; doubled each time.
BACK_OFF, LONGEST = 0.5, 8.0
LONGEST_HOLD = 120  # seconds; what the SDK, too, waits at most when asked to
# So many requests that failed in a row, each after all its retries: the endpoint is down.
GIVE_UP = 5
KEY_REFUSED = (401, 403)


class Stopped(Exception):
    """What ends the asking of one provider; the message is for the user."""


@dataclass
class Asking:
    """One provider while it is asked."""

    name: str
    provider: Provider
    commercial: Commercial
    base_url: str
    log: answers.Log
    budget: costs.Budget
    secrets: set[str] = field(repr=False)
    proven: bool = False  # whether it has ever given an answer
    failures: int = 0
    ended: str | None = None  # why nothing more is sent
    pace: Pace = field(init=False)
    client: openai.OpenAI = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.pace = Pace(self.commercial.requests_per_minute)
        self.client = client(self.provider, self.base_url, self.commercial, self.pace)

    def ask(self, request: Request) -> Answer:
        """Ask until there is an answer, and record everything that came.

        Raises
        ------
        Stopped
            If asking anything more of this provider is of no use, or over the limit.
        """
        try:
            answer = self._until_read(request)
            self._judge(answer)
        except Stopped as stopped:
            self.ended = self.ended or str(stopped)
            raise
        return answer

    def _until_read(self, request: Request) -> Answer:
        """Ask again while what comes is no chat completion, after longer and longer waits."""
        for attempt in range(self.commercial.retries + 1):
            if attempt:
                time.sleep(min(LONGEST, BACK_OFF * 2 ** (attempt - 1)))
            if self.ended:
                raise Stopped(self.ended)
            answer = self._once(request)
            if answer["status"] != answers.MALFORMED:
                break
        return answer

    def _once(self, request: Request) -> Answer:
        most = costs.at_most(request, self.provider)
        if not self.budget.reserve(most):
            raise Stopped(
                f"{self.name}: stopped before the limit in commercial.limits was passed. What was "
                "answered is kept; raise the limit to go on."
            )
        actual = most  # of what breaks in our hands, the worst is assumed
        try:
            self.pace.wait()
            answer = self._recorded(request)
            told = costs.priced(*costs.usage(answer), self.provider.price)
            billed = answer["status"] not in costs.UNBILLED
            actual = told if told.tokens or not billed else most
        finally:
            self.budget.settle(most, actual)
        return answer

    def _recorded(self, request: Request) -> Answer:
        """Send a request and write down what came."""
        asked, clock = datetime.now(UTC), time.monotonic()
        reply = self._sent(request)
        answer = {
            "key": request.key,
            "provider": self.name,
            "asked": asked.isoformat(timespec="seconds"),
            "seconds": round(time.monotonic() - clock, 3),
            "request": {"base_url": self.provider.base_url, "body": request.body},
            **interpreted(reply),
        }
        # The request is ours and holds no secret; scrubbing it too would unmake its hash.
        sent = answer.pop("request")
        answer = {**keys.scrubbed(answer, self.secrets), "request": sent}
        self.log.add(answer)
        return answer

    def _sent(self, request: Request) -> Reply:
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

    def _judge(self, answer: Answer) -> None:
        """Stop where nothing that follows could fare better."""
        status, code = answer["status"], answer["http_status"]
        said = f"{self.name}: {in_short(answer['error'] or '')}"
        if code in KEY_REFUSED:
            variable = self.provider.key_variable or "which it wants (key_variable is null)"
            raise Stopped(f"{said}. It refuses the key {variable}: check it, or unset it.")
        if code == 404:
            raise Stopped(
                f"{said}. It does not know the model {self.provider.model!r}, or "
                f"{self.base_url} is not its address."
            )
        if status == answers.REJECTED and not self.proven:
            raise Stopped(
                f"{said}. It refuses the request: check key, model and parameters in "
                f"commercial.providers.{self.name}."
            )
        if status == answers.MALFORMED and not self.proven:
            raise Stopped(
                f"{said}. {self.base_url} speaks another dialect than OpenAI's chat completions: "
                "check base_url."
            )
        bad = status in (answers.FAILED, answers.MALFORMED, answers.REJECTED)
        self.failures = self.failures + 1 if bad else 0
        if self.failures >= GIVE_UP or (bad and not self.proven):
            raise Stopped(f"{said}. Run again later: only what is missing is asked for.")
        self.proven = self.proven or not bad


class Pace:
    """Spreads requests over time, and holds all of them while a provider asks for patience."""

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


def client(provider: Provider, base_url: str, commercial: Commercial, pace: Pace) -> openai.OpenAI:
    """The SDK's client for one provider, with nothing from the environment but the key."""

    def heed(response: Any) -> None:
        after = response.headers.get("retry-after", "")
        if response.status_code == 429 and after.isdigit():
            pace.hold(min(int(after), LONGEST_HOLD))

    local = urlsplit(base_url).hostname in LOOPBACK
    with _without("OPENAI_"):
        return openai.OpenAI(
            api_key=keys.of(provider) or NO_KEY,
            base_url=base_url,
            timeout=commercial.timeout_seconds,
            max_retries=commercial.retries,
            # A proxy of the environment is for the world outside, not for this machine.
            http_client=openai.DefaultHttpxClient(
                trust_env=not local, event_hooks={"response": [heed]}
            ),
        )


@contextmanager
def _without(prefix: str) -> Iterator[None]:
    """Hide variables that the SDK would send as headers, to whatever provider."""
    hidden = {name: os.environ.pop(name) for name in list(os.environ) if name.startswith(prefix)}
    try:
        yield
    finally:
        os.environ.update(hidden)
