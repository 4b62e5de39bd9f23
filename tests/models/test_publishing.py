"""Adapters as repositories: plain PEFT loads them, the card tells the truth, the Hub gets them."""

import base64
import json
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pandas as pd
import pytest
import torch
from huggingface_hub import HfApi, ModelCard
from peft import PeftModel

from feyntune.errors import UserError
from feyntune.models import adapters, publishing
from feyntune.training.log import training_log

VARIANT, TOKEN = "s1-LoRA-all", "hf_writes"


@dataclass
class Hub:
    """What was made and committed, as far as `create_repo` and `upload_folder` ask."""

    url: str = ""
    made: list[dict] = field(default_factory=list)
    commits: list[dict[str, bytes]] = field(default_factory=list)


class Handler(BaseHTTPRequestHandler):
    hub: Hub

    def log_message(self, *_):
        pass

    def do_GET(self):
        if self.headers["Authorization"] != f"Bearer {TOKEN}":
            return self.reply({"error": "Invalid user token."}, 401)
        return self.reply({"sha": "0" * 40, "id": "me/it", "siblings": []})

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"] or 0))
        if self.headers["Authorization"] != f"Bearer {TOKEN}":
            return self.reply({"error": "Invalid user token."}, 401)
        if self.path == "/api/repos/create":
            asked = json.loads(body)
            self.hub.made.append(asked)
            place = f"{asked['organization']}/{asked['name']}"
            return self.reply({"url": f"{self.hub.url}/{place}"})
        if self.path.endswith("/preupload/main"):
            files = [
                {"path": f["path"], "uploadMode": "regular", "shouldIgnore": False}
                for f in json.loads(body)["files"]
            ]
            return self.reply({"files": files})
        if self.path.endswith("/commit/main"):
            lines = [json.loads(line) for line in body.splitlines()]
            files = [line["value"] for line in lines if line["key"] == "file"]
            self.hub.commits.append({f["path"]: base64.b64decode(f["content"]) for f in files})
            url = f"{self.hub.url}/me/it/commit/{'a' * 40}"
            return self.reply({"commitUrl": url, "commitOid": "a" * 40, "pullRequestUrl": None})
        return self.reply({})

    def reply(self, body: dict, status: int = 200):
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


@pytest.fixture
def hub(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    found = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"hub": found}))
    found.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield found
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def made(stand_in):
    """The stand-in's experiment with the log that goes with its adapter."""
    state = max(stand_in.experiment.paths.checkpoints(VARIANT).glob("checkpoint-*/trainer_state*"))
    log = training_log(json.loads(state.read_text())["log_history"])
    log.to_parquet(stand_in.experiment.paths.log(VARIANT))
    return stand_in.experiment


def prepared(made):
    return publishing.prepare(made, [VARIANT], "me")[0]


def test_nothing_is_pushed_by_showing(made, hub):
    publication = prepared(made)
    shown = publishing.show(publication)
    assert publication.repository == "me/feyntune-smoke-s1-LoRA-all"
    for name in ("README.md", "adapter_config.json", "adapter_model.safetensors"):
        assert f"bytes  {name}" in shown
    assert hub.made == hub.commits == []


def test_pushed_is_exactly_what_was_shown(made, hub):
    publication = prepared(made)
    api = HfApi(endpoint=hub.url, token=TOKEN)
    publishing.push([publication], private=True, api=api, report=str)
    assert hub.made[0]["visibility"] == "private"
    (commit,) = hub.commits
    assert {name: len(content) for name, content in commit.items()} == publication.files()
    for name in publishing.FILES:
        assert commit[name] == (publication.folder / name).read_bytes()
    assert commit["README.md"].decode() == publication.card
    assert not (publication.folder / "README.md").exists()


def test_a_token_that_may_not_write_is_one_line(made, hub):
    api = HfApi(endpoint=hub.url, token="hf_reads")
    with pytest.raises(UserError, match=r"could not be published .* HF_TOKEN"):
        publishing.push([prepared(made)], private=True, api=api)
    assert hub.commits == []


def test_plain_peft_loads_the_repository(made, stand_in, tmp_path):
    folder = tmp_path / "repository"
    publishing.write(prepared(made), folder)
    ids = torch.tensor([stand_in.tokenised("validation")[0]["input_ids"]])
    with torch.no_grad():
        plain = stand_in.base()
        before = plain(input_ids=ids).logits
        loaded = PeftModel.from_pretrained(plain, folder).eval()
        after = loaded(input_ids=ids).logits
        ours = adapters.load_model(made, VARIANT, dtype="float32")(input_ids=ids).logits
    assert not torch.allclose(before, after) and torch.equal(after, ours)


# --- what is not published --------------------------------------------------------------------


def test_an_adapter_that_is_not_there_is_named(made):
    with pytest.raises(UserError, match="no adapter of s2-LoRA-QKV to publish: run feyntune run"):
        publishing.prepare(made, ["s2-LoRA-QKV"], "me")


def test_an_adapter_of_another_making_is_refused(made):
    own = made.variants[VARIANT]
    lora = own.training.lora.model_copy(update={"r": 16})
    training = own.training.model_copy(update={"lora": lora})
    other = made.variants | {VARIANT: own.model_copy(update={"training": training})}
    with pytest.raises(UserError, match="rank 8; the experiment has 16"):
        prepared(made.model_copy(update={"variants": other}))


# --- the card ---------------------------------------------------------------------------------


def test_the_card_tells_the_optimiser_that_was_used(made):
    content = ModelCard(prepared(made).card)
    training = made.variants[VARIANT].training
    assert (training.adam_beta1, training.adam_beta2) == (0.9, 0.95)
    for line in (
        "| optimiser | adamw_torch, betas 0.9 and 0.95, epsilon 1e-05 |",
        "| weight decay | 0.1 |",
        f"| learning rate | {training.learning_rate} |",
        "| LoRA | r 8, alpha 32, dropout 0.05, bias none |",
        "| base weights | NF4, double quantised, computed in float32 |",
    ):
        assert line in content.text
    assert "stand-in" in content.text and "stand-in" in content.data.tags
    assert content.data.library_name == "peft"


def test_the_card_holds_the_results_that_there_are(made):
    publication = prepared(made)
    assert "test perplexity" not in publication.card
    log = pd.read_parquet(made.paths.log(VARIANT))
    text = publishing.card(
        made,
        VARIANT,
        revision="c0ffee",
        log=log,
        perplexity=pd.DataFrame({"perplexity": [10.0, 20.0]}),
    )
    assert "| mean test perplexity | 15.000 (2 abstracts) |" in text
    assert "at revision `c0ffee`" in text
    assert ModelCard(text).data.eval_results[0].metric_value == 15.0
    assert f"| validation loss after | {log['eval_loss'].dropna().iloc[-1]:.4f}" in text
