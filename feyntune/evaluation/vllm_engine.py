"""vLLM as the engine of completions, for GPUs: the extra ``vllm``, imported only when chosen.

Written after the published source of vLLM 0.30, the newest for the lock's torch and transformers,
and tested against a stand-in of the parts that it calls: it has not been run by us on a GPU.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from transformers import AutoConfig

from feyntune.errors import UserError
from feyntune.evaluation.generation import Ended
from feyntune.experiment.recipes import BASE
from feyntune.experiment.schema import Experiment
from feyntune.experiment.sections import Completions

# vLLM sets room aside for one of these ranks.
RANKS = (8, 16, 32, 64, 128, 256, 320, 512)


@dataclass(frozen=True)
class Served:
    """What vLLM loads when it is asked to sample, and lets go of afterwards.

    Attributes
    ----------
    model, revision
        Folder or Hub id of the base model, and its commit.
    adapter, rank
        Folder of a LoRA adapter and its rank; ``None`` and 0 for the base model alone.
    context
        The longest sequence that the model was made for, in tokens.
    """

    model: str
    revision: str | None
    dtype: str
    context: int
    adapter: Path | None = None
    rank: int = 0


def load(experiment: Experiment, model: str) -> Served:
    """Describe a model for vLLM, once it is sure that there is one.

    Raises
    ------
    UserError
        If vLLM is not installed, or cannot serve an adapter of this rank.
    """
    _vllm()
    source, revision = experiment.base_source, experiment.base.revision
    context = AutoConfig.from_pretrained(source, revision=revision).max_position_embeddings
    served = Served(source, revision, experiment.completions.dtype, context)
    if model == BASE:
        return served
    folder = experiment.paths.adapter(model)
    rank = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))["r"]
    if rank > RANKS[-1]:
        raise UserError(
            f"vLLM serves adapters up to rank {RANKS[-1]}, and {model}'s is {rank}: set "
            "completions.engine to transformers."
        )
    return Served(source, revision, served.dtype, context, folder, rank)


def sample(
    served: Served,
    sequences: Sequence[Sequence[int]],
    seeds: Sequence[int],
    settings: Completions,
    *,
    end: int,
    ended: Ended,
) -> None:
    """Sample a completion of every sequence: as :func:`feyntune.evaluation.generation.sample`.

    vLLM decides what runs together, and draws by each request's own seed in a way of its own:
    completions are others than those of transformers, and as independent of their neighbours as
    its kernels' rounding lets them be.
    """
    vllm = _vllm()
    # A context no longer than needed, so that memory for one of Llama's 131,072 is not asked for.
    longest = max(map(len, sequences)) + settings.max_new_tokens
    engine = vllm.LLMEngine.from_engine_args(vllm.EngineArgs(**_engine(served, longest)))
    adapter = _adapter(served)
    for position, (ids, seed) in enumerate(zip(sequences, seeds, strict=True)):
        prompt = vllm.TokensPrompt(prompt_token_ids=list(ids))
        parameters = _parameters(settings, seed, end)
        engine.add_request(str(position), prompt, parameters, lora_request=adapter)
    try:
        while engine.has_unfinished_requests():
            for output in engine.step():
                if output.finished:
                    ids = list(output.outputs[0].token_ids)
                    ended(int(output.request_id), ids[: ids.index(end)] if end in ids else ids)
    finally:
        # Its own process holds nearly all of the GPU's memory, which embedding needs next.
        engine.engine_core.shutdown()


def _engine(served: Served, longest: int) -> dict:
    """Arguments of the engine."""
    room = next((rank for rank in RANKS if rank >= served.rank), None)
    return {
        "model": served.model,
        "revision": served.revision,
        "tokenizer_revision": served.revision,
        "dtype": served.dtype,
        "max_model_len": longest,
        "generation_config": "vllm",  # the model's own file has no say
        "disable_log_stats": True,
        **({"enable_lora": True, "max_loras": 1, "max_lora_rank": room} if served.adapter else {}),
    }


def _parameters(settings: Completions, seed: int, end: int) -> object:
    from vllm.sampling_params import RequestOutputKind, SamplingParams

    return SamplingParams(
        temperature=settings.temperature,
        top_p=settings.top_p,
        top_k=settings.top_k,
        min_tokens=settings.min_new_tokens,
        max_tokens=settings.max_new_tokens,
        seed=seed,
        stop_token_ids=[end],
        detokenize=False,
        output_kind=RequestOutputKind.FINAL_ONLY,
    )


def _adapter(served: Served) -> object | None:
    if served.adapter is None:
        return None
    from vllm.lora.request import LoRARequest

    return LoRARequest(
        lora_name=served.adapter.parent.name, lora_int_id=1, lora_path=str(served.adapter)
    )


def _vllm() -> ModuleType:
    try:
        import vllm
    except ImportError as error:
        raise UserError(
            f"completions.engine is vllm, which cannot be imported ({error}). Install it, on a "
            "machine with a GPU: pip install 'feyntune[vllm]'; or set the engine to transformers."
        ) from None
    return vllm
