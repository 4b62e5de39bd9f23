"""A mirror for the experiment `published`: real files in the Hub's layout, invented contents.

Texts come from the stand-in's grammar, numbers from a seeded generator. None of it is the authors'
data; only names, columns and the shape of the ratings (with their known defects) are theirs.
Every piece can be changed before it is written, so that a test can break a single thing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import yaml
from safetensors.numpy import save_file

from feyntune.data.stand_in import corpus
from feyntune.experiment import load
from feyntune.experiment.recipes import (
    BASE,
    DATASETS,
    FLAVOURS,
    HUB_OWNER,
    MODELS,
    VARIANTS,
    released_dataset,
    released_name,
)

RATINGS = (
    "raw.githubusercontent.com/Paul-Richmond/FeynTune/db465e2cf5749ccfba6cf0001c944d20f07dad48"
    "/notebooks/llm_human_evaluation_final.csv"
)
SCORES = {
    "perplexities": "hep-th_perplexities",
    "semscores": "sem_scores_hep_th",
    "completions": "infer_hep_th",
}
EVERY = load.load("published").variants
LOGGED = ("s1-LoRA-all", "s1-LoRA-QKV")
PARQUET = "data/test-00000-of-00001.parquet"
STATE = "last-checkpoint/trainer_state.json"
SYSTEMS = {
    "Base": "Base",
    **{name: "LoRA-all" for name in DATASETS},
    **{f"{name}_qkv": "LoRA-QKV" for name in DATASETS},
    **dict.fromkeys(("ChatGPT-4", "Claude", "Gemini", "DeepSeek"), "Commercial"),
}
RATED_BY_ALL = ("hep-th/9912072", "hep-th/9611050", "hep-th/9911116", "0806.1218", "hep-th/9503124")
# How many papers each rater has alone, beside those of all and the one of two.
ALONE = {"CP": 5, "VN": 10, "BC": 4}
# Of the stand-in's records few are hep-th.
_RECORDS_PER_PAPER = 30
_LEVEL = {"Base": 3, "LoRA-all": 5, "LoRA-QKV": 5, "Commercial": 7}

Change = Callable[[pd.DataFrame], pd.DataFrame]


@dataclass(frozen=True)
class Mirror:
    """A folder that was built, and what its ratings must be pinned to."""

    folder: Path
    sha256: str
    bytes: int

    @property
    def overrides(self) -> dict[str, str | int]:
        """For :func:`feyntune.experiment.load.with_settings`: these in place of the authors'."""
        return {"fetch.ratings.sha256": self.sha256, "fetch.ratings.bytes": self.bytes}


def build(
    folder: Path,
    *,
    abstracts: int = 40,
    seed: int = 7,
    steps: int = 90,
    frames: Mapping[str, Change] | None = None,
    logs: Mapping[str, Callable[[dict], dict]] | None = None,
    cards: Mapping[str, list[str] | str | None] | None = None,
    ratings: Change | None = None,
    without: Collection[str] = (),
    commits: bool = True,
) -> Mirror:
    """Write a mirror of everything that `published` fetches.

    Parameters
    ----------
    abstracts, seed, steps
        Rows of the datasets, seed of all that is drawn, steps of the two training logs.
    frames
        By source (``perplexities``, ``semscores``, ``completions``): what changes its rows.
    logs
        By variant: what changes its trainer state.
    cards
        By variant: the datasets that its model card names instead; ``None`` for no card data.
    ratings
        What changes the ratings.
    without
        Names of sources to leave out, ``<variant>/log`` for the training log alone.
    commits
        Whether the notes on commits lie beside the files, as ``hf download`` leaves them.
    """
    draw = np.random.default_rng(seed)
    papers = metadata(abstracts, seed)
    texts = _texts(papers, draw)
    tables = {
        "perplexities": _perplexities(papers, draw),
        "semscores": _semscores(texts, draw),
        "completions": texts,
    }
    for name in tables.keys() - set(without):
        frame = (frames or {}).get(name, _same)(tables[name])
        repository = folder / "datasets" / HUB_OWNER / SCORES[name]
        (repository / "data").mkdir(parents=True)
        frame.to_parquet(repository / PARQUET, index=False)
        _finish(repository, commits)
    for variant in VARIANTS:
        if variant not in without:
            repository = folder / HUB_OWNER / released_name(variant)
            _adapter(repository, variant, (cards or {}).get(variant, _trained_on(variant)), draw)
            if variant in LOGGED and f"{variant}/log" not in without:
                state = (logs or {}).get(variant, _same)(trainer_state(variant, steps, draw))
                (repository / STATE).parent.mkdir()
                (repository / STATE).write_text(json.dumps(state, indent=2) + "\n")
            _finish(repository, commits)
    csv = (ratings or _same)(rated(draw)).to_csv(index=False).encode()
    if "ratings" not in without:
        (folder / "web" / RATINGS).parent.mkdir(parents=True)
        (folder / "web" / RATINGS).write_bytes(csv)
    return Mirror(folder, hashlib.sha256(csv).hexdigest(), len(csv))


