"""The sections of an experiment: every setting, typed, strict and in range.

No key is optional: an experiment spells out every setting that moves a result.
"""

from __future__ import annotations

from collections import Counter
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator

Share = Annotated[float, Field(gt=0, lt=1)]
Positive = Annotated[int, Field(gt=0)]
Rate = Annotated[float, Field(gt=0, le=1)]
Above = Annotated[float, Field(gt=0)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Name = Annotated[str, Field(min_length=1)]
Rater = Annotated[str, Field(pattern=r"^\w[\w-]*$")]  # also the name of a file
# Schedules of transformers, each with its own arguments (beside the warm-up).
SCHEDULES = {
    "linear": (),
    "cosine": ("num_cycles",),
    "cosine_with_restarts": ("num_cycles",),
    "cosine_with_min_lr": ("num_cycles", "min_lr", "min_lr_rate"),
    "polynomial": ("lr_end", "power"),
    "constant": (),
    "constant_with_warmup": (),
    "inverse_sqrt": ("timescale",),
}
DType = Literal["float32", "bfloat16", "float16"]
NF4_BLOCK = 64
# What LoRA can be put on in the stand-in, as in every Llama.
STAND_IN_LAYERS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
# Marks a setting that changes no result: how fast, how much is kept, what it may cost.
CHANGES_NO_RESULT = "changes no result"


class Section(BaseModel):
    """Strict: no unknown keys, no text where a number belongs, no change after loading."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


def result_settings(value: Any) -> Any:
    """A section, or a value of one, as plain data without the settings that change no result.

    What a stage's key is made of: a new setting with the mark makes no result stale.
    """
    if isinstance(value, BaseModel):
        named = {
            name: result_settings(getattr(value, name))
            for name, field in type(value).model_fields.items()
            if CHANGES_NO_RESULT not in field.metadata
        }
        return named | (value.model_extra or {})
    if isinstance(value, dict):
        return {key: result_settings(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [result_settings(inner) for inner in value]
    return value


class StandInSnapshot(Section):
    """The synthetic snapshot: number of records and seed of the grammar."""

    records: Positive
    seed: Seed


class NearDuplicates(Section):
    """When two abstracts count as copies of each other, and how such pairs are looked for.

    Texts are compared by their sets of ``shingle_words`` successive words: near-duplicates share
    at least ``similarity`` of both sets together (Jaccard). MinHash with ``permutations`` proposes
    the pairs that are then compared exactly.
    """

    shingle_words: Positive
    similarity: Share
    permutations: Annotated[int, Field(ge=16)]
    seed: Seed


class Data(Section):
    """From the snapshot to the datasets. ``sample`` is by field; all there are, if not named."""

    snapshot: Name | None
    stand_in: StandInSnapshot | None
    excluded_ids: list[str]
    bad_lines_allowed: Annotated[float, Field(ge=0, lt=1), CHANGES_NO_RESULT]
    sample: dict[str, Positive | None]
    sample_seed: Seed
    train_share: Share
    split_seed: Seed
    shuffle_seed: Seed
    near_duplicates: NearDuplicates


class StandInBase(Section):
    """The tiny Llama, its tokenizer and how it is trained."""

    vocabulary: Annotated[int, Field(ge=512)]
    hidden_size: Positive
    intermediate_size: Positive
    layers: Positive
    attention_heads: Positive
    key_value_heads: Positive
    max_positions: Positive
    rope_theta: Above
    norm_epsilon: Above
    initializer_range: Above
    abstracts: Positive
    hep_th_share: Annotated[float, Field(ge=0, lt=1)]
    epochs: Positive
    batch_size: Positive
    learning_rate: Rate
    betas: Annotated[list[Share], Field(min_length=2, max_length=2)]
    epsilon: Above
    weight_decay: Annotated[float, Field(ge=0)]
    max_grad_norm: Above
    warmup_share: Share
    seed: Seed
    threads: Positive  # the number of threads changes the last digits of sums

    @model_validator(mode="after")
    def _heads_divide(self) -> StandInBase:
        if self.hidden_size % self.attention_heads or self.attention_heads % self.key_value_heads:
            raise ValueError(
                "hidden_size must be a multiple of attention_heads, and that of key_value_heads"
            )
        return self


class Quantization(Section):
    """How the base model's linear layers are stored while an adapter is trained."""

    type: Literal["nf4"]
    double: bool
    compute_dtype: DType


class Base(Section):
    """The model that is adapted: a Hub id or folder, or the stand-in.

    ``start`` is what stands before every abstract: ``bos`` or ``eos`` of the tokenizer, ``none``,
    or the text of one of its tokens. After ``none`` the first token has no context and is not
    scored, so that a perplexity is of the others, given the first.
    """

    model: Name | None
    revision: str | None
    start: Name
    knowledge_until: Annotated[int, Field(ge=1991)]
    stand_in: StandInBase | None
    quantization: Quantization | None
    dtype: DType

    @model_validator(mode="after")
    def _whole_blocks(self) -> Base:
        # bitsandbytes' CPU kernel gives back wrong weights where a row ends inside a block.
        own = self.stand_in if self.model is None else None
        widths = (own.hidden_size, own.intermediate_size) if own else ()
        if self.quantization and any(width % NF4_BLOCK for width in widths):
            raise ValueError(
                "to be quantised, stand_in.hidden_size and stand_in.intermediate_size must be "
                f"multiples of {NF4_BLOCK}, NF4's block"
            )
        return self


class Lora(Section):
    """Arguments of PEFT's ``LoraConfig``: the usual ones, and any other by its own name.

    What the others may be is checked where PEFT is imported; see `models.architecture`.
    """

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, JsonValue]

    r: Positive
    lora_alpha: Positive
    lora_dropout: Annotated[float, Field(ge=0, lt=1)]
    bias: Literal["none", "all", "lora_only"]
    target_modules: Name | Annotated[list[Name], Field(min_length=1)] | None = None
    use_dora: bool = False
    use_rslora: bool = False
    init_lora_weights: bool | Name = True

    @property
    def arguments(self) -> dict[str, Any]:
        """All of them, as ``LoraConfig`` takes them."""
        return self.model_dump()


