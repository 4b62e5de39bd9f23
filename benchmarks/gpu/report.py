"""The table: rows as they come, as CSV and Markdown, and the goals beside what was found."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence

# Products in bfloat16 without sparsity, per second, as the makers' data sheets have them; of names
# that begin alike the longest counts.
SPECIFIED = {
    "H200": 989e12,
    "H100": 989e12,
    "H100 NVL": 835e12,
    "H100 PCIe": 756e12,
    "A100": 312e12,
    "L40S": 362e12,
    "L4": 121e12,
    "RTX 4090": 165e12,
}
TITLES = {
    "peak": "fastest product of two matrices",
    "nf4-recompute": "training, NF4, activations recomputed",
    "nf4": "training, NF4, activations kept",
    "dequantised": "training, dequantised, activations kept",
    "dequantised-recompute": "training, dequantised, activations recomputed",
    "nf4-24gb": "training, NF4, as planned for 24 GB",
    "evaluation": "evaluation, base",
    "evaluation-adapter": "evaluation, LoRA-all on it",
    "generation": "generation, base",
    "generation-adapter": "generation, LoRA-all on it",
}
TRAINING = [name for name, title in TITLES.items() if title.startswith("training")]


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %"


def _gigabytes(value: float) -> str:
    return f"{value / 1e9:.1f} GB"


# Heading, key, how it is written.
COLUMNS: tuple[tuple[str, str, Callable[[float], str]], ...] = (
    ("tokens/s", "tokens_per_second", _number),
    ("TFLOP/s", "teraflops", _number),
    ("of specification", "of_specified", _percent),
    ("of measured peak", "of_peak", _percent),
    ("padding", "padding_share", _percent),
    ("loss head", "head_share", _percent),
    ("dequantisation", "dequantisation_share", _percent),
    ("seconds per step", "seconds_per_step", _number),
    ("peak memory", "memory", _gigabytes),
    ("abstracts at a time", "rows", str),
    ("steps", "steps", str),
)


def specified(device: str) -> float | None:
    """What a GPU of this name should do; ``None`` if it is not in the list."""
    names = [name for name in SPECIFIED if name in device]
    return SPECIFIED[max(names, key=len)] if names else None


def completed(found: Mapping[str, dict], device: str) -> dict[str, dict]:
    """The rows, with operations per second as shares of both peaks where those are known."""
    measured, sheet = found.get("peak", {}).get("flops_per_second"), specified(device)
    rows = {}
    for cell, row in found.items():
        speed = row.get("flops_per_second")
        rows[cell] = dict(row)
        if speed:
            rows[cell]["teraflops"] = speed / 1e12
            rows[cell] |= {"of_peak": speed / measured} if measured else {}
            rows[cell] |= {"of_specified": speed / sheet} if sheet else {}
    return rows


def markdown(rows: Mapping[str, dict]) -> str:
    """All cells in their order; of one that failed, why."""
    lines = ["| | " + " | ".join(heading for heading, _, _ in COLUMNS) + " |"]
    lines.append("|---|" + "--:|" * len(COLUMNS))
    for cell, title in TITLES.items():
        row = rows.get(cell, {"error": "not measured"})
        if "error" in row:
            lines.append(f"| {title} | {row['error']} |" + " |" * (len(COLUMNS) - 1))
            continue
        cells = (
            written(row[key]) if row.get(key) is not None else "" for _, key, written in COLUMNS
        )
        lines.append(f"| {title} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def comma_separated(rows: Mapping[str, dict]) -> str:
    """The same with all digits, and the bytes and settings that the table leaves out."""
    keys = [key for _, key, _ in COLUMNS]
    more = ["allocated", "base", "gradient_checkpointing", "padding_free", "error"]
    text = io.StringIO()
    writer = csv.DictWriter(text, ["cell", *keys, *more], extrasaction="ignore", restval="")
    writer.writeheader()
    writer.writerows({"cell": cell, **row} for cell, row in rows.items())
    return text.getvalue()


# Goal, cells, key, which of the cells' values, what it must be.
GOALS: tuple[tuple[str, Sequence[str], str, Callable, Callable[[float], bool]], ...] = (
    ("training, at least 13,000 tokens/s", TRAINING, "tokens_per_second", max,
     lambda value: value >= 13_000),
    ("training, at least 40 % of the specification", TRAINING, "of_specified", max,
     lambda value: value >= 0.4),
    ("training, no padding", TRAINING, "padding_share", max, lambda value: value == 0),
    ("training, NF4, at most 24 GB", ["nf4-24gb"], "memory", max, lambda value: value <= 24e9),
    ("evaluation, at least 31,000 tokens/s", ["evaluation", "evaluation-adapter"],
     "tokens_per_second", min, lambda value: value >= 31_000),
)  # fmt: skip


def goals(rows: Mapping[str, dict]) -> str:
    """Each goal, set for an H200: met, missed, or not measured if any of its cells is not."""
    lines = []
    for goal, cells, key, chosen, met in GOALS:
        values = [rows[cell][key] for cell in cells if key in rows.get(cell, {})]
        written = next(how for _, name, how in COLUMNS if name == key)
        if not values or (chosen is min and len(values) < len(cells)):
            lines.append(f"- {goal}: not measured")
        else:
            value = chosen(values)
            lines.append(f"- {goal}: {'met' if met(value) else 'missed'} ({written(value)})")
    return "\n".join(lines) + "\n"