def _same(value):
    return value


def metadata(abstracts: int, seed: int) -> pd.DataFrame:
    """Invented hep-th papers in the columns of the arXiv snapshot, cleaned as released."""
    records = [
        record
        for record, _ in corpus.generate(max(1000, _RECORDS_PER_PAPER * abstracts), seed)
        if record["categories"].split()[0] == "hep-th" and "withdrawn" not in str(record).lower()
    ][:abstracts]
    assert len(records) == abstracts
    frame = pd.DataFrame(records)
    frame["orig_abstract"] = frame["abstract"]
    frame["abstract"] = frame["abstract"].str.replace(r"\n\s*", " ", regex=True).str.strip()
    # The struct's fields are sorted in the released files.
    frame["versions"] = [
        [{"created": v["created"], "version": v["version"]} for v in versions]
        for versions in frame["versions"]
    ]
    columns = (
        "id submitter authors title comments journal-ref doi report-no categories license "
        "orig_abstract versions update_date authors_parsed abstract"
    )
    return frame[columns.split()]


def _perplexities(papers: pd.DataFrame, draw: np.random.Generator) -> pd.DataFrame:
    """Every model on every abstract; the base model is the worst on average."""
    difficulty = draw.normal(2.3, 0.3, len(papers))
    columns = {
        f"perplexity_{released_name(model)}": np.exp(
            difficulty + (0.3 if model == BASE else 0.0) + draw.normal(0, 0.05, len(papers))
        )
        for model in MODELS
    }
    return papers.assign(**columns)


