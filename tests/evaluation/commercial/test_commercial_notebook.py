"""Notebook 05 for real: `transformers serve`, papermill, planted keys, and no keys at all."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import own_experiments
import pandas as pd
from misbehaving import completion, misbehaving

from feyntune.evaluation.commercial import answers
from feyntune.experiment import load
from feyntune.paths import REPOSITORY
from feyntune.runs import records, stages

KEYS = {"ECHO_KEY": "sk-planted-echo/q7d93kf5zb", "STRICT_KEY": "sk-planted-strict+x8w2v6t4rj"}
RUN = """
from feyntune.experiment import load
from feyntune.pipeline import notebooks
from feyntune.runs import stages
notebooks.execute(stages.run(load.load("smoke"), stages.COMMERCIAL))
"""


def run_notebook(output, providers: dict, **keys: str) -> subprocess.CompletedProcess:
    """Notebook 05 of the shared stand-in, in a process of its own, as talkative as can be."""
    settings = {"providers": providers, "retries": 1, "limits": {"usd": 1.0, "tokens": None}}
    own_experiments.changed(output, "smoke", {f"commercial.{k}": v for k, v in settings.items()})
    environment = {name: value for name, value in os.environ.items() if name not in KEYS}
    environment |= {
        "PYTHONPATH": str(REPOSITORY),
        "FEYNTUNE_OUTPUT": str(output),
        "OPENAI_LOG": "debug",
        records.FACTS_VARIABLE: str(output / "facts.json"),  # as the runner does
    }
    return subprocess.run(
        [sys.executable, "-c", RUN], env=environment | keys, capture_output=True, text=True
    )


def echo(headers, _):
    """An answer that holds the key wherever one can be put."""
    key = headers["Authorization"].removeprefix("Bearer ")
    return 200, completion(f"We find {key}.", model=key, system_fingerprint=key, note={key: key})


def strict(headers, _):
    key = headers["Authorization"].removeprefix("Bearer ")
    return 401, {"error": {"message": f"Incorrect API key provided: {key}."}}


def found_in(place, run: subprocess.CompletedProcess) -> set[str]:
    """Where any planted key stands, in full or by its telling half."""
    halves = [part.encode() for key in KEYS.values() for part in (key, key[:12], key[-8:])]
    texts = {"stdout": run.stdout.encode(), "stderr": run.stderr.encode()}
    texts |= {str(file): file.read_bytes() for file in place.rglob("*") if file.is_file()}
    return {name for name, text in texts.items() if any(half in text for half in halves)}


def test_keys_are_nowhere_and_without_them_the_notebook_goes_on(stand_in):
    paths = stand_in.experiment.paths
    smoke = json.loads(load.load("smoke").commercial.model_dump_json())["providers"]
    with misbehaving({"*": echo}) as echoing, misbehaving({"*": strict}) as refusing:
        given = {
            "price": {"prompt": 1.0, "answer": 1.0}, "model": "m", "parameters": {"max_tokens": 9}
        }  # fmt: skip
        providers = smoke | {
            "echo": given | {"base_url": echoing.url, "key_variable": "ECHO_KEY"},
            "strict": given | {"base_url": refusing.url, "key_variable": "STRICT_KEY"},
        }
        failed = run_notebook(stand_in.output, providers, **KEYS)
        sent = {each["headers"]["authorization"] for each in echoing.got + refusing.got}
    assert sent == {f"Bearer {key}" for key in KEYS.values()}, "the keys were really used"
    assert failed.returncode and "It refuses the key STRICT_KEY" in failed.stderr
    assert "Incorrect API key provided: [key]" in failed.stderr
    assert len(answers.read(paths.answers("echo"))) == len(answers.read(paths.answers("stand-in")))
    assert found_in(stand_in.output, failed) == set()

    done = run_notebook(stand_in.output, providers)  # nobody listens, no key is set
    assert done.returncode == 0, done.stderr
    assert found_in(stand_in.output, done) == set()
    executed = stages.run(stand_in.experiment, stages.COMMERCIAL).notebook.read_text()
    assert "strict: not asked: STRICT_KEY is not set" in executed
    assert "echo: not asked" not in executed, "all its answers are recorded"
    assert "echo: not compared: answers of a real model, completions of a stand-in" in executed
    echoed = pd.read_parquet(paths.answered("echo"))
    assert set(echoed["completion"]) == {"We find [key]."}
    served = pd.read_parquet(paths.answered("stand-in"))
    assert served["semscore"].between(-1, 1.000001).all() and len(served) == 6
    assert (served["entropy_exp"] <= served["tokens"] + 1e-9).all() and (served["tokens"] > 0).all()
    assert not paths.answered("strict").exists()
    account = json.loads(paths.asked.read_text())
    assert account["strict"]["reason"] == "STRICT_KEY is not set"
    assert account["stand-in"]["statuses"] == {"answered": 6}
