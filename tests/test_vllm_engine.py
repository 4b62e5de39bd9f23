"""vLLM behind the same function: against a stand-in of it, made after the source of vLLM 0.30.

The stand-in takes exactly the arguments that ours gives it and refuses all others, as the
original does; its completions are known beforehand. vLLM itself needs a GPU.
"""

import ast
import sys
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import tiny

from feyntune.errors import UserError
from feyntune.evaluation import completions, vllm_engine
from feyntune.evaluation.completions import Kept
from feyntune.evaluation.generation import seed_of
from feyntune.models import base

PROMPTS = ["We study", "In this paper", "Black holes are"]


@dataclass(kw_only=True)
class SamplingParams:
    temperature: float
    top_p: float
    top_k: int
    min_tokens: int
    max_tokens: int
    seed: int
    stop_token_ids: list
    detokenize: bool
    output_kind: object


@dataclass(kw_only=True)
class EngineArgs:
    model: str
    revision: str | None
    tokenizer_revision: str | None
    dtype: str
    max_model_len: int
    generation_config: str
    disable_log_stats: bool
    enable_lora: bool = False
    max_loras: int = 1
    max_lora_rank: int = 16


@dataclass(kw_only=True, frozen=True)
class LoRARequest:
    lora_name: str
    lora_int_id: int
    lora_path: str


class RequestOutputKind(Enum):
    CUMULATIVE = 0
    DELTA = 1
    FINAL_ONLY = 2