def _texts(papers: pd.DataFrame, draw: np.random.Generator) -> pd.DataFrame:
    """Prompt, truth and every model's completion: other abstracts' words."""
    words = [text.split() for text in papers["abstract"]]
    half = [(len(w) + 1) // 2 for w in words]
    prompts = [" ".join(w[:h]) for w, h in zip(words, half, strict=True)]
    columns = {
        "prompt": prompts,
        "y_true": [" ".join(w[h:]) for w, h in zip(words, half, strict=True)],
    }
    vocabulary = np.array(sorted({word for text in words for word in text}))
    for model in MODELS:
        name = released_name(model)
        written = [" " + " ".join(draw.choice(vocabulary, 30)) for _ in prompts]
        columns[f"comp_{name}"] = [p + w for p, w in zip(prompts, written, strict=True)]
        columns[f"preds_{name}"] = written
    return papers.assign(**columns)


def _semscores(texts: pd.DataFrame, draw: np.random.Generator) -> pd.DataFrame:
    scores = {
        f"score_{released_name(model)}": draw.uniform(0.5, 1.0, len(texts)) for model in MODELS
    }
    return texts.assign(**scores)


def _trained_on(variant: str) -> list[str]:
    return [released_dataset(variant)]


def _adapter(
    repository: Path, variant: str, datasets: list[str] | str | None, draw: np.random.Generator
) -> None:
    """Model card, configuration and tiny weights, as PEFT writes them."""
    repository.mkdir(parents=True)
    front = {
        "base_model": "meta-llama/Meta-Llama-3.1-8B",
        "library_name": "peft",
        "license": "llama3.1",
        **({} if datasets is None else {"datasets": datasets}),
        "model-index": [{"name": repository.name, "results": []}],
    }
    card = f"---\n{yaml.safe_dump(front)}---\n\n# {repository.name}\n\nInvented, for tests.\n"
    (repository / "README.md").write_text(card)
    modules = ["q_proj", "k_proj", "v_proj"]
    if EVERY[variant].flavour == FLAVOURS[0]:
        modules += ["o_proj", "gate_proj", "up_proj", "down_proj"]
    config = {
        "base_model_name_or_path": "meta-llama/Meta-Llama-3.1-8B",
        "bias": "none",
        "lora_alpha": 32,
        "lora_dropout": 0.05,
        "peft_type": "LORA",
        "r": 8,
        "target_modules": modules,
        "task_type": "CAUSAL_LM",
    }
    (repository / "adapter_config.json").write_text(json.dumps(config, indent=2) + "\n")
    prefix = "base_model.model.model.layers.0.self_attn.q_proj"
    weights = {
        f"{prefix}.lora_A.weight": draw.normal(size=(8, 16)).astype(np.float32),
        f"{prefix}.lora_B.weight": np.zeros((16, 8), np.float32),
    }
    save_file(weights, repository / "adapter_model.safetensors", metadata={"format": "pt"})


def trainer_state(variant: str, steps: int, draw: np.random.Generator) -> dict:
    """What transformers writes: each step, and evaluations at the start and nine times later."""
    every = max(1, int(np.ceil(0.111 * steps)))
    evaluated = [0, *range(every, steps + 1, every)]
    history: list[dict] = []
    for step in range(steps + 1):
        epoch = 4 * step / steps
        if step:
            loss = 2.6 - 0.1 * (int(epoch) if variant == LOGGED[0] else epoch)
            history.append(
                {
                    "epoch": epoch,
                    "grad_norm": float(draw.uniform(0.5, 1.5)),
                    "learning_rate": 3e-4 * (1 - step / steps) + 3e-6,
                    "loss": round(float(loss + draw.normal(0, 0.02)), 4),
                    "step": step,
                }
            )
        if step in evaluated:
            history += [_evaluation(split, step, epoch, draw) for split in ("train", "test")]
    return {
        "best_metric": None,
        "best_model_checkpoint": None,
        "epoch": 4.0,
        "eval_steps": every,
        "global_step": steps,
        "is_hyper_param_search": False,
        "is_local_process_zero": True,
        "is_world_process_zero": True,
        "log_history": history,
        "logging_steps": 1,
        "max_steps": steps,
        "num_input_tokens_seen": 0,
        "num_train_epochs": 4,
        "save_steps": every,
        "total_flos": 1.0e15,
        "train_batch_size": 16,
        "trial_name": None,
        "trial_params": None,
    }


def _evaluation(split: str, step: int, epoch: float, draw: np.random.Generator) -> dict:
    loss = 2.7 - 0.05 * epoch + float(draw.normal(0, 0.01))
    values = {
        "loss": loss,
        "mean_batch_perplexity": float(np.exp(loss)),
        "runtime": 100.0,
        "samples_per_second": 158.0,
        "steps_per_second": 9.9,
    }
    return {
        "epoch": epoch,
        **{f"eval_{split}_{name}": value for name, value in values.items()},
        "step": step,
    }


def rated(draw: np.random.Generator) -> pd.DataFrame:
    """900 invented ratings: who rated which paper, and the slips of `source`, as published."""
    units = [(paper, rater, "common") for paper in RATED_BY_ALL for rater in ALONE]
    units += [("2108.08859", rater, "individual") for rater in ("CP", "BC")]
    own = ["1302.5428", *(f"hep-th/99{number:05}"[:14] for number in range(1, sum(ALONE.values())))]
    for rater, count in ALONE.items():
        units += [(own.pop(0), rater, "individual") for _ in range(count)]
    rows = [
        (paper, system, rater, int(np.clip(draw.normal(_LEVEL[kind], 1.5), 1, 10)), source, kind)
        for paper, rater, source in units
        for system, kind in SYSTEMS.items()
    ]
    frame = pd.DataFrame(rows, columns=["paper", "model", "rater", "score", "source", "category"])
    slips = frame.index[(frame.paper == "hep-th/9911116") & (frame.category == "Commercial")][:8]
    frame.loc[slips, "source"] = "individual"
    odd = frame.index[(frame.paper == "1302.5428") & (frame.model == "Base")]
    frame.loc[odd, "source"] = "bc"
    return frame


def commit_of(repository: str) -> str:
    """The commit that a repository of the mirror is at."""
    return hashlib.sha1(repository.encode()).hexdigest()


def _finish(repository: Path, commits: bool) -> None:
    """What every repository has, and the notes of ``hf download --local-dir``."""
    (repository / ".gitattributes").write_text("*.parquet filter=lfs diff=lfs merge=lfs -text\n")
    if not commits:
        return
    files = [file for file in repository.rglob("*") if file.is_file()]
    for file in files:
        name = file.relative_to(repository).as_posix()
        note = repository / ".cache" / "huggingface" / "download" / f"{name}.metadata"
        note.parent.mkdir(parents=True, exist_ok=True)
        etag = hashlib.sha256(file.read_bytes()).hexdigest()
        commit = commit_of(f"{HUB_OWNER}/{repository.name}")
        note.write_text(f"{commit}\n{etag}\n1724284800.0\n")
