"""Datasets, flavours and variants as data: the paper's, and those that an experiment adds.

The paper's are in ``experiments/paper.recipes.yaml``; an experiment's own tables ``sources``,
``recipes``, ``flavours`` and ``variants`` stand beside them (see the page on a study of one's own
in ``docs/``).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from feyntune.experiment.files import read_yaml
from feyntune.experiment.sections import Name, Positive, Section, Seed, Training
from feyntune.paths import EXPERIMENTS

BASE, ALL = "base", "all"
# The dataset whose test set every model is measured on, and whose validation set it learns by.
MEASURED_ON = "s1"
FILL, SCALED = "fill", "scaled"
PAPER = read_yaml(EXPERIMENTS / "paper.recipes.yaml")
TABLES = ("sources", "recipes", "flavours")


class Together(Section):
    """A source of several fields, selected and split as one."""

    fields: Annotated[list[Name], Field(min_length=2)]


# A field: its primary categories. One that ends in `.` stands for all its sub-categories.
Categories = Annotated[list[Name], Field(min_length=1)]


def takes(categories: Iterable[str], primary: str) -> bool:
    """Whether a field of these categories has the papers of a primary category."""
    return any(
        primary.startswith(name) if name.endswith(".") else primary == name for name in categories
    )


class Part(Section):
    """What a recipe takes from each split of a source.

    Attributes
    ----------
    source
        Its name: the source is split first, then parts are taken from its splits.
    take
        ``None`` for every row; a number for that share of the size of the mixture; ``"fill"`` for
        as many rows as the other parts leave to reach that size; ``"scaled"`` for the share of
        this source's own split that makes a mixture as large as hep-th out of gr-qc + hep-ph.
    only
        Keep only rows of this field before taking.
    shuffled
        Take the first rows after shuffling the split, instead of its first rows.
    """

    source: Name
    take: Annotated[float, Field(gt=0, le=1)] | Literal["fill", "scaled"] | None = None
    only: Name | None = None
    shuffled: bool = False


class Recipe(Section):
    """A training mixture.

    Attributes
    ----------
    parts
        What is taken of which source. In the short form ``{hep-th: 0.7, gr-qc: 0.3}`` shares of
        whole sources, which add up to 1; a source alone gives all its rows.
    size_of
        How many rows each split has: as many as the splits of these sources together, or of the
        dataset of this name. ``None``: of a mixture of shares, as many as the scarcest part
        allows; of whole sources, all.
    hub
        Its name on the Hub, below ``LLMsForHepth/``, if it is one of the paper's.
    certainty, rows_certainty
        How the paper's assignment of this recipe to its number, and its rows, are known.
    paper_rows
        Rows of the paper's train, validation and test split, where they are known.
    """

    title: Name
    parts: Annotated[list[Part], Field(min_length=1)]
    size_of: Name | Annotated[list[Name], Field(min_length=1)] | None = None
    hub: Name | None = None
    certainty: Name | None = None
    paper_rows: Annotated[list[Positive], Field(min_length=3, max_length=3)] | None = None
    rows_certainty: Name | None = None

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, given: Any) -> Any:
        shares = given.get("parts") if isinstance(given, dict) else None
        if not isinstance(shares, dict):
            return given
        for share in shares.values():
            if isinstance(share, bool) or not isinstance(share, int | float) or not 0 < share <= 1:
                raise ValueError("parts: shares must be numbers above 0, and 1 at most")
        if abs(sum(shares.values()) - 1) > 1e-9:
            raise ValueError(f"parts: shares add up to {sum(shares.values()):g}, not to 1")
        parts = [{"source": source, "take": float(share)} for source, share in shares.items()]
        if given.get("size_of") is not None:
            parts[0]["take"] = FILL  # so that it is that large to the row
        elif len(parts) == 1:
            parts[0]["take"] = None
        return {**given, "parts": parts}

    @model_validator(mode="after")
    def _sized(self) -> Recipe:
        rules = sorted({part.take for part in self.parts} & {FILL, SCALED})
        if self.size_of is None and rules:
            raise ValueError(f"a part that takes {rules[0]} needs size_of")
        shares = [isinstance(part.take, float) for part in self.parts]
        if self.size_of is None and any(shares) and not all(shares):
            raise ValueError("a share beside a whole source needs size_of")
        return self

    @property
    def mixes_shares(self) -> bool:
        """Whether every part is a share of the mixture."""
        return all(isinstance(part.take, float) for part in self.parts)


class Variant(Section):
    """What is trained: a dataset, a flavour, a seed and complete training settings.

    ``training.lora`` holds the flavour's arguments of ``LoraConfig`` on top of the common ones.
    """

    dataset: Name
    flavour: Name
    seed: Seed
    training: Training

    @model_validator(mode="after")
    def _has_targets(self) -> Variant:
        if self.training.lora.target_modules is None:
            raise ValueError(f"flavour {self.flavour} names no target_modules")
        return self


# --- what must fit together -------------------------------------------------------------------


def check_sources(sources: dict[str, list[str] | Together]) -> None:
    """Check that fields do not overlap, and that sources of several are made of fields.

    Raises
    ------
    ValueError
        If one is not.
    """
    fields = {name: categories for name, categories in sources.items() if type(categories) is list}
    for name, source in sources.items():
        if isinstance(source, Together):
            unknown = [field for field in source.fields if field not in fields]
            if unknown:
                raise ValueError(
                    f"sources.{name}: {unknown[0]} is no field (there are {', '.join(fields)})"
                )
    every = [(name, category) for name, listed in fields.items() for category in listed]
    for name, category in every:
        for other, another in every:
            if name != other and takes([category], another):
                raise ValueError(
                    f"sources.{name} and sources.{other} share the category {another}: an abstract "
                    "belongs to one field"
                )


def check_recipes(recipes: dict[str, Recipe], sources: dict[str, list[str] | Together]) -> None:
    """Check that recipes mix sources there are, and that their sizes can be told.

    Raises
    ------
    ValueError
        If they do not, or the dataset that models are measured on is missing.
    """
    if MEASURED_ON not in recipes:
        raise ValueError(f"recipes: {MEASURED_ON} is needed, whose test set models are measured on")
    for name, recipe in recipes.items():
        sized = recipe.size_of if isinstance(recipe.size_of, list) else []
        for source in (*sized, *(part.source for part in recipe.parts)):
            if source not in sources:
                raise ValueError(
                    f"recipes.{name}: unknown source {source} (there are {', '.join(sources)})"
                )
        for part in recipe.parts:
            source = sources[part.source]
            within = source.fields if isinstance(source, Together) else [part.source]
            if part.only and part.only not in within:
                raise ValueError(f"recipes.{name}: {part.source} has no field {part.only}")
        _check_size(name, recipes)


def _check_size(name: str, recipes: dict[str, Recipe]) -> None:
    """Follow a dataset to the one that its size is of."""
    seen = [name]
    while isinstance(larger := recipes[seen[-1]].size_of, str):
        if larger not in recipes:
            raise ValueError(f"recipes.{seen[-1]}.size_of: there is no dataset {larger}")
        if larger in seen:
            raise ValueError(f"recipes.{name}.size_of leads back to {larger}")
        seen.append(larger)


# --- the paper's own --------------------------------------------------------------------------

DATASETS, FLAVOURS = tuple(PAPER["recipes"]), tuple(PAPER["flavours"])
_PAPER = {f"{d}-{f}": (d, f) for f in FLAVOURS for d in DATASETS}
VARIANTS = tuple(_PAPER)
MODELS = (BASE, *VARIANTS)

HUB_OWNER = "LLMsForHepth"
# Names of the released adapters where they do not follow the rule. In these names "base" means
# LoRA-all. Source: released src/get_perplexity.py.
_ADAPTER_RULE = {"LoRA-all": "{}-L-3.1-8B-base", "LoRA-QKV": "{}-L-3.1-8B-qkv"}
_RELEASED_NAMES = {
    BASE: "Llama-3.1-8B",
    **{name: _ADAPTER_RULE[flavour].format(dataset) for name, (dataset, flavour) in _PAPER.items()},
    "s3-LoRA-all": "s3-L-3.1-8B-base_v3",
    "s1-LoRA-QKV": "s1-L-3.1-8B-qkv_v2",
    "s7-LoRA-QKV": "s7-L-3.1-8B-qkv2",
}


def released_name(model: str) -> str:
    """How the authors' files name a model: ``s1-L-3.1-8B-base`` for ``s1-LoRA-all``.

    Adapters bear it on the Hub below ``HUB_OWNER``, score and completion columns after a prefix.
    """
    return _RELEASED_NAMES[model]


def released_names(models: Iterable[str]) -> dict[str, str]:
    """How the authors' files name each of these models."""
    return {model: released_name(model) for model in models}


def released_dataset(variant: str) -> str:
    """The Hub id of the dataset that we say a released adapter was trained on."""
    dataset, _ = _PAPER[variant]
    return f"{HUB_OWNER}/{PAPER['recipes'][dataset]['hub']}"
