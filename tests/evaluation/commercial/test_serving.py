"""The experiment's own base model behind a real endpoint, `transformers serve`."""

from __future__ import annotations

import socket
from urllib.parse import urlsplit

import openai
import pytest
import torch

from feyntune.errors import UserError
from feyntune.evaluation import completions
from feyntune.evaluation.commercial import chat, serving
from feyntune.experiment import load


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
    plan = chat.plan_requests(stand_in.experiment, prompts, truths, stand_in.tokenizer)[0]
    monkeypatch.setattr(serving, "model_hash", lambda _: "model.safetensors:another")
    other = chat.plan_requests(stand_in.experiment, prompts, truths, stand_in.tokenizer)[0]
    assert {each.key for each in plan.requests}.isdisjoint(each.key for each in other.requests)
    assert [each.body for each in plan.requests] == [each.body for each in other.requests]


def test_without_a_base_model_nothing_can_be_served(tmp_path, monkeypatch):
    monkeypatch.setenv("FEYNTUNE_OUTPUT", str(tmp_path))
    with pytest.raises(UserError, match="There is no model to serve"):
        serving.model_hash(load.load("smoke"))
