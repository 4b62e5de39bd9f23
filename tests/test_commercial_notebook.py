"""Notebook 05 for real: `transformers serve`, papermill, planted keys, and no keys at all."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from urllib.parse import urlsplit

import openai
import pandas as pd
import pytest
import torch
from misbehaving import completion, misbehaving

from feyntune.errors import UserError
from feyntune.evaluation import completions
from feyntune.evaluation.commercial import answers, chat, serving
from feyntune.experiment import load
from feyntune.paths import REPOSITORY

KEYS = {"ECHO_KEY": "sk-planted-echo/0123456789", "STRICT_KEY": "sk-planted-strict+9876543210"}
RUN = """
from feyntune import execution, experiment, stages
execution.execute(experiment.load("smoke"), stages.STAGES["05_commercial_llms"], None)
"""


def halves(stand_in, count):
    test = stand_in.rows("test")["abstract"][:count]
    return [list(half) for half in zip(*map(completions.split_prompt, test), strict=True)]


def test_what_is_served_is_the_base_model(stand_in):
    """Greedy answers over HTTP are those of `generate`, and the server is gone afterwards."""
    given, tokenizer, model = stand_in.experiment, stand_in.tokenizer, stand_in.base()
    prompt = halves(stand_in, 1)[0][0]
    ids = torch.tensor([tokenizer(prompt, add_special_tokens=False)["input_ids"]])
    with torch.inference_mode():
        out = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False,
                             max_new_tokens=12, pad_token_id=tokenizer.eos_token_id)  # fmt: skip
    expected = tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True)
    with serving.serving(given, "stand_in_base") as address:
        said = openai.OpenAI(base_url=address, api_key="none").chat.completions.create(
            model="stand_in_base",
            messages=[{"role": "system", "content": "x"}, {"role": "user", "content": prompt}],
            temperature=0.0,
            max_completion_tokens=12,
        )
    assert said.choices[0].message.content == expected and expected
    assert said.usage.prompt_tokens == ids.shape[1]
    with pytest.raises(OSError), socket.create_connection(("127.0.0.1", urlsplit(address).port)):
        pass


def test_answers_of_another_base_model_are_not_taken_for_this_ones(stand_in, monkeypatch):
    prompts, truths = halves(stand_in, 2)
    plan = chat.planned(stand_in.experiment, prompts, truths, stand_in.tokenizer)[0]
    monkeypatch.setattr(serving, "identity", lambda _: "model.safetensors:another")
    other = chat.planned(stand_in.experiment, prompts, truths, stand_in.tokenizer)[0]
    assert {each.key for each in plan.requests}.isdisjoint(each.key for each in other.requests)
    assert [each.body for each in plan.requests] == [each.body for each in other.requests]


def test_without_a_base_model_nothing_can_be_served(tmp_path, monkeypatch):
    monkeypatch.setenv("FEYNTUNE_OUTPUT", str(tmp_path))
    with pytest.raises(UserError, match="There is no model to serve"):
        serving.identity(load.load("smoke"))


def run_notebook(output, providers: dict, **keys: str) -> subprocess.CompletedProcess:
    """Notebook 05 of the shared stand-in, in a process of its own, as talkative as can be."""
    environment = {name: value for name, value in os.environ.items() if name not in KEYS}
    environment |= {
        "PYTHONPATH": str(REPOSITORY),
        "FEYNTUNE_OUTPUT": str(output),
        "FEYNTUNE__COMMERCIAL__PROVIDERS": json.dumps(providers),
        "FEYNTUNE__COMMERCIAL__RETRIES": "1",
        "FEYNTUNE__COMMERCIAL__LIMITS": '{"usd": 1.0, "tokens": null}',
        "OPENAI_LOG": "debug",
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
    executed = paths.notebook("05_commercial_llms", None).read_text()
    assert "strict: not asked: STRICT_KEY is not set" in executed
    assert "echo: not asked" not in executed, "all its answers are recorded"
    echoed = pd.read_parquet(paths.answered("echo"))
    assert set(echoed["completion"]) == {"We find [key]."}
    served = pd.read_parquet(paths.answered("stand-in"))
    assert served["semscore"].between(-1, 1.000001).all() and len(served) == 6
    assert (served["entropy_exp"] <= served["tokens"] + 1e-9).all() and (served["tokens"] > 0).all()
    assert not paths.answered("strict").exists()
    account = json.loads(paths.asked.read_text())
    assert account["strict"]["reason"] == "STRICT_KEY is not set"
    assert account["stand-in"]["statuses"] == {"answered": 6}
