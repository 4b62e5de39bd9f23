"""How fast completions are sampled, beside other ways, on the same model and prompts.

    python benchmarks/generation.py --base results/demo/base     # a stand-in that knows EOS
    python benchmarks/generation.py                              # random weights

Every row runs in a process of its own; rounds of all rows alternate, and the best of each counts.
Times are from prompts to token ids, without imports and without loading the model. All is float32
on the CPU. A token counts up to EOS, without it. Ways draw differently, so their completions have
other lengths: compare tokens per second. Only ours, in batches and one by one, must give the same
completions: they are counted, and fewer than 95 % are an error.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from perplexity import forget_peak, loaded, peak_memory, prepare, texts

RELEASED_BATCH = 56  # the released script's on a GPU of 80 GB
EQUAL = 0.95  # share of completions: rounding may move a draw of the others
# Prompts, longest completion, shape of a randomly initialised Llama; the stand-in's is `demo`'s.
MODELS = {
    "stand-in": (112, 160, None),
    "vocabulary 128,256": (28, 48, {"vocab_size": 128_256, "hidden_size": 256, "layers": 4}),
}
TINY = {"stand-in": (5, 6, None)}

Completions = list[list[int]]
# What is timed: from prompts to completions.
Work = Callable[[list[str]], Completions]


# --- the ways: each loads what it needs, then returns what is to be timed ---------------------


def settings(longest: int, **update: object):
    from feyntune.experiment import load as experiment

    demo = experiment.load("demo").completions
    return demo.model_copy(update={"max_new_tokens": longest, **update})


def ours(folder: Path, longest: int) -> Work:
    from feyntune.evaluation import completions

    model, tokenizer = loaded(folder)
    chosen = settings(longest)
    return lambda prompts: completions.generate(model, tokenizer, prompts, chosen)


def ours_one_by_one(folder: Path, longest: int) -> Work:
    """`generate` for one prompt after the other, drawing as ours does."""
    import numpy as np
    import torch

    from feyntune.evaluation import generation

    model, tokenizer = loaded(folder)
    chosen = settings(longest)
    config = generation.generation_config(chosen, [tokenizer.eos_token_id])

    def complete(prompt: str) -> list[int]:
        ids = tokenizer(prompt, add_special_tokens=False, return_tensors="pt")["input_ids"]
        stream = np.random.default_rng(generation.prompt_seed(chosen.seed, prompt)).random(longest)
        draws = generation.DrawLogitsProcessor(chosen, torch.from_numpy(stream)[None], ids.shape[1])
        output = model.generate(ids, generation_config=config, logits_processor=[draws])
        return cut(output.sequences[0, ids.shape[1] :].tolist(), tokenizer.eos_token_id)

    return lambda prompts: [complete(prompt) for prompt in prompts]


def one_by_one(folder: Path, longest: int) -> Work:
    """`generate` for one prompt after the other, drawing as the library does."""
    return _library(folder, longest, batch=1)


def released(folder: Path, longest: int) -> Work:
    """As the released script: file order, padding to a multiple of 8, static cache.

    It also compiles, in float16, on a GPU: that is left out here, where it would only lose.
    """
    return _library(folder, longest, batch=RELEASED_BATCH, multiple=8, cache="static")


def _library(folder: Path, longest: int, batch: int, multiple: int = 1, cache=None) -> Work:
    import torch
    from transformers import GenerationConfig, set_seed

    model, tokenizer = loaded(folder)
    chosen, end = settings(longest), tokenizer.eos_token_id
    tokenizer.pad_token, tokenizer.padding_side = tokenizer.eos_token, "left"
    model.generation_config = config = GenerationConfig(
        do_sample=True,
        temperature=chosen.temperature,
        top_p=chosen.top_p,
        top_k=chosen.top_k,
        min_new_tokens=chosen.min_new_tokens,
        max_new_tokens=longest,
        eos_token_id=end,
        pad_token_id=end,
        cache_implementation=cache,
    )

    @torch.inference_mode()
    def work(prompts: list[str]) -> Completions:
        set_seed(chosen.seed)
        found: Completions = []
        for group in groups(prompts, batch):
            given = tokenizer(
                group,
                add_special_tokens=False,
                padding=True,
                pad_to_multiple_of=multiple,
                return_tensors="pt",
            )
            ids, mask = given["input_ids"], given["attention_mask"]
            output = model.generate(ids, attention_mask=mask, generation_config=config)
            found += [cut(row, end) for row in output[:, ids.shape[1] :].tolist()]
        return found

    return work


def groups(items: list[str], size: int) -> Iterator[list[str]]:
    return (items[first : first + size] for first in range(0, len(items), size))


def cut(ids: list[int], end: int) -> list[int]:
    """The ids before the first ``end``."""
    return ids[: ids.index(end)] if end in ids else ids


ROWS = {
    "ours": ("FeynTune, batches of 64", ours),
    "reference": ("`generate` one by one, drawing as FeynTune", ours_one_by_one),
    "loop": ("`generate` one by one", one_by_one),
    "released": (f"released way, batches of {RELEASED_BATCH}", released),
}


# --- measuring --------------------------------------------------------------------------------


def measure(row: str, folder: Path, longest: int) -> dict:
    """What a row's own process says of itself."""
    counted = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS"), "1")
    command = [sys.executable, __file__, "--row", row, str(folder), str(longest)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **counted})
    if done.returncode:
        raise SystemExit(f"{ROWS[row][0]} failed.\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def run_row(row: str, folder: Path, longest: int) -> None:
    """In the process of a row: load, time, and print what came out as one line of JSON."""
    import psutil

    work = ROWS[row][1](folder, longest)
    prompts = json.loads((folder / "prompts.json").read_text())
    work(prompts[:1])  # imports what is imported late
    before = psutil.Process().memory_info().rss
    forget_peak()
    wall, cpu = time.perf_counter(), time.process_time()
    found = work(prompts)
    result = {"seconds": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
    result |= {"before": before, "peak": peak_memory(), "completions": found}
    print("\n" + json.dumps(result))


def best(folder: Path, longest: int, rounds: int) -> dict[str, dict]:
    """Of every row the least time of any round, and the most memory."""
    results: dict[str, list[dict]] = {row: [] for row in ROWS}
    for _ in range(rounds):
        for row in ROWS:
            results[row].append(measure(row, folder, longest))
    chosen = {}
    for row, runs in results.items():
        if any(run["completions"] != runs[0]["completions"] for run in runs):
            raise SystemExit(f"{ROWS[row][0]} gave other completions when run again.")
        least = {key: min(run[key] for run in runs) for key in ("seconds", "cpu")}
        most = max(runs, key=lambda run: run["peak"] - run["before"])
        chosen[row] = {**most, **least}
    return chosen


def table(found: dict[str, dict]) -> list[str]:
    heads = ("way", "tokens", "tokens/s", "ours is", "tokens per CPU second", "ours is",
             "peak memory", "of it since the model was loaded")  # fmt: skip
    lines = ["| " + " | ".join(heads) + " |", "|---|" + "--:|" * 7]
    tokens = {row: sum(map(len, result["completions"])) for row, result in found.items()}
    rates = {
        row: [tokens[row] / result[key] for key in ("seconds", "cpu")]
        for row, result in found.items()
    }
    for row, result in found.items():
        wall, cpu = rates[row]
        peak, above = result["peak"] / 2**20, (result["peak"] - result["before"]) / 2**20
        lines.append(
            f"| {ROWS[row][0]} | {tokens[row]:,} | {wall:,.0f} | {rates['ours'][0] / wall:.2f} x | "
            f"{cpu:,.0f} | {rates['ours'][1] / cpu:.2f} x | {peak:,.0f} MiB | "
            f"{max(above, 0):,.0f} MiB |"
        )
    pairs = list(zip(found["ours"]["completions"], found["reference"]["completions"], strict=True))
    equal = sum(left == right for left, right in pairs)
    if equal < EQUAL * len(pairs):
        raise SystemExit(f"Only {equal} of {len(pairs)} completions are those of one by one.")
    return [*lines, "", f"Ours in batches and one by one: {equal} of {len(pairs)} are equal."]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--base", type=Path, help="a stand-in of a run; else of random weights")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tiny", action="store_true", help="only to see that it runs")
    parser.add_argument("--row", nargs=3, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = os.environ["TOKENIZERS_PARALLELISM"] = "1"
    os.environ["TRANSFORMERS_VERBOSITY"] = "error"
    given = arguments()
    if given.row:
        row, folder, longest = given.row
        run_row(row, Path(folder), int(longest))
        return
    from feyntune.evaluation.completions import split_prompt

    for title, (number, longest, shape) in (TINY if given.tiny else MODELS).items():
        with tempfile.TemporaryDirectory(prefix="feyntune-benchmark-") as name:
            folder = Path(name)
            prepare(folder, shape, given.base)
            prompts = [split_prompt(text)[0] for text in texts()[-number:]]
            (folder / "prompts.json").write_text(json.dumps(prompts))
            load = f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "unknown"
            found = best(folder, longest, 1 if given.tiny else given.rounds)
            print(f"{title}: {number} prompts, at most {longest} tokens, load before: {load}\n")
            print("\n".join(table(found)) + "\n", flush=True)


if __name__ == "__main__":
    main()
