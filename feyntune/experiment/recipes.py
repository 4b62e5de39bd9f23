"""The ten dataset recipes, two flavours and twenty variants of the paper, as data.

Facts are tagged by how certain they are: ``released`` (seen in the authors' notebooks, code or
model cards), ``computed`` (arithmetic on released numbers) or ``inferred``. The order of s4-s6
and of s7-s10 is inferred from the listing order in the released notebooks; tables say so.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

FLAVOURS = ("LoRA-all", "LoRA-QKV")
BASE = "base"
FILL, SCALED = "fill", "scaled"


@dataclass(frozen=True)
class Source:
    """A set of abstracts that the recipes mix: every abstract of some primary categories.

    Attributes
    ----------
    categories
        Primary categories; one that ends in ``.`` stands for all its sub-categories.
    """

    categories: tuple[str, ...]

    def takes(self, primary: str) -> bool:
        return any(
            primary.startswith(name) if name.endswith(".") else primary == name
            for name in self.categories
        )


SOURCES = {
    "hep-th": Source(("hep-th",)),
    "hep-ph": Source(("hep-ph",)),
    "gr-qc": Source(("gr-qc",)),
    "q-bio": Source(("q-bio.",)),
    "cs": Source(("cs.",)),
    "hep-ph+gr-qc": Source(("hep-ph", "gr-qc")),
}
# The groups in which abstracts are sampled and counted: every source of a single field.
FIELDS = ("hep-th", "hep-ph", "gr-qc", "q-bio", "cs")


@dataclass(frozen=True)
class Part:
    """What a recipe takes from each split of a source.

    Attributes
    ----------
    source
        Key of ``SOURCES``: the source is split first, then parts are taken from its splits.
    take
        ``None`` for every row; a number for that share of the target size; ``"fill"`` for as
        many rows as the other parts leave to reach the target size; ``"scaled"`` for the share
        of this source's own split that makes a mixture as large as hep-th out of gr-qc + hep-ph.
    only
        Keep only rows of this field before taking.
    shuffled
        Take the first rows after shuffling the split, instead of its first rows.
    """

    source: str
    take: float | str | None = None
    only: str | None = None
    shuffled: bool = False


@dataclass(frozen=True)
class Recipe:
    """One of the ten training mixtures.

    Attributes
    ----------
    hub
        Dataset name on the Hub, below ``LLMsForHepth/``.
    size_of
        The sources whose split sizes, added up, are the target size of the mixture's splits.
    paper_rows
        Rows of the paper's train, validation and test split; ``None`` where they are not known.
    certainty
        How the assignment of this recipe to its number is known.
    """

    hub: str
    title: str
    size_of: tuple[str, ...]
    parts: tuple[Part, ...]
    paper_rows: tuple[int, int, int] | None
    rows_certainty: str
    certainty: str


_S1_ROWS = (73_768, 15_808, 15_808)
_PAIR = "hep-ph+gr-qc"

RECIPES = {
    "s1": Recipe(
        "hep-th_primary",
        "hep-th",
        ("hep-th",),
        (Part("hep-th"),),
        _S1_ROWS,
        "released",
        "released",
    ),
    "s2": Recipe(
        "hep-ph_gr-qc_primary",
        "hep-ph + gr-qc",
        (_PAIR,),
        (Part(_PAIR),),
        (137_136, 29_386, 29_387),
        "computed",
        "released",
    ),
    "s3": Recipe(
        "hep-th_hep-ph_gr-qc_primary_v3",
        "hep-th + hep-ph + gr-qc",
        ("hep-th", _PAIR),
        (Part("hep-th"), Part(_PAIR)),
        (210_904, 45_194, 45_195),
        "released",
        "released",
    ),
    "s4": Recipe(
        "hep-th_70_gr-qc_15_hep-ph_15",
        "70% hep-th, 15% gr-qc, 15% hep-ph",
        ("hep-th",),
        (Part("hep-th", FILL), Part(_PAIR, 0.15, "gr-qc"), Part(_PAIR, 0.15, "hep-ph")),
        _S1_ROWS,
        "released",
        "inferred",
    ),
    "s5": Recipe(
        "hep-th_85_gr-qc_15",
        "85% hep-th, 15% gr-qc",
        ("hep-th",),
        (Part("hep-th", FILL), Part(_PAIR, 0.15, "gr-qc")),
        _S1_ROWS,
        "released",
        "inferred",
    ),
    "s6": Recipe(
        "hep-th_85_hep-ph_15",
        "85% hep-th, 15% hep-ph",
        ("hep-th",),
        (Part("hep-th", FILL), Part(_PAIR, 0.15, "hep-ph")),
        _S1_ROWS,
        "released",
        "inferred",
    ),
    "s7": Recipe(
        "hep-th_gr-qc_primary",
        "hep-th + gr-qc",
        ("hep-th", "gr-qc"),
        (Part("hep-th"), Part("gr-qc")),
        None,
        "inferred",
        "inferred",
    ),
    "s8": Recipe(
        "hep-th_hep-ph_primary",
        "hep-th + hep-ph",
        ("hep-th", "hep-ph"),
        (Part("hep-th"), Part("hep-ph")),
        None,
        "inferred",
        "inferred",
    ),
    "s9": Recipe(
        "gr-qc_hep-ph_small",
        "gr-qc + hep-ph, as large as s1",
        ("hep-th",),
        (Part("gr-qc", SCALED, shuffled=True), Part("hep-ph", FILL, shuffled=True)),
        _S1_ROWS,
        "computed",
        "inferred",
    ),
    "s10": Recipe(
        "hep-th_qbio_cs",
        "hep-th + q-bio + cs, as large as s3",
        # Counted from the single fields: their splits add up to others than those of the pair.
        ("hep-th", "gr-qc", "hep-ph"),
        (Part("hep-th"), Part("q-bio"), Part("cs", FILL, shuffled=True)),
        None,
        "inferred",
        "inferred",
    ),
}

DATASETS = tuple(RECIPES)
VARIANTS = tuple(f"{dataset}-{flavour}" for flavour in FLAVOURS for dataset in DATASETS)
MODELS = (BASE, *VARIANTS)

HUB_OWNER = "LLMsForHepth"
# Names of the released adapters where they do not follow the rule. In these names "base" means
# LoRA-all. Source: released src/get_perplexity.py.
_ADAPTER_RULE = dict(zip(FLAVOURS, ("{}-L-3.1-8B-base", "{}-L-3.1-8B-qkv"), strict=True))
_ADAPTER_EXCEPTIONS = {
    "s3-LoRA-all": "s3-L-3.1-8B-base_v3",
    "s1-LoRA-QKV": "s1-L-3.1-8B-qkv_v2",
    "s7-LoRA-QKV": "s7-L-3.1-8B-qkv2",
}
RELEASED_BASE = "Llama-3.1-8B"


def dataset_of(variant: str) -> str:
    """``s4-LoRA-QKV`` is trained on ``s4``."""
    return variant.split("-", 1)[0]


def flavour_of(variant: str) -> str:
    """``s4-LoRA-QKV`` adapts what ``LoRA-QKV`` says."""
    return variant.split("-", 1)[1]


def released_name(model: str) -> str:
    """How the authors' files name a model: ``s1-L-3.1-8B-base`` for ``s1-LoRA-all``.

    Adapters bear it on the Hub below ``HUB_OWNER``, score and completion columns after a prefix.
    """
    if model == BASE:
        return RELEASED_BASE
    rule = _ADAPTER_RULE[flavour_of(model)].format(dataset_of(model))
    return _ADAPTER_EXCEPTIONS.get(model, rule)


def released_names(models: Iterable[str]) -> dict[str, str]:
    """How the authors' files name each of these models."""
    return {model: released_name(model) for model in models}


def sources() -> dict[str, list[str]]:
    """The categories of every source, as plain data."""
    return {name: list(source.categories) for name, source in SOURCES.items()}


def described() -> dict[str, dict[str, Any]]:
    """Every recipe as plain data."""
    return {name: asdict(recipe) for name, recipe in RECIPES.items()}
