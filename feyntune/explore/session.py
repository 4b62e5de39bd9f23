"""An experiment opened for exploring: what its models write, and which words surprise them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from functools import cached_property
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from transformers import AutoConfig, PreTrainedModel

from feyntune.data.snapshot import clean
from feyntune.errors import UserError, choose
from feyntune.evaluation import completions, metrics, perplexity, semscore
from feyntune.experiment import load, trials
from feyntune.experiment.recipes import BASE, MEASURED_ON
from feyntune.experiment.schema import Experiment
from feyntune.models import adapters
from feyntune.models.architecture import context_length
from feyntune.models.base import encode, load_base, load_tokenizer, start_ids

AUTHORS = "authors"
SHOWN = {name: metrics.OF_COMPLETIONS[name] for name in ("tokens", "semscore", "entropy_exp")}


class Session:
    """One base model in memory, and on it one adapter of the experiment at a time.

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
        _check_results(experiment)
        self.papers = pd.read_parquet(experiment.paths.split(MEASURED_ON, "test"))
        self.tokenizer = load_tokenizer(experiment)
        self._base: PreTrainedModel | None = None

    @property
    def trained(self) -> list[str]:
        """The variants that have an adapter, in the order of the tables; then those of trials."""
        adapter = self.experiment.paths.adapter
        own = [name for name in self.experiment.variants if adapter(name).is_dir()]
        return [*own, *self.of_trials]

    @cached_property
    def of_trials(self) -> dict[str, tuple[Experiment, str]]:
        """What trials trained, as ``trials/hot/s1-LoRA-all``: the trial, and the variant in it."""
        whole = self.experiment.name
        found = {}
        for name in trials.names(whole):
            trial = load.load(name)
            for variant in trial.variants:
                adapter = trial.paths.adapter(variant)
                if adapter.is_dir() and adapter != self.experiment.paths.adapter(variant):
                    found[f"{name.removeprefix(whole + '/')}/{variant}"] = trial, variant
        return found

    @cached_property
    def longest(self) -> float:
        """Tokens that the model reads at most, the start included."""
        source, revision = self.experiment.base_source, self.experiment.base.revision
        return context_length(AutoConfig.from_pretrained(source, revision=revision))

    def base(self, dtype: str) -> PreTrainedModel:
        """The bare base model; loaded anew only where two measurements differ in ``dtype``."""
        if self._base is None or self._base.dtype != getattr(torch, dtype):
            self._base = None  # the old one's memory first
            self._base = load_base(self.experiment, dtype=dtype).eval()
        return self._base

    @contextmanager
    def model(self, name: str, dtype: str) -> Iterator[PreTrainedModel]:
        """Base, or base with a variant's adapter on it for as long as the block lasts."""
        experiment, variant = self.of_trials.get(name, (self.experiment, name))
        with adapters.adapted(self.base(dtype), experiment, variant) as loaded:
            yield loaded

    @cached_property
    def embed(self) -> semscore.Embedder:
        """The embedder of SemScore; where it is the base model, no adapter is on it."""
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

    def complete(self, abstract: str, models: Sequence[str]) -> pd.DataFrame:
        """Complete an abstract from its first half with several models.

        Prompt, sampling and scores are those of notebook 04.

        Parameters
        ----------
        abstract
            A whole abstract; line breaks are cleaned as in curation.
        models
            ``base`` or variants, in the order to show them.

        Returns
        -------
        pd.DataFrame
            Index ``model``: ``authors`` (how the abstract goes on), then the models.
            ``completion``; its ``tokens``; ``semscore`` with what the authors wrote, NaN where
            they wrote no more; ``entropy_exp``. ``attrs`` hold ``prompt``, and ``label``: what is
            a stand-in.

        Raises
        ------
        UserError
            If a model is unknown or not trained, or the text cannot be used.
        """
        models, text = self._checked(models), self.cleaned(abstract)
        prompt, truth = completions.split_prompt(text)
        sampling = self.experiment.completions
        self._check_length(prompt, sampling.max_new_tokens)
        ids = encode(self.tokenizer, [truth], start=False, eos=False)
        for name in models:
            with self.model(name, sampling.dtype) as loaded:
                ids += completions.generate(loaded, self.tokenizer, [prompt], sampling)
        written = self.tokenizer.batch_decode(ids[1:], skip_special_tokens=True)
        texts = [truth, *(completion.strip() for completion in written)]
        rows = len(texts)
        completed = metrics.Completed(
            abstracts=[text] * rows,
            prompts=[prompt] * rows,
            truths=[truth] * rows,
            texts=texts,
            ids=ids,
            embed=self.embed,
        )
        frame = metrics.measure(completed, SHOWN).set_axis([AUTHORS, *models]).rename_axis("model")
        frame.insert(0, "completion", texts)
        # Nothing to compare the authors with, nor any model where they wrote no more.
        frame.loc[frame.index if not truth else [AUTHORS], "semscore"] = np.nan
        frame.attrs |= {"prompt": prompt, "label": self.experiment.stand_in}
        return frame

    def continuation(self, text: str, model: str) -> str:
        """What a model writes after a text, all of which is its prompt.

        Sampling is that of notebook 04: the same prompt gets the same completion.

        Returns
        -------
        str
            With the blank before it, if the model begins a new word.

        Raises
        ------
        UserError
            If the model is unknown or not trained, or the text cannot be used.
        """
        [model], prompt = self._checked([model]), self.cleaned(text)
        sampling = self.experiment.completions
        self._check_length(prompt, sampling.max_new_tokens)
        with self.model(model, sampling.dtype) as loaded:
            [ids] = completions.generate(loaded, self.tokenizer, [prompt], sampling)
        [given] = encode(self.tokenizer, [prompt], start=False, eos=False)
        # By what it adds: some tokenizers leave out the blank at the beginning of a text.
        before, whole = self.tokenizer.batch_decode([given, given + ids], skip_special_tokens=True)
        return whole[len(before) :].rstrip()

    def surprise(self, abstract: str, variant: str) -> pd.DataFrame:
        """How surprised a variant and base are by every token of an abstract.

        Parameters
        ----------
        abstract
            A whole abstract; line breaks are cleaned as in curation.
        variant
            What to compare with base.

        Returns
        -------
        pd.DataFrame
            One row per token, in order. ``token``: its text with the blank before it; the texts
            make up the abstract, and a token that only continues a character has none.
            ``nll_base`` and ``nll_variant``, nats, whose sums are notebook 03's ``nll``;
            ``difference``, variant less base: negative where the variant is less surprised.
            ``attrs`` hold ``variant``, and ``label``: what is a stand-in.

        Raises
        ------
        UserError
            If the variant is unknown or not trained, or the text cannot be used.
        """
        [variant], text = self._checked([variant]), self.cleaned(abstract)
        self._check_length(text, 0)
        frame = pd.DataFrame(
            {
                "token": self._token_texts(text),
                "nll_base": self._token_nll(text, BASE),
                "nll_variant": self._token_nll(text, variant),
            }
        )
        frame["difference"] = frame["nll_variant"] - frame["nll_base"]
        frame.attrs |= {"variant": variant, "label": self.experiment.stand_in}
        return frame

    def cleaned(self, abstract: str) -> str:
        """The abstract as curation would have it.

        Raises
        ------
        UserError
            If nothing is left of it, or it contains a special token of the model.
        """
        text = clean(abstract.replace("\r\n", "\n"))
        if not text:
            raise UserError(
                "The text is empty: give the beginning of an abstract, or a test paper."
            )
        added = self.tokenizer.added_tokens_decoder.values()
        special = [token.content for token in added if token.special and token.content in text]
        if special:
            raise UserError(
                f"The abstract contains {special[0]}, which is a sign to the model and no text: "
                "take it out."
            )
        return text

    def _token_nll(self, text: str, name: str) -> np.ndarray:
        """Nats per token under a model, in double precision; NaN for one with no context."""
        sequences = encode(self.tokenizer, [text], eos=False)
        with self.model(name, self.experiment.perplexity.dtype) as loaded:
            nll = perplexity.token_nll(loaded, sequences, [[0]])[0].astype(float)
        unscored = 0 if start_ids(self.tokenizer) else 1
        return np.concatenate([np.full(unscored, np.nan), nll])

    def _token_texts(self, text: str) -> list[str]:
        """What each token adds to the text.

        By the ends of the tokens, as tokenizers differ in whether a token begins with the blank
        before it, and a character in several tokens has its text in one of them.
        """
        encoded = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        ends = np.maximum.accumulate([0, *(end for _, end in encoded["offset_mapping"])])
        return [text[start:end] for start, end in pairwise(ends)]

    def _checked(self, names: Sequence[str]) -> list[str]:
        """The models, each once; an error if one is unknown, not the experiment's, or not made."""
        experiment = self.experiment
        for name in names:
            known = [*experiment.models, *self.of_trials]
            choose("model", name, known, of=f"experiment {experiment.name}")
            if name != BASE and name not in self.trained:
                raise UserError(
                    f"{name} is not trained in experiment {experiment.name}: run "
                    f"./run_all.sh --experiment {experiment.name} --variants {name} first."
                )
        if not names:
            raise UserError("No model is chosen: name base or a variant, such as s1-LoRA-all.")
        return list(dict.fromkeys(names))

    def _check_length(self, text: str, more: int) -> None:
        """Refuse a text that leaves no room for ``more`` tokens in what the model can read."""
        tokens = len(encode(self.tokenizer, [text], eos=False)[0])
        if tokens + more > self.longest:
            room = f", of which {more:,} are kept for the completion" if more else ""
            raise UserError(
                f"The text has {tokens:,} tokens and the model reads at most {self.longest:,}"
                f"{room}: shorten it."
            )


def _check_results(experiment: Experiment) -> None:
    name = experiment.name
    if experiment.scores == "released":
        raise UserError(
            f"Experiment {name} has the authors' released scores and no models to explore: take "
            "one that computes its own, such as demo."
        )
    needed = [experiment.paths.split(MEASURED_ON, "test"), Path(experiment.base_source)]
    # A model named by its Hub id is no place of ours.
    ours = [place for place in needed if place.is_relative_to(experiment.paths.results)]
    # A committed test set lies there without its texts, and then the base is not there.
    if not all(place.exists() for place in ours):
        if experiment.paths.recorded.is_dir():
            raise UserError(
                f"Of experiment {name} results are committed, but neither abstracts nor models. To "
                f"make them: feyntune fetch --experiment {name}, then feyntune run STAGE "
                f"--experiment {name} --anew, for the stages 01_data_curation and converted-base, "
                "and for 02_finetune with --variant V."
            )
        raise UserError(
            f"There is nothing of experiment {name} to explore yet: run "
            f"./run_all.sh --experiment {name} first."
        )
