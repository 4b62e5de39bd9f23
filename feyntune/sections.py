"""The sections of an experiment: every setting, typed, strict and in range.

No key is optional: an experiment spells out every setting that moves a result.
"""

from __future__ import annotations

from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    field_validator,
    model_validator,
)

from feyntune import variants

Share = Annotated[float, Field(gt=0, lt=1)]
Positive = Annotated[int, Field(gt=0)]
Rate = Annotated[float, Field(gt=0, le=1)]
Above = Annotated[float, Field(gt=0)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Name = Annotated[str, Field(min_length=1)]
Linear = Literal["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
DType = Literal["float32", "bfloat16", "float16"]
NF4_BLOCK = 64
LOOPBACK = ("localhost", "127.0.0.1", "::1")
# What an endpoint may call its bound on the tokens of an answer.
BOUNDS = ("max_completion_tokens", "max_tokens")


class Section(BaseModel):
    """Strict: no unknown keys, no text where a number belongs, no change after loading."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


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
    """From the snapshot to the ten datasets."""

    snapshot: Name | None
    stand_in: StandInSnapshot | None
    excluded_ids: list[str]
    bad_lines_allowed: Annotated[float, Field(ge=0, lt=1)]
    sample: dict[str, Positive | None]
    sample_seed: Seed
    train_share: Share
    split_seed: Seed
    shuffle_seed: Seed
    near_duplicates: NearDuplicates

    @field_validator("sample")
    @classmethod
    def _every_field(cls, value: dict) -> dict:
        if set(value) != set(variants.FIELDS):
            raise ValueError(f"must name each of {', '.join(variants.FIELDS)} once")
        return value


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
    """The model that is adapted: a Hub id or folder, or the stand-in."""

    model: Name | None
    revision: str | None
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
    """LoRA settings; flavours differ only in their target modules."""

    r: Positive
    alpha: Positive
    dropout: Annotated[float, Field(ge=0, lt=1)]
    bias: Literal["none"]
    targets: dict[str, Annotated[list[Linear], Field(min_length=1)]]

    @field_validator("targets")
    @classmethod
    def _every_flavour(cls, value: dict) -> dict:
        if set(value) != set(variants.FLAVOURS):
            raise ValueError(f"must name each of {', '.join(variants.FLAVOURS)} once")
        return value


class Training(Section):
    """The optimisation of one adapter."""

    epochs: Positive
    batch_size: Positive
    optimizer: Literal["adamw_torch", "adamw_torch_fused"]
    learning_rate: Rate
    betas: Annotated[list[Share], Field(min_length=2, max_length=2)]
    epsilon: Annotated[float, Field(gt=0)]
    weight_decay: Annotated[float, Field(ge=0)]
    max_grad_norm: Annotated[float, Field(gt=0)]
    schedule: Literal["cosine_with_min_lr"]
    min_lr_rate: Share
    warmup_share: Share
    bf16: bool
    gradient_checkpointing: bool
    pad_to_multiple_of: Positive
    max_tokens: Positive
    evaluations: Annotated[int, Field(ge=2)]
    evaluation_batch_size: Positive
    checkpoints_kept: Annotated[int, Field(ge=2)]
    lora: Lora


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


class Price(Section):
    """US dollars per million tokens: of what is sent, and of what is answered."""

    prompt: Annotated[float, Field(ge=0)]
    answer: Annotated[float, Field(ge=0)]


class Provider(Section):
    """An endpoint that speaks OpenAI's chat completions.

    ``base_url`` null: the experiment's own base model, served on loopback while it is asked.
    ``model`` null: none is named, so none is asked. ``key_variable`` is the *name* of the
    environment variable with the key; null: the endpoint wants none. ``price`` null: not known.
    ``parameters`` go into every request as they are.
    """

    base_url: str | None
    model: Name | None
    key_variable: Annotated[str, Field(pattern=r"^[A-Z][A-Z0-9_]*$")] | None
    price: Price | None
    parameters: dict[str, JsonValue]

    @field_validator("base_url")
    @classmethod
    def _no_more_than_an_address(cls, value: str | None) -> str | None:
        if value is None:
            return None
        parts = urlsplit(value)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("must be an address like https://host/v1")
        if parts.query or parts.fragment or parts.username or parts.password:
            raise ValueError("must hold no key and no query, only the address")
        return value

    @field_validator("parameters")
    @classmethod
    def _answers_are_bounded(cls, value: dict) -> dict:
        bounds = [value[name] for name in BOUNDS if name in value]
        if len(bounds) != 1 or type(bounds[0]) is not int or bounds[0] < 1:
            raise ValueError(f"must hold one of {', '.join(BOUNDS)}, a whole number above 0")
        taken = sorted({"model", "messages", "stream", "n"} & set(value))
        if taken:
            raise ValueError(f"must not hold {taken[0]}, which every request has its own way")
        return value

    @model_validator(mode="after")
    def _consistent(self) -> Provider:
        if self.base_url is None and (self.model is None or not self.model.isidentifier()):
            raise ValueError("without base_url, model must be a plain name to serve base by")
        if self.base_url is None and self.key_variable is not None:
            raise ValueError("without base_url there is no one to give the key of key_variable to")
        address = urlsplit(self.base_url or "")
        if self.key_variable and address.scheme == "http" and address.hostname not in LOOPBACK:
            raise ValueError("a key goes over https only: begin base_url with https")
        return self

    @property
    def answer_tokens(self) -> int:
        """The most tokens that an answer may have."""
        return next(self.parameters[name] for name in BOUNDS if name in self.parameters)


class Limits(Section):
    """What all requests of an experiment together may cost, those of earlier runs included."""

    usd: Annotated[float, Field(ge=0)] | None
    tokens: Annotated[int, Field(ge=0)] | None

    @model_validator(mode="after")
    def _one_at_least(self) -> Limits:
        if self.usd is None and self.tokens is None:
            raise ValueError("usd or tokens must be set, so that something stops the run")
        return self


class Commercial(Section):
    """Which endpoints are asked to complete abstracts, how, and what that may cost.

    ``providers``: an entry set to null is one that an extended experiment has and this has not.
    """

    abstracts: Positive | None
    instruction: Name
    providers: dict[Annotated[str, Field(pattern=r"^[A-Za-z0-9][\w .-]*$")], Provider | None]
    limits: Limits
    parallel: Positive
    requests_per_minute: Positive | None
    timeout_seconds: Above
    retries: Annotated[int, Field(ge=0)]

    @property
    def present(self) -> dict[str, Provider]:
        """The providers that there are, by name."""
        return {name: provider for name, provider in self.providers.items() if provider}


class Statistics(Section):
    """Bootstrap settings, shared by all models."""

    resamples: Positive
    confidence: Share
    seed: Seed


class Figures(Section):
    """Drawing choices that a reader can see."""

    smoothing: Positive


class Requests(Section):
    """What one job of a stage asks of a cluster; ``cores`` are its threads, too."""

    gpus: Annotated[int, Field(ge=0)]
    cores: Positive
    memory_gb: Positive
    minutes: Positive


class Resources(Section):
    """What the stages ask of a cluster (``--profile slurm``); one machine shares what it has."""

    data_curation: Requests
    finetune: Requests
    perplexity: Requests
    completions: Requests
    other: Requests

    def of(self, stage: str) -> Requests:
        """Return the requests of a stage, which ``02_finetune`` and ``finetune`` both name."""
        return getattr(self, stage.lstrip("0123456789_"), self.other)
