"""What figures and tables are called and mean: titles, captions, notes, decimals, as data."""

from __future__ import annotations

from typing import Any

from feyntune.experiment.sections import Statistics

INTERVAL = "low, high: {confidence:.0%} percentile bootstrap interval, {resamples:,} resamples."
NOT_RUN_NOTE = 'Models marked "not run" or "not released" have no results in this experiment.'
# Title and notes of each table, and decimals where they are not 3.
LOOKS: dict[str, dict[str, Any]] = {
    "datasets": {
        "title": "The ten training mixtures: rows of each split",
        "notes": (
            "Which of s4, s5, s6 (and of s7, s8, s9, s10) is which mixture is not known for "
            'certain: assignments marked "inferred" follow the listing order of the released '
            "notebooks, and the paper's rows beside them hold only if that order is right.",
            "paper rows: released (seen in the authors' notebooks), computed (from released "
            "numbers), or not known.",
            "card: whether the dataset that the model card of the released adapter names is the "
            "one of this row, for each flavour, where the cards were fetched.",
        ),
    },
    "overlap": {
        "title": "Test abstracts of s1 that the training sets also have",
        "notes": (
            "train: abstracts in the training split. ids, texts, near duplicates: abstracts of the "
            "s1 test set with a partner in it; percent: of the test abstracts.",
            "ids: the same arXiv id; texts: the same words, whatever their case, spacing and "
            "punctuation; near duplicates (texts among them): as large a share of common runs of "
            "words as the setting data.near_duplicates asks for.",
            "test after knowledge: test abstracts first submitted after the year knowledge until, "
            "the last that the base model can have read.",
        ),
    },
    "hyperparameters": {"title": "Settings of the fine-tuning", "notes": ()},
    "perplexity": {
        "title": "Perplexity per abstract on the s1 test set",
        "notes": (
            "mean: over abstracts, of exp(mean next-token negative log-likelihood), BOS given, EOS "
            "not scored.",
            INTERVAL,
            "corpus perplexity pools all tokens; bits per byte compares across tokenizers; without "
            "counts of tokens they are empty.",
            NOT_RUN_NOTE,
        ),
    },
    "perplexity-differences": {
        "title": "Paired differences of perplexity on the s1 test set",
        "notes": (
            "difference: mean over abstracts of model - reference; negative favours the model.",
            INTERVAL,
            "p: two-sided sign-flip permutation test; p holm: Holm's correction over all rows.",
            NOT_RUN_NOTE,
        ),
        "decimals": {"relative_percent": 2, "p": 4, "p_holm": 4},
    },
    "loss-steps": {
        "title": "Whether the training loss falls in steps at the ends of epochs",
        "notes": (
            "step: mean fall of the loss across an end of an epoch, in nats per token. Straight "
            "lines are fitted by least squares to the losses of the second half of the epoch "
            "before and of the first half of the epoch after; the fall is the first line less the "
            "second, half-way between the two steps beside the boundary. A loss that falls evenly "
            "has none, one that falls in steps has their height.",
            "low, high: {confidence:.0%} interval (Student's t) of step, for independent and equal "
            "scatter about the lines; scatter: standard deviation of the losses of single steps "
            "about the lines; step per scatter: step in units of it.",
            "The paper's caption of figure 3.1 speaks of steps without a number; the statistic is "
            "ours.",
            NOT_RUN_NOTE,
        ),
    },
    "perplexity-by-year": {
        "title": "Mean perplexity on the s1 test set by year of submission",
        "notes": (
            "Of each model: mean over the abstracts of a year of their perplexity, as in the table "
            "of perplexities.",
            "year: of the first submission; abstracts: in the s1 test set.",
            "Models whose column is empty have no results in this experiment.",
        ),
    },
    "perplexity-cutoff": {
        "title": "Perplexity and gain over base before and after base's knowledge ends",
        "notes": (
            "until: abstracts first submitted up to the last year that the base model can have "
            "read (setting base.knowledge_until: Llama 3.1's by its model card, imposed on a "
            "stand-in); after: in later years; abstracts: how many.",
            "mean: of the abstracts' perplexities; gain percent: by how much it is below base's, "
            "in percent of base's mean on the same abstracts; positive favours the model.",
            "difference: gain after - gain until, in percentage points.",
            "low, high: {confidence:.0%} percentile bootstrap interval, {resamples:,} resamples of "
            "the abstracts of each period by itself, the same for all models; none for fewer than "
            "2 abstracts, and none to be relied on for few.",
            NOT_RUN_NOTE,
        ),
        "decimals": {
            f"{name}{end}": 2
            for name in ("until_gain", "after_gain", "difference")
            for end in ("", "_percent", "_low", "_high")
        },
    },
    "semscore": {
        "title": "SemScore of completions",
        "notes": (
            "continuation: generated against true second half; with prompt: full texts, as the "
            "released script compares them, where the shared prompt raises the score.",
            INTERVAL,
            "empty: completions without a token.",
            NOT_RUN_NOTE,
        ),
    },
    "pairwise-cosine": {
        "title": "Pairwise cosine similarity of the test abstracts as each model embeds them",
        "notes": ("All pairs of ground-truth abstracts, each with itself included.", NOT_RUN_NOTE),
    },
    "completions": {
        "title": "The same abstracts completed by different models",
        "notes": ("The first abstracts of the s1 test set, not chosen; long texts are shortened.",),
    },
    "commercial": {
        "title": "Completions of commercial models beside base and the variants",
        "notes": (
            "prompts: the abstracts that commercial models are asked to complete, the same for "
            "all. answered as: the model that the endpoint said it was. refused: by the model or a "
            "filter; no answer: empty, failed, or not asked for.",
            "semscore: mean over the answers, of the continuation; with prompt: of full texts, "
            "where the shared prompt raises the score.",
            INTERVAL,
            "entropy exp, tokens: means over the answers, in tokens of the base model's tokenizer.",
            "Commercial models are given an instruction; base and the variants continue the text. "
            "A model answered as stand_in_base is the base model itself, through a real endpoint.",
            NOT_RUN_NOTE,
        ),
    },
    "human-evaluation": {
        "title": "Experts' ratings of completions",
        "notes": (
            "papers: all, or those that every rater has rated (shared). system all: the ratings "
            "of a whole category. ratings: their number, all of equal weight.",
            "mean, std: of the scores, 1 to 10; mean and a rater's name: of that rater's scores.",
            "low, high: {confidence:.0%} percentile bootstrap interval of the mean, {resamples:,} "
            "resamples of whole papers with all their ratings; the raters stay the same, so it "
            "says nothing of other raters.",
        ),
    },
    "human-evaluation-differences": {
        "title": "Paired differences of experts' ratings",
        "notes": (
            "difference: mean of system - reference over units, each one rater's scores of one "
            "paper; in points of 10; positive favours the system. Of categories: of their mean "
            "scores in the unit.",
            "low, high: {confidence:.0%} percentile bootstrap interval, {resamples:,} resamples of "
            "whole papers with all their units.",
            "p: two-sided permutation test that flips the signs of all units of a paper together; "
            "p holm: Holm's correction over all rows. With n papers no p is below 2 / 2^n.",
        ),
        "decimals": {"p": 4, "p_holm": 4},
    },
    "human-evaluation-agreement": {
        "title": "Agreement of the raters",
        "notes": (
            "1: they agree; 0: alpha and ICC as by chance. alpha: of every completion that two or "
            "more raters scored; ICC: of the papers that all share; Spearman: of two raters' mean "
            "scores of each system on the papers both rated.",
            "low, high: the extremes when any one paper is left out. No interval: completions of "
            "one paper are no independent draws, and the shared papers are few.",
        ),
    },
    "human-evaluation-predictors": {
        "title": "Does a cheap metric predict the expert?",
        "notes": (
            "Rank correlation, over models, of the experts' mean score with the model's mean "
            "metric on the test abstracts. A metric that predicts the expert has a negative one "
            "for perplexity and a positive one for SemScore.",
            "low, high: {confidence:.0%} percentile bootstrap interval, {resamples:,} resamples of "
            "the papers that were rated; the metrics stay as they are.",
            "p: two-sided permutation test; p holm: Holm's correction over all rows.",
        ),
        "decimals": {"p": 4, "p_holm": 4},
    },
    "compute": {
        "title": "Time and memory of each run",
        "notes": (
            "seconds: the whole stage; tokens per second: over its model work alone.",
            'The row "all" of a stage adds seconds and tokens and takes the largest peak.',
        ),
        "decimals": {"seconds": 1, "tokens_per_second": 0, "peak_memory_GiB": 2},
    },
}

