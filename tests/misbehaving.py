"""An OpenAI-compatible endpoint on loopback that fails in every way a test asks it to.

What it does to a request depends on the prompt: its faults in order, one a request, then answers.
"""

from __future__ import annotations

import json
import threading
import time
from collections import defaultdict
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

STALL = 1.2  # seconds; clients in tests wait for less
USAGE = {"prompt_tokens": 40, "completion_tokens": 10, "total_tokens": 50}


def completion(content, *, finish_reason="stop", refusal=None, model="served-2026-11", **more):
    message = {"role": "assistant", "content": content, "refusal": refusal}
    choice = {"index": 0, "message": message, "finish_reason": finish_reason}
    body = {"id": "x", "object": "chat.completion", "created": 1, "model": model}
    return body | {"choices": [choice], "usage": USAGE, "system_fingerprint": "fp_1"} | more


def answer_to(prompt: str) -> str:
    return f"The continuation of {prompt}."


class Endpoint:
    """What the server got, and what it does with it.

    Attributes
    ----------
    faults
        By prompt, faults to go through; ``"*"``: of every request, for ever.
    got
        Every request: ``prompt``, ``body``, ``headers``, and ``at``, a monotonic time.
    """

    def __init__(self, faults: dict[str, list]):
        self.faults = faults
        self.got: list[dict] = []
        self.url = ""
        self._seen: defaultdict[str, int] = defaultdict(int)
        self._lock = threading.Lock()

    @property
    def prompts(self) -> list[str]:
        return [each["prompt"] for each in self.got]

    def fault(self, headers, body):
        """Note the request; return what is to go wrong with it, or ``None``."""
        prompt = body["messages"][-1]["content"]
        with self._lock:
            self.got.append(
                {"prompt": prompt, "body": body, "headers": headers, "at": time.monotonic()}
            )
            nth = self._seen[prompt]
            self._seen[prompt] += 1
        if "*" in self.faults:
            return self.faults["*"]
        planned = self.faults.get(prompt, [])
        return planned[nth] if nth < len(planned) else None


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    endpoint: Endpoint

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        fault = self.endpoint.fault(dict(self.headers), body)
        prompt = body["messages"][-1]["content"]
        if fault is None:
            return self.reply(200, completion(answer_to(prompt)))
        if callable(fault):
            return self.reply(*fault(self.headers, body))
        return getattr(self, fault)(prompt)

    def reply(self, status, content, **headers):
        raw = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        kind = "application/json" if not isinstance(content, bytes) else "text/html"
        for name, value in {"Content-Type": kind, "Content-Length": len(raw), **headers}.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()
        self.wfile.write(raw)

    def too_many(self, _):
        self.reply(429, {"error": {"message": "slow down"}}, Retry_After=1)

    def broken(self, _):
        self.reply(500, {"error": {"message": "oops"}})

    def stall(self, prompt):
        time.sleep(STALL)
        self.close_connection = True

    def drop(self, _):
        self.close_connection = True
        self.connection.close()

    def half(self, _):
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", "1000")
        self.end_headers()
        self.wfile.write(b'{"choices": [')
        self.close_connection = True

    def malformed(self, _):
        self.reply(200, b'{"choices": [{"message": {"content": "The')

    def html(self, _):
        self.reply(200, b"<html>Please log in</html>")

    def empty(self, _):
        self.reply(200, completion(""))

    def refusal(self, _):
        self.reply(200, completion(None, refusal="I will not."))

    def filtered(self, _):
        self.reply(200, completion("", finish_reason="content_filter"))

    def bad_prompt(self, _):
        self.reply(400, {"error": {"message": "This prompt is not allowed."}})

    def log_message(self, *_):
        pass


@contextmanager
def misbehaving(faults: dict[str, list] | None = None):
    """Serve while the block runs; yield the endpoint."""
    endpoint = Endpoint(faults or {})
    handler = type("Bound", (Handler,), {"endpoint": endpoint})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    # A client that gave up has closed its end: no traceback for that.
    server.handle_error = lambda *_: None
    endpoint.url = f"http://127.0.0.1:{server.server_port}/v1"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield endpoint
    finally:
        server.shutdown()
        server.server_close()
