"""Whether a base model can be trained and measured as an experiment asks, before anything runs."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import AutoConfig, AutoTokenizer, PretrainedConfig, PreTrainedTokenizerBase
from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
from transformers.pytorch_utils import Conv1D

from feyntune.errors import UserError
from feyntune.experiment.schema import Experiment
from feyntune.experiment.sections import NF4_BLOCK
from feyntune.models.architecture import (
    check_lora_arguments,
    context_length,
    linear_layers,
    missing_modules,
    skeleton,
)
from feyntune.models.base import find_start, stand_in_configuration

HUB_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*")
CAUSAL = ("ForCausalLM", "LMHeadModel")
# One of these is in every folder with a tokenizer.
TOKENIZERS = ("tokenizer.json", "*.model", "vocab.*", "*.tiktoken", "tekken.json")
SAFETENSORS, INDEX = "*.safetensors", "model.safetensors.index.json"
UNREADABLE = (
    OSError, ValueError, TypeError, AttributeError, LookupError, ImportError, StrictDataclassError,
)  # fmt: skip


def check_base(experiment: Experiment, *, ask_hub: bool = True) -> None:
    """Check everything about the base model that needs none of its weights.

    A model that is to be fetched and is not here yet is checked by its name alone; check it again
    when it is here.

    Parameters
    ----------
    ask_hub
        Whether configuration and tokenizer of a Hub id may be downloaded; otherwise only the name
        of such a model is checked.

    Raises
    ------
    UserError
        In one line, all that is wrong and what there is instead.
    """
    if experiment.base.model is None:
        _refuse(
            "The stand-in base",
            _wrong_targets(experiment, stand_in_configuration(experiment.base.stand_in)),
        )
        return
    folder = Path(experiment.base_source)
    name = f"base.model {experiment.base.model}"
    if folder.is_dir():
        _refuse(name, _wrong_files(folder))
    elif not HUB_ID.fullmatch(experiment.base.model):
        _refuse(name, ["it is no folder here, and no Hub id, which is owner/name"])
    elif folder.is_absolute() or not ask_hub:
        return
    config = _configuration(experiment, name)
    _refuse(name, _wrong_architecture(config))
    _refuse(name, [*_wrong_tokenizer(experiment, config), *_wrong_fit(experiment, config)])


def _refuse(name: str, problems: list[str] | Iterator[str]) -> None:
    if found := list(problems):
        raise UserError(f"{name} cannot be used: {'; '.join(found)}.")


def _wrong_files(folder: Path) -> Iterator[str]:
    """What a folder with a model has and this one lacks."""
    if not (folder / "config.json").is_file():
        yield f"there is no config.json in {folder}"
    if not any(any(folder.glob(name)) for name in TOKENIZERS):
        yield f"there is no tokenizer in {folder} (tokenizer.json)"
    weights = {path.name for path in folder.glob(SAFETENSORS)}
    if not weights:
        yield f"there are no weights in {folder} as safetensors"
    if (folder / INDEX).is_file():
        named = json.loads((folder / INDEX).read_text(encoding="utf-8"))["weight_map"].values()
        if lacking := sorted(set(named) - weights):
            yield f"{folder} lacks {', '.join(lacking)}"


def _configuration(experiment: Experiment, name: str) -> PretrainedConfig:
    """The model's configuration, of a type that needs no code but the library's."""
    place = {"revision": experiment.base.revision}
    try:
        given, _ = PretrainedConfig.get_config_dict(experiment.base_source, **place)
        kind = given.get("model_type")
        if kind not in CONFIG_MAPPING_NAMES:
            own = ", and its own code is not run" if "auto_map" in given else ""
            _refuse(name, [f"transformers has no model type {kind!r}{own}"])
        return AutoConfig.from_pretrained(experiment.base_source, trust_remote_code=False, **place)
    except UNREADABLE as error:
        place = "its config.json" if Path(experiment.base_source).is_dir() else "it from the Hub"
        raise UserError(
            f"{name} cannot be used: {place} cannot be read ({_first_line(error)}). Give a folder "
            "here, or a Hub id that may be read from here, as owner/name."
        ) from None


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def _wrong_architecture(config: PretrainedConfig) -> Iterator[str]:
    """Why a configuration is not that of a model of next tokens."""
    causal = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.get(config.model_type)
    named = config.architectures or []
    if causal is None or config.is_encoder_decoder:
        yield f"a {config.model_type} is no causal language model"
    elif named and not any(name == causal or name.endswith(CAUSAL) for name in named):
        yield f"it is a {', '.join(named)}, no causal language model"


def _wrong_tokenizer(experiment: Experiment, config: PretrainedConfig) -> Iterator[str]:
    """What the tokenizer lacks for training and generation, and for ``base.start``."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            experiment.base_source, revision=experiment.base.revision, trust_remote_code=False
        )
    except UNREADABLE as error:
        yield f"its tokenizer cannot be read ({_first_line(error)})"
        return
    if tokenizer.eos_token_id is None:
        yield "its tokenizer has no EOS, the end of every abstract"
    try:
        find_start(tokenizer, experiment.base.start)
    except UserError as error:
        yield str(error).rstrip(".")
    yield from _wrong_vocabulary(tokenizer, config)


def _wrong_vocabulary(
    tokenizer: PreTrainedTokenizerBase, config: PretrainedConfig
) -> Iterator[str]:
    words, rows = max(tokenizer.get_vocab().values()) + 1, config.get_text_config().vocab_size
    if words > rows:
        yield f"its tokenizer has {words:,} tokens and its embedding only {rows:,}"


def _wrong_fit(experiment: Experiment, config: PretrainedConfig) -> Iterator[str]:
    """What does not fit between a model and the experiment's settings."""
    context, longest = context_length(config), experiment.completions.max_new_tokens
    if longest >= context:
        yield f"it reads {context:,} tokens, which completions.max_new_tokens {longest:,} exceeds"
    if experiment.trained == "here":
        longest = max(v.training.max_length for v in experiment.variants.values())
        if longest > context:
            yield f"it reads {context:,} tokens: lower training.max_length, which is {longest:,}"
        yield from _wrong_targets(experiment, config)
        yield from _broken_blocks(experiment, config)


def _wrong_targets(experiment: Experiment, config: PretrainedConfig) -> Iterator[str]:
    """Target modules of the experiment's flavours that the model does not have."""
    flavours = {v.flavour: v.training.lora for v in experiment.variants.values()}
    for flavour, lora in flavours.items():
        try:
            check_lora_arguments(lora.arguments)
        except UserError as error:
            yield f"flavour {flavour}: {str(error).rstrip('.')}"
        missing, there = missing_modules(config, lora.target_modules)
        if missing:
            yield (
                f"{flavour} cannot be put on {', '.join(missing)}; "
                f"a {config.model_type} has {', '.join(there)}"
            )


def _broken_blocks(experiment: Experiment, config: PretrainedConfig) -> Iterator[str]:
    """Layers that bitsandbytes' CPU kernel gives back wrong: a row ends inside a block."""
    if experiment.base.quantization is None or torch.cuda.is_available():
        return
    layers = linear_layers(skeleton(config)).items()
    widths = {n: m.weight.shape[0 if isinstance(m, Conv1D) else 1] for n, m in layers}
    if broken := {n.rsplit(".", 1)[-1]: w for n, w in widths.items() if w % NF4_BLOCK}:
        shown = ", ".join(f"{name} {width}" for name, width in broken.items())
        yield (
            f"on a CPU, widths must be multiples of {NF4_BLOCK}, NF4's block ({shown}): set "
            "base.quantization to null, or train on a GPU"
        )
