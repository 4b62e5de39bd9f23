"""A whole experiment: its sections, how they must fit together, and what follows from them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, JsonValue, PrivateAttr, model_validator

from feyntune.experiment import recipes, trials
from feyntune.experiment.endpoints import Commercial
from feyntune.experiment.files import only_file
from feyntune.experiment.recipes import Categories, Recipe, Together, Variant
from feyntune.experiment.sections import (
    CHANGES_NO_RESULT,
    Base,
    Completions,
    Data,
    Figures,
    HumanEvaluation,
    Lora,
    Name,
    Perplexity,
    Resources,
    Section,
    Seed,
    Statistics,
    Training,
)
from feyntune.experiment.sources import (
    Adapters,
    HubRepository,
    ListedAbstracts,
    ReleasedDatasets,
    Source,
    WheelFile,
)
from feyntune.paths import REPOSITORY, Paths, TrialPaths

# The source, by its name in `fetch`, of the test set on which released adapters are evaluated.
TEST_SET = "test-set"
# Sources, by their names in `fetch`, that the authors' scores come from.
RELEASED_SCORES = ("perplexities", "semscores", "completions", "ratings")
# Names of datasets, flavours and variants: also of files and folders.
Label = Annotated[str, Field(pattern=r"^[A-Za-z0-9][\w.+-]*$")]


class Experiment(Section):
    """A whole experiment, as :func:`feyntune.experiment.load.load` gives it.

    ``variants`` are in the order of the tables. A trial is an experiment, too; see `trials`.
    """

    name: str
    title: str
    seed: Seed
    sources: dict[Name, Categories | Together]
    recipes: dict[Label, Recipe]
    flavours: dict[Label, dict]
    variants: Annotated[dict[Label, Variant], Field(min_length=1)]
    data: Data
    base: Base
    training: Training
    perplexity: Perplexity
    completions: Completions
    commercial: Commercial | None
    human_evaluation: HumanEvaluation
    statistics: Statistics
    figures: Figures
    trained: Literal["here", "by-the-authors"]
    scores: Literal["computed", "released"]
    fetch: dict[Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]*$")], Source]
    adapters: Adapters | None
    released_datasets: ReleasedDatasets | None
    resources: Annotated[Resources, Field(exclude=True), CHANGES_NO_RESULT]

    _parent: Experiment | None = PrivateAttr(None)
    _overrides: dict[str, JsonValue] = PrivateAttr(default_factory=dict)

    @model_validator(mode="after")
    def _tables_fit(self) -> Experiment:
        recipes.check_sources(self.sources)
        recipes.check_recipes(self.recipes, self.sources)
        unknown = sorted(set(self.data.sample) - set(self.fields))
        if unknown:
            raise ValueError(
                f"data.sample: {unknown[0]} is no field of sources ({', '.join(self.fields)})"
            )
        theirs = {v for v in self.variants if v not in recipes.VARIANTS}
        if theirs and (self.trained == "by-the-authors" or self.scores == "released"):
            raise ValueError(f"variants: the authors released no {min(theirs)}")
        return self

    @model_validator(mode="after")
    def _consistent(self) -> Experiment:
        stand_ins = {"data": self.data.snapshot, "base": self.base.model}
        for section, given in stand_ins.items():
            if given is None and getattr(self, section).stand_in is None:
                raise ValueError(f"{section}.stand_in is needed where nothing real is named")
        taken = sorted({*self.recipes, *self.variants, *recipes.VARIANTS} & set(self.fetch))
        if taken:
            raise ValueError(f"fetch: {taken[0]} is the name of a dataset or variant")
        if self.trained == "by-the-authors" and (TEST_SET not in self.fetch or not self.adapters):
            raise ValueError(f"released adapters need adapters, and {TEST_SET} in fetch")
        systems = set(self.commercial.present) if self.commercial else set()
        taken = sorted({recipes.BASE, *self.variants, *recipes.VARIANTS} & systems)
        if taken:
            raise ValueError(f"commercial.providers: {taken[0]} is the name of a model of ours")
        named = {*RELEASED_SCORES} & self.fetch.keys()
        if self.scores == "released" and not (named or self.adapters):
            raise ValueError(
                f"released scores need one of the sources {', '.join(RELEASED_SCORES)} in fetch, "
                "or adapters"
            )
        return self

    # --- what belongs to what ---

    @property
    def fields(self) -> dict[str, list[str]]:
        """The fields that abstracts are sampled and counted by, each with its categories."""
        return {name: source for name, source in self.sources.items() if isinstance(source, list)}

    def fields_of(self, source: str) -> list[str]:
        """The fields of a source, in its order."""
        found = self.sources[source]
        return found.fields if isinstance(found, Together) else [source]

    def lora(self, variant: str) -> Lora:
        """The arguments of ``LoraConfig`` that a variant is trained with."""
        return self.variants[variant].training.lora

    @property
    def models(self) -> list[str]:
        """The base model and the experiment's variants, in the order of the tables."""
        return [recipes.BASE, *self.variants]

    @property
    def parent(self) -> Experiment | None:
        """The experiment that this is a trial of."""
        return self._parent

    @property
    def overrides(self) -> dict[str, JsonValue]:
        """What was set for this run or trial, by dotted key."""
        return self._overrides

    @property
    def about_trial(self) -> str:
        """What a notebook says at its top of a trial; nothing where it is none."""
        if self._parent is None:
            return ""
        return (
            f"A trial: its own results are in results/{self.name}/, {self._parent.name}'s stay.\n"
        )

    def owns(self, stage: str, subject: str | None = None) -> bool:
        """Whether a stage's results are its own: a trial shares what it does not change."""
        return self._parent is None or trials.owns(self, self._parent, stage, subject)

    @property
    def paths(self) -> Paths:
        if self._parent is None:
            return Paths(self.name)
        return TrialPaths(self.name, self._parent.paths, self.owns)

    # --- what comes from outside ---

    @property
    def outside(self) -> dict[str, Source]:
        """Everything that comes from outside, by name; a released adapter's is its variant's.

        A model or a snapshot is needed only where a section names it, which a user's file or
        folder in its place does not.
        """
        named = {self.data.snapshot, self.base.model, self.completions.embedder}
        found = {
            name: source
            for name, source in self.fetch.items()
            if source.origin in ("dataset", "web") or source.id in named
        }
        for variant in self.variants if self.adapters else ():
            found[variant] = HubRepository(
                origin="model",
                id=f"{recipes.HUB_OWNER}/{recipes.released_name(variant)}",
                revision=self.adapters.revision,
                files=self.adapters.files,
                optional=self.adapters.more.get(variant, []),
            )
        return found

    @property
    def released(self) -> list[str]:
        """The sources of released results that this experiment has: scores, logs by variant."""
        logged = self.adapters.more if self.adapters else ()
        return [n for n in (*RELEASED_SCORES, *logged) if n in self.outside]

    @property
    def compared(self) -> dict[str, HubRepository]:
        """The released datasets by number, fetched only to be compared with our own."""
        if self.released_datasets is None:
            return {}
        pins = self.released_datasets.model_dump()
        return {
            dataset: HubRepository(origin="dataset", id=f"{recipes.HUB_OWNER}/{recipe.hub}", **pins)
            for dataset, recipe in self.recipes.items()
            if recipe.hub
        }

    def _source(self, name: str | None) -> str | None:
        """The source, by its name in `fetch`, that has this id, if there is one."""
        found = [key for key, source in self.fetch.items() if getattr(source, "id", None) == name]
        return found[0] if found else None

    def is_fetched(self, name: str | None) -> bool:
        """Whether a model or file that the experiment names is one of `fetch`."""
        return self._source(name) is not None

    def _fetched(self, name: str | None) -> Path | None:
        """The folder of the source that has this id, if there is one."""
        source = self._source(name)
        return self.paths.fetched(source) if source else None

    @property
    def listed(self) -> str | None:
        """The source, by its name in `fetch`, of abstracts that are listed by id, if it has one."""
        source = self._source(self.data.snapshot)
        return source if isinstance(self.fetch.get(source), ListedAbstracts) else None

    @property
    def unconverted(self) -> Path | None:
        """The folder of the fetched GGUF file that the base model is converted from, if it is."""
        source = self._source(self.base.model)
        found = isinstance(self.fetch.get(source), WheelFile)
        return self.paths.fetched(source) if found else None

    # --- where it is on this disk ---

    @property
    def snapshot(self) -> Path:
        """The snapshot to curate: the user's file, or the stand-in.

        A relative path starts at the repository, as notebooks and jobs run in folders of their own.
        """
        given = self.data.snapshot
        if given is None:
            return self.paths.snapshot
        pinned = self._fetched(given)
        if pinned:
            # Until it is fetched, a name for the error message.
            return only_file(pinned) or pinned / "snapshot"
        return REPOSITORY / Path(given).expanduser()

    @property
    def base_source(self) -> str:
        """Where the base model is: made here, fetched, a folder of the user's, or a Hub id."""
        if self.base.model is None or self.unconverted:
            return str(self.paths.base)
        pinned = self._fetched(self.base.model)
        if pinned:
            return str(pinned)
        folder = REPOSITORY / Path(self.base.model).expanduser()
        return str(folder) if folder.is_dir() else self.base.model

    @property
    def embedder_source(self) -> str:
        """Where the embedder of SemScore is: what was fetched, or as the experiment names it."""
        pinned = self._fetched(self.completions.embedder)
        return str(pinned) if pinned else self.completions.embedder

    @property
    def rating_files(self) -> list[Path]:
        """The files of ratings, and last their key if they need one."""
        given = self.human_evaluation
        return [REPOSITORY / Path(name).expanduser()
                for name in (*given.ratings, given.key) if name]  # fmt: skip

    @property
    def on_disk(self) -> bool:
        """Whether no model has to come from a hub while a stage runs."""
        made_here = self.base.model is None or self.unconverted is not None
        base = made_here or Path(self.base_source).is_dir()
        embedder = self.embedder_source
        return base and (embedder == recipes.BASE or Path(embedder).is_dir())

    @property
    def stand_in(self) -> str | None:
        """What in this experiment is not the real thing, for labels; ``None`` if all is real."""
        parts = [
            name
            for name, given in (("corpus", self.data.snapshot), ("model", self.base.model))
            if not given
        ]
        return f"stand-in {' and '.join(parts)}" if parts else None

    @property
    def ratings_of_others(self) -> str | None:
        """Why ratings are not compared with this experiment's scores; ``None`` where they are.

        Ratings that come with a key are of completions from here; without one, of other models.
        """
        given = self.human_evaluation
        if self.stand_in and given.ratings and given.key is None:
            return f"not computed: ratings of real models, scores of a {self.stand_in}"
        return None

    @property
    def real_providers(self) -> dict[str, str]:
        """Why providers' answers are not set beside this experiment's completions, by provider.

        At an address a real model answers; without one, the experiment's own base is served.
        """
        if self.commercial is None or self.base.model:
            return {}
        why = f"answers of a real model, completions of a {self.stand_in}"
        return {name: why for name, each in self.commercial.present.items() if each.base_url}

    @property
    def absent(self) -> str:
        """What is said of a result that is not there."""
        return "not run" if self.scores == "computed" else "not available"