class Training(Section):
    """The optimisation of one adapter, in the words of ``SFTConfig`` where it has them.

    ``per_device_train_batch_size`` abstracts make a step, in pieces where memory is short;
    ``warmup_steps`` below 1 are a share of all steps; ``evaluations`` are made at equal distances,
    the first before training and the last at its end.
    """

    num_train_epochs: Positive
    per_device_train_batch_size: Positive
    optim: Literal["adamw_torch", "adamw_torch_fused"]
    learning_rate: Rate
    adam_beta1: Share
    adam_beta2: Share
    adam_epsilon: Above
    weight_decay: Annotated[float, Field(ge=0)]
    max_grad_norm: Above
    lr_scheduler_type: Literal[*SCHEDULES]
    lr_scheduler_kwargs: dict[str, Annotated[int | float, Field(ge=0)]]
    warmup_steps: Annotated[float, Field(ge=0)]
    bf16: bool
    gradient_checkpointing: bool
    pad_to_multiple_of: Positive
    max_length: Positive
    evaluations: Annotated[int, Field(ge=2)]
    per_device_eval_batch_size: Positive
    save_total_limit: Annotated[int, Field(ge=2), CHANGES_NO_RESULT]
    report_to: Annotated[Literal["none", "tensorboard", "trackio", "wandb"], CHANGES_NO_RESULT]
    lora: Lora

    @model_validator(mode="after")
    def _schedule_has_its_arguments(self) -> Training:
        kind, given = self.lr_scheduler_type, self.lr_scheduler_kwargs
        for name in given:
            if name not in SCHEDULES[kind]:
                takes = ", ".join(SCHEDULES[kind]) or "no argument"
                raise ValueError(
                    f"lr_scheduler_kwargs: {kind} takes {takes}, not {name}: leave it out, or set "
                    "it to null"
                )
        if kind == "cosine_with_min_lr" and ("min_lr" in given) == ("min_lr_rate" in given):
            raise ValueError(f"lr_scheduler_kwargs: {kind} needs one of min_lr and min_lr_rate")
        if given.get("lr_end", 0) >= self.learning_rate:
            raise ValueError("lr_scheduler_kwargs: lr_end must be below learning_rate")
        return self


