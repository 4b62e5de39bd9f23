"""How fast perplexity is measured, beside other ways, on the same model and abstracts.

    python benchmarks/perplexity.py                  # the stand-in, then Llama 3's vocabulary
    python benchmarks/perplexity.py --tiles          # the head alone, tile by tile

Every row runs in a process of its own; rounds of all rows alternate, and the least time of each
counts. On a busy machine compare CPU seconds, of all threads together. Times are from texts to
perplexities, without imports and without loading the model, which `evaluate` alone does inside
what is timed. All is float32 on the CPU. Perplexities are compared with those of one abstract at
a time; a row that is off by more than 1e-4 is an error.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import importlib.util
import json
import math
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

TOLERANCE = 1e-4  # relative, of any abstract's perplexity
RELEASED_BATCH = 12  # the released script's default
LIBRARY_BATCH = 16  # `evaluate`'s default; that of lm-eval, 1, would be slower
# Abstracts and shape of a randomly initialised Llama; the stand-in's own shape is `demo`'s.
MODELS = {
    "stand-in": (960, None),
    "vocabulary 128,256": (96, {"vocab_size": 128_256, "hidden_size": 256, "layers": 4}),
}
TINY = {
    "stand-in": (24, None),
    "large vocabulary": (4, {"vocab_size": 9000, "hidden_size": 16, "layers": 1}),
}

Perplexities = list[float]
# What is timed: from abstracts to their perplexities.
Work = Callable[[list[str]], Perplexities]


# --- model and abstracts ----------------------------------------------------------------------


def prepare(folder: Path, shape: dict | None, base: Path | None) -> None:
    """Save a model and the stand-in's tokenizer: a given stand-in, or one with random weights."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig

    from feyntune.experiment import load as experiment
    from feyntune.models import tiny_llama as demo

    own = experiment.load("demo").base.stand_in
    tokenizer = AutoTokenizer.from_pretrained(base) if base else demo.train_tokenizer(texts(), own)
    # Without a padding token, `evaluate` asks for a property that transformers 5 does not have.
    tokenizer.pad_token = tokenizer.eos_token
    shape = shape or {"vocab_size": len(tokenizer), "hidden_size": own.hidden_size, "layers": 2}
    torch.manual_seed(0)
    if base and shape["vocab_size"] == len(tokenizer):
        model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    else:
        config = LlamaConfig(
            vocab_size=shape["vocab_size"],
            hidden_size=shape["hidden_size"],
            intermediate_size=3 * shape["hidden_size"],
            num_hidden_layers=shape["layers"],
            num_attention_heads=own.attention_heads,
            num_key_value_heads=own.key_value_heads,
            max_position_embeddings=own.max_positions,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
        model = AutoModelForCausalLM.from_config(config)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def texts(number: int = 1500) -> list[str]:
    """Stand-in abstracts, from the generator that makes the stand-in snapshot."""
    from feyntune.data.stand_in import corpus

    return [" ".join(record["abstract"].split()) for record, _ in corpus.generate(number, seed=7)]


def loaded(folder: Path) -> tuple:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(folder, dtype="float32").eval()
    return model, AutoTokenizer.from_pretrained(folder)


# --- the ways: each loads what it needs, then returns what is to be timed ---------------------


def ours(folder: Path) -> Work:
    from feyntune.evaluation import perplexity

    model, tokenizer = loaded(folder)

    def work(abstracts: list[str]) -> Perplexities:
        names = [str(i) for i in range(len(abstracts))]
        scores = perplexity.score(model, tokenizer, names, abstracts, tokens_per_batch=4096)
        return scores["perplexity"].tolist()

    return work


def one_by_one(folder: Path) -> Work:
    """The reference: one abstract at a time, full logits."""
    import torch

    model, tokenizer = loaded(folder)

    def perplexity(text: str) -> float:
        ids = tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"]
        ids = torch.cat([torch.tensor([[tokenizer.bos_token_id]]), ids], dim=1)
        logits = model(input_ids=ids).logits[0, :-1]
        return torch.nn.functional.cross_entropy(logits, ids[0, 1:]).exp().item()

    return torch.inference_mode()(lambda abstracts: [perplexity(text) for text in abstracts])


def released(folder: Path) -> Work:
    """As the released script: file order, full logits and hidden states, collected every batch."""
    import torch
    from torch.utils.data import DataLoader
    from transformers import DataCollatorForSeq2Seq

    model, tokenizer = loaded(folder)

    @torch.inference_mode()
    def work(abstracts: list[str]) -> Perplexities:
        encoded = [{"input_ids": ids, "labels": ids} for ids in tokenizer(abstracts)["input_ids"]]
        collate = DataCollatorForSeq2Seq(tokenizer=tokenizer, pad_to_multiple_of=8)
        found: Perplexities = []
        for batch in DataLoader(encoded, batch_size=RELEASED_BATCH, collate_fn=collate):
            torch.cuda.empty_cache()
            gc.collect()
            logits = model(**batch, output_hidden_states=True).logits
            kept = batch["labels"][:, 1:] != -100
            found += _perplexities(logits, batch["labels"], kept)
        return found

    return work


def hugging_face(folder: Path) -> Work:
    """`evaluate`'s metric, whose script is on the Hub; FEYNTUNE_EVALUATE names a copy of it."""
    import evaluate

    evaluate.disable_progress_bar()
    try:
        script = os.environ.get("FEYNTUNE_EVALUATE", "perplexity")
        metric = evaluate.load(script, module_type="metric")
    except (OSError, ValueError):
        print("evaluate: its script cannot be had; its computation, written here, is measured")
        return _like_evaluate(folder)
    # It adds BOS to every text, and nothing else.
    given = {"model_id": str(folder), "batch_size": LIBRARY_BATCH, "device": "cpu"}
    return lambda abstracts: metric.compute(predictions=abstracts, **given)["perplexities"]


def _like_evaluate(folder: Path) -> Work:
    """What the metric computes: all texts padded to the longest of all, full logits."""
    import torch

    @torch.inference_mode()
    def work(abstracts: list[str]) -> Perplexities:
        model, tokenizer = loaded(folder)
        every = tokenizer(abstracts, add_special_tokens=False, padding=True, return_tensors="pt")
        first = torch.full((len(abstracts), 1), tokenizer.bos_token_id)
        ids = torch.cat([first, every["input_ids"]], dim=1)
        mask = torch.cat([torch.ones_like(first), every["attention_mask"]], dim=1)
        found: Perplexities = []
        for rows in torch.arange(len(ids)).split(LIBRARY_BATCH):
            logits = model(ids[rows], attention_mask=mask[rows]).logits
            found += _perplexities(logits, ids[rows], mask[rows, 1:])
        return found

    return work


def harness(folder: Path) -> Work:
    """lm-evaluation-harness, its rolling log-likelihood; every abstract fits into one window."""
    import logging

    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    # BOS is its prefix token, which is given and not scored; no other is added.
    model = HFLM(
        str(folder), device="cpu", dtype="float32", batch_size=LIBRARY_BATCH, add_bos_token=False
    )

    def work(abstracts: list[str]) -> Perplexities:
        requests = [Instance("loglikelihood_rolling", {}, (text,), 0) for text in abstracts]
        # It sums over the tokens, and keeps their number to itself.
        encoded = model.tokenizer(abstracts, add_special_tokens=False)["input_ids"]
        found = model.loglikelihood_rolling(requests, disable_tqdm=True)
        return [math.exp(-sum_ / len(ids)) for sum_, ids in zip(found, encoded, strict=True)]

    return work


def _perplexities(logits, labels, kept) -> Perplexities:
    """Of each row of full logits (rows, longest, V), as the released script and `evaluate`."""
    import torch

    logits, labels = logits[:, :-1].contiguous(), labels[:, 1:].contiguous()
    nll = torch.nn.functional.cross_entropy(logits.transpose(1, 2), labels, reduction="none")
    return torch.exp((nll * kept).sum(1) / kept.sum(1)).tolist()


# Title, function, library that it needs.
ROWS = {
    "reference": ("one abstract at a time, full logits", one_by_one, None),
    "ours": ("FeynTune", ours, None),
    "released": (f"released way, batches of {RELEASED_BATCH}", released, None),
    "evaluate": (f"`evaluate`, batches of {LIBRARY_BATCH}", hugging_face, "evaluate"),
    "lm_eval": (f"lm-evaluation-harness, batches of {LIBRARY_BATCH}", harness, "lm_eval"),
}


# --- measuring --------------------------------------------------------------------------------


def measure(row: str, folder: Path, threads: int) -> dict:
    """What a row's own process says of itself."""
    counted = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(threads))
    # Tokenizers work on as many threads as the rest.
    env = {**os.environ, **counted, "RAYON_NUM_THREADS": str(threads), "TQDM_DISABLE": "1"}
    command = [sys.executable, __file__, "--row", row, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, env=env)
    if done.returncode:
        raise SystemExit(f"{ROWS[row][0]} failed.\n{done.stderr}")
    *said, result = done.stdout.splitlines()
    return {**json.loads(result), "said": [line for line in said if line.startswith("evaluate: ")]}


