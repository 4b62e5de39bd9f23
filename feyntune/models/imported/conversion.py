"""A GGUF file converted to a folder of safetensors, once.

transformers reads GGUF but does not load it as NF4. The weights are those that it reads, in
float32, so that no further bit is lost; what the file has rounded to four bits stays rounded.
"""

from __future__ import annotations

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GgufConfig

from feyntune.errors import UserError
from feyntune.experiment.files import only_file, writing
from feyntune.experiment.schema import Experiment
from feyntune.models.base import parameters
from feyntune.models.suitability import check_base
from feyntune.runs import records


def make(experiment: Experiment) -> None:
    """Convert model and tokenizer, and save them as one folder.

    Raises
    ------
    UserError
        If the file cannot be read as GGUF, or the model cannot be used as the experiment asks.
    """
    file = only_file(experiment.unconverted)
    source = {"pretrained_model_name_or_path": file.parent, "gguf_file": file.name}
    try:
        read = AutoModelForCausalLM.from_pretrained(
            **source, dtype=torch.float32, quantization_config=GgufConfig(dequantize=True)
        )
        # A model that was read from GGUF cannot be saved; one of the same weights can.
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(**source))
        model.load_state_dict(read.state_dict())
        tokenizer = AutoTokenizer.from_pretrained(**source)
    except (ValueError, KeyError, IndexError, OSError, RuntimeError) as error:
        raise UserError(
            f"{file} is no whole GGUF file of a model that transformers knows "
            f"({type(error).__name__}): remove it and fetch again."
        ) from None
    records.note(parameters=parameters(model))
    with writing(experiment.paths.base) as folder:
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    check_base(experiment)