@dataclass
class LLMEngine:
    """Ends the last request first, each with its prompt backwards and EOS."""

    args: EngineArgs
    requests: list = field(default_factory=list)
    steps: int = 0
    closed: bool = False
    fails_after: int | None = None

    def __post_init__(self):
        self.engine_core = SimpleNamespace(shutdown=lambda: setattr(self, "closed", True))

    def add_request(self, request_id, prompt, params, *, lora_request=None):
        assert isinstance(request_id, str)
        assert len(prompt["prompt_token_ids"]) + params.max_tokens <= self.args.max_model_len
        self.requests.append((request_id, prompt, params, lora_request))

    def has_unfinished_requests(self):
        return self.steps < 2 * len(self.requests)

    def step(self):
        self.steps += 1
        if self.steps == self.fails_after:
            raise RuntimeError("the engine died")
        if self.steps % 2:  # nothing has ended
            return []
        name, prompt, params, _ = self.requests[-(self.steps // 2)]
        ids = [*prompt["prompt_token_ids"][::-1], *params.stop_token_ids]
        output = SimpleNamespace(token_ids=tuple(ids))
        return [SimpleNamespace(request_id=name, finished=True, outputs=[output])]


@pytest.fixture
def vllm(monkeypatch):
    """The stand-in, with the engines that were made."""
    made = ModuleType("vllm")
    made.engines, made.options = [], {}

    class Engine(LLMEngine):
        @classmethod
        def from_engine_args(cls, args):
            made.engines.append(cls(args, **made.options))
            return made.engines[-1]

    made.LLMEngine, made.EngineArgs, made.TokensPrompt = Engine, EngineArgs, dict
    parameters, lora, request = (
        ModuleType(f"vllm.{name}") for name in ("sampling_params", "lora", "lora.request")
    )
    parameters.SamplingParams = SamplingParams
    parameters.RequestOutputKind = RequestOutputKind
    request.LoRARequest = LoRARequest
    for module in (made, parameters, lora, request):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    return made


@pytest.fixture
def settings(stand_in):
    """The tiny stand-in's experiment, with vLLM as its engine."""
    section = stand_in.experiment.completions.model_copy(
        update={"engine": "vllm", "max_new_tokens": 24}
    )
    return stand_in.experiment.model_copy(update={"completions": section})


def test_every_prompt_is_a_request_with_its_own_seed(stand_in, settings, vllm):
    tokenizer = stand_in.tokenizer
    encoded = base.encode(tokenizer, PROMPTS, bos=False, eos=False)
    served = completions.load(settings, "base")
    found = completions.generate(served, tokenizer, PROMPTS, settings.completions)
    assert found == [ids[::-1] for ids in encoded], "in the order of the prompts, without EOS"
    (engine,) = vllm.engines
    assert engine.args == EngineArgs(
        model=str(stand_in.experiment.paths.base),
        revision=None,
        tokenizer_revision=None,
        dtype="float32",
        max_model_len=max(map(len, encoded)) + 24,
        generation_config="vllm",
        disable_log_stats=True,
    )
    given = settings.completions
    for (_, prompt, params, lora), ids, text in zip(engine.requests, encoded, PROMPTS, strict=True):
        assert prompt == {"prompt_token_ids": ids} and lora is None
        assert params == SamplingParams(
            temperature=given.temperature,
            top_p=given.top_p,
            top_k=given.top_k,
            min_tokens=1,
            max_tokens=24,
            seed=seed_of(given.seed, text),
            stop_token_ids=[tokenizer.eos_token_id],
            detokenize=False,
            output_kind=RequestOutputKind.FINAL_ONLY,
        )
    assert engine.closed, "its GPU memory is wanted for the embeddings"


def test_a_variant_is_served_with_its_adapter(stand_in, settings, vllm):
    served = completions.load(settings, tiny.VARIANT)
    completions.generate(served, stand_in.tokenizer, PROMPTS, settings.completions)
    (engine,) = vllm.engines
    assert (engine.args.enable_lora, engine.args.max_loras) == (True, 1)
    assert engine.args.max_lora_rank == 8 == settings.training.lora.r
    folder = stand_in.experiment.paths.adapter(tiny.VARIANT)
    assert {lora for *_, lora in engine.requests} == {
        LoRARequest(lora_name=tiny.VARIANT, lora_int_id=1, lora_path=str(folder))
    }


@pytest.mark.parametrize(("rank", "room"), [(1, 8), (8, 8), (9, 16), (64, 64), (512, 512)])
def test_room_for_the_rank(rank, room, tmp_path):
    served = vllm_engine.Served("base", None, "float16", 100, tmp_path, rank)
    assert vllm_engine._engine(served, 50)["max_lora_rank"] == room


def test_a_rank_that_vllm_cannot_serve(stand_in, settings, vllm, monkeypatch):
    monkeypatch.setattr(vllm_engine, "RANKS", (1, 4))
    with pytest.raises(UserError, match="up to rank 4, and s1-LoRA-all's is 8: set completions"):
        completions.load(settings, tiny.VARIANT)


def test_what_has_ended_is_kept_when_the_engine_dies(stand_in, settings, vllm, tmp_path):
    file, served = tmp_path / "kept.jsonl", completions.load(settings, "base")
    vllm.options = {"fails_after": 5}  # two requests have ended
    with pytest.raises(RuntimeError, match="the engine died"):
        completions.generate(
            served, stand_in.tokenizer, PROMPTS, settings.completions, kept=Kept(file, "x")
        )
    assert vllm.engines[0].closed
    assert sorted(Kept(file, "x").of(PROMPTS)) == [1, 2]
    vllm.options = {}
    found = completions.generate(
        served, stand_in.tokenizer, PROMPTS, settings.completions, kept=Kept(file, "x")
    )
    encoded = base.encode(stand_in.tokenizer, PROMPTS, bos=False, eos=False)
    assert found == [ids[::-1] for ids in encoded]
    assert len(vllm.engines[1].requests) == 1


def test_no_room_for_a_completion_is_said_before_vllm_starts(stand_in, settings, vllm):
    served = completions.load(settings, "base")
    assert served.context == stand_in.base().config.max_position_embeddings
    long = settings.completions.model_copy(update={"max_new_tokens": served.context})
    with pytest.raises(UserError, match=r"abstract 2401\.1 has"):
        completions.generate(served, stand_in.tokenizer, ["We"], long, names=["2401.1"])
    assert vllm.engines == []


def test_without_vllm_one_line_says_how_to_get_it(settings, monkeypatch):
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(UserError, match=r"pip install 'feyntune\[vllm\]'") as caught:
        completions.load(settings, "base")
    assert "\n" not in str(caught.value)


def test_it_is_imported_only_when_chosen():
    top = ast.parse(Path(vllm_engine.__file__).read_text()).body
    names = [ast.unparse(node) for node in top if isinstance(node, ast.Import | ast.ImportFrom)]
    assert names and not any("vllm" in name for name in names)
