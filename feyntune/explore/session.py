"""An experiment opened for exploring: its models, its test papers, and what of them can be used."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path

import pandas as pd
import torch
from transformers import PreTrainedModel

from feyntune.data.snapshot import clean
from feyntune.errors import UserError, choose
from feyntune.evaluation import semscore
from feyntune.experiment.recipes import BASE, MODELS
from feyntune.experiment.schema import Experiment
from feyntune.models import adapters
from feyntune.models import base as modeling


class Session:
    """One base model in memory, on which the adapters of an experiment take turns.

    Attributes
    ----------
    papers
        The s1 test set, a row per paper: ``id``, ``title``, ``abstract``, ``year``, ...

    Raises
    ------
    UserError
        If the experiment has no models, or they have not been made.
    """

    def __init__(self, experiment: Experiment):
        self.experiment = experiment
        _refuse_without_results(experiment)
        self.papers = pd.read_parquet(experiment.paths.split("s1", "test"))
        self.tokenizer = modeling.load_tokenizer(experiment)
        self._base: PreTrainedModel | None = None

    @property
    def trained(self) -> list[str]:
        """The variants that have an adapter, in the order of the tables."""
        adapter = self.experiment.paths.adapter
        return [name for name in self.experiment.variants if adapter(name).is_dir()]

    @property
    def longest(self) -> int:
        """Tokens that the model reads at most, BOS included."""
        return self.base(self.experiment.perplexity.dtype).config.max_position_embeddings

    def base(self, dtype: str) -> PreTrainedModel:
        """The bare base model; loaded anew only where two measurements differ in ``dtype``."""
        if self._base is None or self._base.dtype != getattr(torch, dtype):
            self._base = None  # the old one's memory first
            self._base = modeling.load_base(self.experiment, dtype=dtype).eval()
        return self._base

    @contextmanager
    def model(self, name: str, dtype: str) -> Iterator[PreTrainedModel]:
        """Base, or base with a variant's adapter on it for as long as the block lasts."""
        with adapters.adapted(self.base(dtype), self.experiment, name) as loaded:
            yield loaded

    @cached_property
    def embed(self) -> semscore.Embedder:
        """What SemScore compares texts by; the base model wherever it is the embedder is bare."""
        base = self.base(self.experiment.completions.dtype)
        return semscore.embedder(self.experiment, base, self.tokenizer)

    def paper(self, name: str | None = None) -> pd.Series:
        """A test paper by its arXiv id; ``None`` for the first.

        Raises
        ------
        UserError
            If no test paper has this id; names the nearest.
        """
        if name is None:
            return self.papers.iloc[0]
        found = self.papers[self.papers["id"] == str(name)]
        if found.empty:
            close = get_close_matches(str(name), self.papers["id"], n=1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            raise UserError(
                f"No paper of the s1 test set has the id {name!r}.{hint} `session.papers` lists "
                f"all {len(self.papers):,}; any other abstract can be given as text."
            )
        return found.iloc[0]


def checked_models(session: Session, names: Sequence[str]) -> list[str]:
    """The models, each once.

    Raises
    ------
    UserError
        If one is unknown (names the nearest), not the experiment's, or not trained.
    """
    experiment = session.experiment
    for name in names:
        choose("model", name, MODELS)
        if name not in experiment.models:
            raise UserError(
                f"{name} is no variant of experiment {experiment.name}, which has "
                f"{', '.join(experiment.variants)}: take one of these, or an experiment with it."
            )
        if name != BASE and name not in session.trained:
            raise UserError(
                f"{name} is not trained in experiment {experiment.name}: run "
                f"./run_all.sh --experiment {experiment.name} --variants {name} first."
            )
    if not names:
        raise UserError("No model is chosen: name base or a variant, such as s1-LoRA-all.")
    return list(dict.fromkeys(names))


def checked_text(session: Session, abstract: str) -> str:
    """The abstract as curation would have it.

    Raises
    ------
    UserError
        If nothing is left of it, or it contains a special token of the model.
    """
    text = clean(abstract.replace("\r\n", "\n"))
    if not text:
        raise UserError("The abstract is empty: pick a test paper, or paste a text.")
    added = session.tokenizer.added_tokens_decoder.values()
    special = [token.content for token in added if token.special and token.content in text]
    if special:
        raise UserError(
            f"The abstract contains {special[0]}, which is a sign to the model and no text: "
            "take it out."
        )
    return text


def refuse_long(session: Session, text: str, more: int) -> None:
    """Refuse a text that leaves no room for ``more`` tokens in what the model can read."""
    tokens = len(modeling.encode(session.tokenizer, [text], eos=False)[0])
    if tokens + more > session.longest:
        room = f", of which {more:,} are kept for the completion" if more else ""
        raise UserError(
            f"The text has {tokens:,} tokens and the model reads at most {session.longest:,}"
            f"{room}: shorten it."
        )


def _refuse_without_results(experiment: Experiment) -> None:
    name = experiment.name
    if experiment.scores == "released":
        raise UserError(
            f"Experiment {name} has the authors' released scores and no models to explore: take "
            "one that computes its own, such as demo."
        )
    needed = [experiment.paths.split("s1", "test"), Path(experiment.base_source)]
    # A model named by its Hub id is no place of ours.
    ours = [place for place in needed if place.is_relative_to(experiment.paths.results)]
    if not all(place.exists() for place in ours):
        raise UserError(
            f"There is nothing of experiment {name} to explore yet: run "
            f"./run_all.sh --experiment {name} first."
        )
