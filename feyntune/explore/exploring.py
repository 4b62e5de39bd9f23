"""One abstract under several models: what they write, and which of its words surprise them.

Plain calls, which the widgets show: text in, frames out.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pandas as pd

from feyntune.evaluation import completions, metrics, perplexity
from feyntune.experiment.recipes import BASE
from feyntune.explore.session import Session, checked_models, checked_text, refuse_long
from feyntune.models import base

AUTHORS = "authors"


def completions_side_by_side(
    session: Session, abstract: str, models: Sequence[str]
) -> pd.DataFrame:
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
        Index ``model``: ``authors`` (how the abstract goes on), then the models. ``completion``;
        its ``tokens``; ``semscore`` with what the authors wrote, NaN where they wrote no more;
        ``entropy_exp``. ``attrs`` hold ``prompt``, and ``label``: what is a stand-in.

    Raises
    ------
    UserError
        If a model is unknown or not trained, or the text cannot be used.
    """
    models = checked_models(session, models)
    text = checked_text(session, abstract)
    prompt, truth = completions.split_prompt(text)
    refuse_long(session, prompt, session.experiment.completions.max_new_tokens)
    generated = {name: _completed(session, name, prompt) for name in models}
    written = session.tokenizer.batch_decode(list(generated.values()), skip_special_tokens=True)
    texts = [truth, *(completion.strip() for completion in written)]
    rows = len(texts)
    completed = metrics.Completed(
        abstracts=[text] * rows,
        prompts=[prompt] * rows,
        truths=[truth] * rows,
        texts=texts,
        ids=[*base.encode(session.tokenizer, [truth], bos=False, eos=False), *generated.values()],
        embed=session.embed,
    )
    shown = {name: metrics.OF_COMPLETIONS[name] for name in ("tokens", "semscore", "entropy_exp")}
    frame = metrics.measure(completed, shown).set_axis([AUTHORS, *models]).rename_axis("model")
    frame.insert(0, "completion", texts)
    # Nothing to compare the authors with, nor any model where they wrote no more.
    frame.loc[frame.index if not truth else [AUTHORS], "semscore"] = np.nan
    frame.attrs |= {"prompt": prompt, "label": session.experiment.stand_in}
    return frame


def surprise(session: Session, abstract: str, variant: str) -> pd.DataFrame:
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
        One row per token, in order. ``token``: its text with the blank before it; the texts make
        up the abstract, and a token that only continues a character has none. ``nll_base`` and
        ``nll_variant``, nats, whose sums are notebook 03's ``nll``; ``difference``, variant less
        base: negative where the variant is less surprised. ``attrs`` hold ``variant``, and
        ``label``: what is a stand-in.

    Raises
    ------
    UserError
        If the variant is unknown or not trained, or the text cannot be used.
    """
    [variant] = checked_models(session, [variant])
    text = checked_text(session, abstract)
    refuse_long(session, text, 0)
    frame = pd.DataFrame(
        {
            "token": _token_texts(session, text),
            "nll_base": _token_nll(session, text, BASE),
            "nll_variant": _token_nll(session, text, variant),
        }
    )
    frame["difference"] = frame["nll_variant"] - frame["nll_base"]
    frame.attrs |= {"variant": variant, "label": session.experiment.stand_in}
    return frame


# --- measuring --------------------------------------------------------------------------------


def _completed(session: Session, name: str, prompt: str) -> list[int]:
    """Token ids that a model continues a prompt with."""
    sampling = session.experiment.completions
    with session.model(name, sampling.dtype) as loaded:
        return completions.generate(loaded, session.tokenizer, [prompt], sampling)[0]


def _token_nll(session: Session, text: str, name: str) -> np.ndarray:
    """Nats per token under a model, in double precision as they are summed."""
    sequences = base.encode(session.tokenizer, [text], eos=False)
    with session.model(name, session.experiment.perplexity.dtype) as loaded:
        return perplexity.token_nll(loaded, sequences, [[0]])[0].astype(float)


def _token_texts(session: Session, text: str) -> list[str]:
    """What each token adds to the text.

    By the ends of the tokens, as tokenizers differ in whether a token begins with the blank
    before it, and bytes of one character in several tokens have no text of their own.
    """
    encoded = session.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    ends = np.maximum.accumulate([0, *(end for _, end in encoded["offset_mapping"])])
    return [text[start:end] for start, end in pairwise(ends)]