# Titles of the figures, and what each shows. One that is not listed goes by its file's name.
FIGURES: dict[str, tuple[str, str]] = {
    "fig-3.1-learning-curves": (
        "Figure 3.1: the loss of every training step",
        "Training loss of s1 in both flavours, with its moving average within epochs. By the "
        "paper's caption LoRA-all's falls in steps and LoRA-QKV's is an ordinary loss curve; table "
        "loss-steps measures it.",
    ),
    "fig-3.2-validation-perplexity": (
        "Figure 3.2: perplexity on the s1 validation set during training",
        "Mean batch perplexity at ten evaluations, the first before training, with the moving "
        "average of the others.",
    ),
    "fig-3.3-bootstrap-perplexity": (
        "Figure 3.3: perplexity of every model on the s1 test set",
        "Means over abstracts with percentile bootstrap intervals, by flavour and paired by "
        "dataset; the base model as a line with its band.",
    ),
    "fig-3.4-completion-entropy": (
        "Figure 3.4: entropy of completions against their length",
        "Exponential of the Shannon entropy of each completion. A text that repeats itself lies "
        "below the dashed bound.",
    ),
    "fig-perplexity-by-year": (
        "Perplexity by year of submission, and gain before and after base's knowledge ends",
        "Ours, not the paper's: what fine-tuning gains on abstracts that the base model cannot "
        "have read.",
    ),
    "fig-human-evaluation": (
        "Experts' ratings of completions",
        "Mean scores that people gave, by system.",
    ),
}


def describe(name: str, settings: Statistics) -> dict[str, Any]:
    """Title, notes and decimals of a table, as :func:`write` takes them."""
    look = LOOKS[name]
    notes = tuple(note.format(**settings.model_dump()) for note in look["notes"])
    return {"title": look["title"], "notes": notes, "decimals": look.get("decimals", {})}