class Perplexity(Section):
    """How the 21 models are measured on the s1 test set."""

    dtype: DType
    tokens_per_batch: Positive


class Completions(Section):
    """How the second half of an abstract is generated and scored."""

    abstracts: Positive | None
    temperature: Annotated[float, Field(gt=0)]
    top_p: Annotated[float, Field(gt=0, le=1)]
    top_k: Positive
    bos: bool
    min_new_tokens: Positive
    max_new_tokens: Positive
    batch_size: Positive
    seed: Seed
    dtype: DType
    embedder: Name
    embedder_max_tokens: Positive

    @model_validator(mode="after")
    def _fewest_below_most(self) -> Completions:
        if self.min_new_tokens > self.max_new_tokens:
            raise ValueError("min_new_tokens must not be above max_new_tokens")
        return self


class Statistics(Section):
    """Bootstrap settings, shared by all models."""

    resamples: Positive
    confidence: Share
    seed: Seed


class HumanEvaluation(Section):
    """Rating sheets, and the ratings to analyse.

    ``systems`` are rated on ``shared_papers`` papers by every rater and on ``own_papers`` more by
    each alone. ``ratings`` are files: one in the published schema, or with a ``key`` the sheets
    that raters sent back.
    """

    raters: Annotated[list[Rater], Field(min_length=1)]
    systems: Annotated[list[Name], Field(min_length=1)] | None
    shared_papers: Annotated[int, Field(ge=0)]
    own_papers: Annotated[int, Field(ge=0)]
    seed: Seed
    ratings: list[Name]
    key: Name | None

    @model_validator(mode="after")
    def _consistent(self) -> HumanEvaluation:
        for names in (self.raters, self.systems or [], self.ratings):
            # As file names they may not differ by case alone.
            again = [name for name, times in Counter(map(str.lower, names)).items() if times > 1]
            if again:
                raise ValueError(f"{again[0]} is named more than once")
        if not self.shared_papers + self.own_papers:
            raise ValueError("shared_papers and own_papers are both 0: nothing to rate")
        if len(self.ratings) > 1 and self.key is None:
            raise ValueError("several files of ratings are sheets sent back, which need their key")
        if self.key and not self.ratings:
            raise ValueError("a key without ratings opens nothing")
        return self


class Figures(Section):
    """Drawing choices that a reader can see."""

    smoothing: Positive


class Requests(Section):
    """What one job of a stage asks of a cluster; ``cores`` are its threads, too.

    A stage runs on one GPU at most: variants and models are spread over several.
    """

    gpus: Annotated[int, Field(ge=0, le=1)]
    cores: Positive
    memory_gb: Positive
    minutes: Positive


class Resources(Section):
    """What one job of a stage may use: of a cluster, and of this machine.

    A job trains up to ``variants_per_job`` variants (and, on one machine, evaluates them), or
    evaluates up to ``models_per_job`` models, one after the other in one kernel. ``cores`` are a
    stage's threads.
    """

    variants_per_job: Positive
    models_per_job: Positive
    data_curation: Requests
    finetune: Requests
    perplexity: Requests
    completions: Requests
    other: Requests

    def of(self, stage: str) -> Requests:
        """Return the requests of a stage, which ``02_finetune`` and ``finetune`` both name."""
        return getattr(self, stage.lstrip("0123456789_"), self.other)