def run_row(row: str, folder: Path) -> None:
    """In the process of a row: load, time, and print what came out as one line of JSON."""
    import psutil

    work = ROWS[row][1](folder)
    abstracts = json.loads((folder / "abstracts.json").read_text())
    work(abstracts[:2])  # imports what is imported late
    before = psutil.Process().memory_info().rss
    forget_peak()
    wall, cpu = time.perf_counter(), time.process_time()
    found = work(abstracts)
    result = {"seconds": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
    result |= {"before": before, "peak": peak_memory(), "perplexities": found}
    print("\n" + json.dumps(result))


def forget_peak() -> None:
    """Let Linux count the peak anew: imports and loading had one too."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_memory() -> int:
    """Highest resident memory of this process in bytes, since forgotten where that is possible."""
    with contextlib.suppress(OSError):
        status = Path("/proc/self/status").read_text()
        return 1024 * int(status.split("VmHWM:")[1].split()[0])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def best(rows: list[str], folder: Path, threads: int, rounds: int) -> dict[str, dict]:
    """Of every row the least time of any round, and the most memory."""
    results: dict[str, list[dict]] = {row: [] for row in rows}
    for _ in range(rounds):
        for row in rows:
            results[row].append(measure(row, folder, threads))
    chosen = {}
    for row, runs in results.items():
        least = {key: min(run[key] for run in runs) for key in ("seconds", "cpu")}
        most = max(runs, key=lambda run: run["peak"] - run["before"])
        chosen[row] = {**most, **least}
    return chosen


def table(found: dict[str, dict], absent: list[str]) -> list[str]:
    """In Markdown, with how far each row's perplexities are off the reference's."""
    heads = ("way", "seconds", "of ours", "CPU seconds", "of ours", "peak memory", "of it since "
             "the model was loaded", "largest difference")  # fmt: skip
    lines = ["| " + " | ".join(heads) + " |", "|---|" + "--:|" * 7]
    expected = found["reference"]["perplexities"]
    for row, result in found.items():
        pairs = zip(result["perplexities"], expected, strict=True)
        off = max(abs(value / right - 1) for value, right in pairs)
        if off > TOLERANCE:
            raise SystemExit(f"{ROWS[row][0]} gives other perplexities: off by {off:.1e}.")
        ratio, cpu = (result[key] / found["ours"][key] for key in ("seconds", "cpu"))
        peak, above = result["peak"] / 2**20, (result["peak"] - result["before"]) / 2**20
        lines.append(
            f"| {ROWS[row][0]} | {result['seconds']:.2f} | {ratio:.2f} x | "
            f"{result['cpu']:.2f} | {cpu:.2f} x | "
            f"{peak:,.0f} MiB | {max(above, 0):,.0f} MiB | {off:.0e} |"
        )
    return lines + [f"| {ROWS[row][0]} | not installed | | | | | | |" for row in absent]


def tiles() -> list[str]:
    """CPU seconds that the head takes for 4,096 positions, by tile, at both vocabularies."""
    import torch

    torch.set_num_threads(1)
    small, large = (torch.nn.Linear(*size, bias=False) for size in ((64, 2048), (256, 128_256)))
    lines = ["| positions | words | vocabulary 2,048 | vocabulary 128,256 |", "|--:|--:|--:|--:|"]
    for positions in (32, 128, 256, 512, 1024):
        for words in (2048, 4096, 16_384, 131_072):
            seconds = head_seconds(small, positions, words), head_seconds(large, positions, words)
            lines.append(f"| {positions:,} | {words:,} | {seconds[0]:.3f} | {seconds[1]:.2f} |")
    return lines


def head_seconds(head, positions: int, words: int) -> float:
    """The least CPU seconds of three rounds, for 4,096 positions in tiles of this size."""
    import torch

    from feyntune.models.likelihood import _head_nll

    number = min(4096, 2**27 // head.out_features)  # of a large vocabulary a part suffices
    states = torch.randn(number, head.in_features)
    targets = torch.randint(head.out_features, (number,))
    rounds = []
    for _ in range(3):
        start = time.process_time()
        with torch.inference_mode():
            for part in zip(states.split(positions), targets.split(positions), strict=True):
                _head_nll(head, *part, words)
        rounds.append(time.process_time() - start)
    return min(rounds) * 4096 / number


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--base", type=Path, help="a stand-in of a run; else of random weights")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS))
    parser.add_argument("--tiles", action="store_true", help="only the head, tile by tile")
    parser.add_argument("--tiny", action="store_true", help="only to see that it runs")
    parser.add_argument("--row", nargs=2, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = os.environ["TOKENIZERS_PARALLELISM"] = "1"
    os.environ["TRANSFORMERS_VERBOSITY"] = "error"
    given = arguments()
    if given.row:
        run_row(given.row[0], Path(given.row[1]))
        return
    if given.tiles:
        print("\n".join(tiles()))
        return
    lacking = [
        row for row in given.rows if ROWS[row][2] and not importlib.util.find_spec(ROWS[row][2])
    ]
    # All others are compared with these two.
    rows = [
        "reference",
        "ours",
        *(r for r in given.rows if r not in ("reference", "ours", *lacking)),
    ]
    threads, rounds = ([1], 1) if given.tiny else (given.threads, given.rounds)
    for title, (number, shape) in (TINY if given.tiny else MODELS).items():
        with tempfile.TemporaryDirectory(prefix="feyntune-benchmark-") as name:
            folder = Path(name)
            prepare(folder, shape, given.base)
            (folder / "abstracts.json").write_text(json.dumps(texts()[-number:]))
            for count in threads:
                load = f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "unknown"
                found = best(rows, folder, count, rounds)
                print(f"{title}: {number} abstracts, {count} thread(s), load before: {load}")
                print("\n".join({line for result in found.values() for line in result["said"]}))
                print("\n".join(table(found, lacking)) + "\n", flush=True)


if __name__ == "__main__":
    main()
