"""The experiment's own base model behind a real endpoint: `transformers serve` on loopback."""

from __future__ import annotations

import contextlib
import logging
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from feyntune.errors import UserError
from feyntune.experiment.schema import Experiment
from feyntune.runs import records

HOST = "127.0.0.1"
PATIENCE = 60.0  # seconds until the server must listen; its model is loaded already
# A base model continues a text and knows no instructions: it gets only the user's text.
CONTINUE = "{{ messages[-1]['content'] }}"
WEIGHTS = ("*.safetensors", "tokenizer.json")


def model_hash(experiment: Experiment) -> str:
    """Hashes of the served model's weights and tokenizer, for the keys of its answers."""
    folder = Path(experiment.base_source)
    found = [file for pattern in WEIGHTS for file in folder.glob(pattern)]
    if not found:
        raise UserError(f"There is no model to serve in {folder}: run the earlier stages first.")
    return " ".join(f"{file.name}:{records.sha256(file)}" for file in sorted(found))


@contextmanager
def serving(experiment: Experiment, name: str) -> Iterator[str]:
    """Serve the base model under ``name`` while the block runs; yield the base URL.

    The server is a thread of this process: torch is not imported again, and a killed run leaves no
    server behind.
    """
    # Imports FastAPI, which nothing else needs.
    from transformers.cli.serve import Serve

    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / name
        place.mkdir()
        for file in Path(experiment.base_source).resolve().iterdir():
            if file.name != "chat_template.jinja":
                (place / file.name).symlink_to(file)
        (place / "chat_template.jinja").write_text(CONTINUE, encoding="utf-8")
        port = _free_port()
        # The model's name is that of its folder, so that requests hold no path of this machine.
        with contextlib.chdir(folder), _unlogged():
            server = Serve(
                force_model=name, host=HOST, port=port, log_level="error", non_blocking=True
            )
        try:
            _until_listening(port)
            yield f"http://{HOST}:{port}/v1"
        finally:
            server.kill_server()
            server._thread.join()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return probe.getsockname()[1]


@contextmanager
def _unlogged() -> Iterator[None]:
    """uvicorn logs every request, and the file of answers holds them already."""
    yield
    for name in ("uvicorn", "uvicorn.access", "uvicorn.error"):
        logging.getLogger(name).setLevel(logging.ERROR)


def _until_listening(port: int) -> None:
    end = time.monotonic() + PATIENCE
    while True:
        with contextlib.suppress(OSError), socket.create_connection((HOST, port), timeout=1):
            return
        if time.monotonic() > end:
            raise UserError(f"The base model could not be served on {HOST}:{port}.")
        time.sleep(0.02)
