"""The benchmark for a GPU, run small on a processor, and what it counts, counted by hand."""

import contextlib
import io
import json
import re
import sys
from math import ceil

import numpy as np
import pytest
import torch

from feyntune.models import base as modeling
from feyntune.paths import REPOSITORY
from feyntune.training import memory

FOLDER = REPOSITORY / "benchmarks"


@pytest.fixture(autouse=True, scope="module")
def scripts():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(FOLDER))
        yield


@pytest.fixture(scope="module")
def script(scripts):
    import gpu_8b

    return gpu_8b


# --- the script -------------------------------------------------------------------------------


def in_this_process(script, patch: pytest.MonkeyPatch) -> type:
    """A stand-in for `subprocess.Popen` that runs the script's command here, which is quicker."""

    class Process(contextlib.nullcontext):
        def __init__(self, command, *, stdout, stderr, env):
            super().__init__(self)
            assert command[:2] == [sys.executable, script.__file__]
            with patch.context() as inner, contextlib.redirect_stdout(stdout):
                inner.setattr(sys, "argv", [str(word) for word in command[1:]])
                script.main()

        def poll(self):
            return 0

        def kill(self):
            pytest.fail("out of time")

    return Process


@pytest.fixture(scope="module")
def ran(script, tmp_path_factory):
    """Folder and output of a small run of everything."""
    folder, said = tmp_path_factory.mktemp("gpu") / "tables", io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(said):
        patch.setenv("CUDA_VISIBLE_DEVICES", "")
        patch.setattr(sys, "argv", ["gpu_8b.py", "--tiny", "--output", str(folder)])
        patch.setattr(script.subprocess, "Popen", in_this_process(script, patch))
        script.main()
    return folder, said.getvalue()


@pytest.fixture(scope="module")
def rows(ran):
    return {path.stem: json.loads(path.read_text()) for path in ran[0].glob("*.json")}


def test_every_cell_is_measured(ran, rows):
    from gpu import report

    assert set(report.TITLES) < set(rows) and not [row for row in rows.values() if "error" in row]
    table = (ran[0] / "table.md").read_text()
    assert table.strip() in ran[1]
    assert "only to see that it runs" in table and "Goals" not in table
    lines = [line for line in table.splitlines() if line.startswith("| ")]
    assert [line.split(" | ")[0] for line in lines[1:]] == [
        f"| {t}" for t in report.TITLES.values()
    ]
    assert len({line.count("|") for line in lines}) == 1
    written = (ran[0] / "table.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in written[1:]] == list(report.TITLES)
    for cell, row in rows.items():
        if cell not in ("look", "peak"):
            assert row["tokens_per_second"] > 0 and row["memory"] > 10**8 and row["steps"] > 0


def test_shares_of_a_training_step(rows):
    from gpu import report

    for cell in report.TRAINING:
        row = rows[cell]
        assert row["head_share"] > 0 and row["head_share"] + row["dequantisation_share"] < 1
        assert (row["dequantisation_share"] > 0) == (row["base"] == "nf4")
        if cell != "nf4-24gb":  # which is as `memory` plans it
            assert row["gradient_checkpointing"] == cell.endswith("recompute")
            assert row["base"] == cell.removesuffix("-recompute")


def padding(batches: list[list[int]], size: int) -> float:
    """Share of padding if abstracts of like length go through the model so many at a time."""
    pieces = [sorted(b)[i : i + size] for b in batches for i in range(0, len(b), size)]
    slots = sum(len(piece) * 8 * ceil(max(piece) / 8) for piece in pieces)
    return 1 - sum(map(sum, batches)) / slots


def test_padding_is_that_of_the_batches(rows):
    from gpu import report

    for cell in report.TRAINING:
        batches = rows[cell]["lengths"]
        assert len(batches) == rows[cell]["steps"] and {len(batch) for batch in batches} == {16}
        whole = padding(batches, 16)
        share = padding(batches, rows[cell]["rows"])
        assert rows[cell]["padding_share"] == pytest.approx(share)
        assert 0.2 < whole < 0.7 and (0 < share < whole or rows[cell]["rows"] == 16)
    for cell in ("evaluation", "evaluation-adapter"):
        batches = rows[cell]["lengths"]
        share = 1 - sum(map(sum, batches)) / sum(len(b) * max(b) for b in batches)
        assert rows[cell]["padding_share"] == pytest.approx(share) and 0 < share < 0.5


def test_operations_per_second_are_those_of_the_tokens(rows):
    """Of the small model: 2 layers of 64 x 128, half as many keys, 512 words, rank 8 on all."""
    layer = 2 * 64 * 64 + 2 * 64 * 32 + 3 * 64 * 128
    weights = 2 * layer + 512 * 64
    lora = 2 * 8 * (2 * (64 + 64) + 2 * (64 + 32) + 3 * (64 + 128))
    for cell, (n, attention, adapter) in {
        "nf4": (4, 3.5, 6),
        "evaluation": (2, 1, 0),
        "evaluation-adapter": (2, 1, 2),
    }.items():
        every = [length for batch in rows[cell]["lengths"] for length in batch]
        pairs = 2 * 64 * 2 * sum(length**2 for length in every) / sum(every)
        each = n * weights + attention * pairs + adapter * lora
        found = rows[cell]["flops_per_second"] / rows[cell]["tokens_per_second"]
        assert found == pytest.approx(each)


def test_without_a_gpu_the_8b_model_is_refused(script, tmp_path, monkeypatch):
    from gpu import look

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    said = look.look(tiny=False)["error"]
    assert said.startswith("There is no GPU here") and "--tiny" in said
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    assert "install the CUDA build" in look.look(tiny=True)["error"]
    # The script ends with that line.
    monkeypatch.setattr(sys, "argv", ["gpu_8b.py", "--output", str(tmp_path / "tables")])
    (tmp_path / "worker.py").write_text(SAYS)
    monkeypatch.setattr(script, "__file__", str(tmp_path / "worker.py"))
    with pytest.raises(SystemExit, match=r"^nothing works$"):
        script.main()


# --- what stops a cell ------------------------------------------------------------------------

SAYS = """
import pathlib, sys
folder = pathlib.Path(sys.argv[sys.argv.index("--output") + 1])
(folder / "look.json").write_text('{"error": "nothing works"}')
"""
FIRST_THEN = """
import json, pathlib, sys, time
given = sys.argv[sys.argv.index("--work") + 1:]
folder = pathlib.Path(given[given.index("--output") + 1])
(folder / f"{given[0]}.json").write_text(json.dumps({"tokens_per_second": 5.0}))
"""


@pytest.mark.parametrize(
    ("then", "seconds", "said"),
    [("time.sleep(60)", 3, "no time left"), ("sys.exit(3)", 30, "its process ended, see nf4.log")],
)
def test_a_process_that_hangs_or_dies_costs_its_cell_alone(
    script, tmp_path, monkeypatch, then, seconds, said
):
    worker = tmp_path / "worker.py"
    worker.write_text(FIRST_THEN + then)
    monkeypatch.setattr(script, "__file__", str(worker))
    table = script.Table(tmp_path, 60, tiny=False, machine={"device": "a GPU"})
    script.start(["nf4", "evaluation"], table, seconds)
    assert table.found["nf4"] == {"tokens_per_second": 5.0}
    assert table.found["evaluation"] == {"error": f"not measured: {said}"}
    assert f"| evaluation, base | not measured: {said} |" in (tmp_path / "table.md").read_text()


def test_what_the_budget_leaves_out_is_named(script, tmp_path, monkeypatch):
    started = []
    monkeypatch.setattr(script, "start", lambda cells, table, seconds: started.append(cells))
    table = script.Table(tmp_path, script.ENOUGH - 1, tiny=False, machine={"device": "a GPU"})
    script.measure(["nf4", "evaluation"], table)
    assert started == [[script.LOOK]]
    assert {row["error"] for row in table.found.values()} == {"not measured: no time left"}
    assert len(table.found) == 2


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (torch.OutOfMemoryError("CUDA out of memory."), "out of memory"),
        (RuntimeError("a | b\nc"), "RuntimeError: a / b c"),
    ],
)
def test_an_error_is_the_cells_row(monkeypatch, error, said):
    from gpu import cells
    from gpu.run import Run

    def fails(run):
        raise error

    monkeypatch.setitem(cells.CELLS, "nf4", fails)
    assert cells.measure("nf4", Run(tiny=True, deadline=0)) == {"error": said}


def test_a_kernel_that_fails_is_named_with_what_helps(monkeypatch):
    from gpu import look

    def fails(device):
        raise RuntimeError("Failed to find C compiler")

    trials = [(w, fails if w == "TRL's fused head" else t, h) for w, t, h in look.TRIALS]
    monkeypatch.setattr(look, "TRIALS", trials)
    said = look.look(tiny=True)["error"]
    assert re.match(r"On this device TRL's fused head fails .*C compiler.*gcc", said)


# --- what is counted --------------------------------------------------------------------------


def test_lengths_are_those_of_real_abstracts():
    from gpu import lengths

    found = lengths.characters(100_000, 3)
    assert found.mean() == pytest.approx(762, rel=0.02)
    assert np.percentile(found, [25, 50, 75]) == pytest.approx([501, 710, 972], rel=0.02)
    tokens = lengths.tokens(100_000, 3)
    assert tokens.mean() == pytest.approx(170, rel=0.02)
    assert tokens.std() / tokens.mean() == pytest.approx(0.45, abs=0.03)
    rows = lengths.sequences(200, 3, 512)
    assert [len(row) for row in rows] == lengths.tokens(200, 3).tolist()
    assert all(row[0] == 510 and row[-1] == 511 and max(row[1:-1]) < 510 for row in rows)


def test_operations_of_the_8b_model_by_hand():
    """4 N + 3.5 attention + 6 LoRA for abstracts of 250 tokens; 2 N + attention forward."""
    from gpu import flops, model

    shape = model.config(tiny=False)
    layer = 2 * 4096 * 4096 + 2 * 4096 * 1024 + 3 * 4096 * 14336
    weights = 32 * layer + 128256 * 4096
    assert flops.matmul_parameters(shape) == weights == 7_504_658_432
    attention = 2 * 250 * 4096 * 32
    lora = 20_971_520
    assert flops.training(shape, lora, [250]) == 4 * weights + 3.5 * attention + 6 * lora
    assert flops.training(shape, lora, [250]) == pytest.approx(30.37e9, rel=1e-3)
    assert flops.forward(shape, 0, [250]) == pytest.approx(15.07e9, rel=1e-3)
    # Longer abstracts have more pairs, weighted by their tokens.
    assert flops.attention(shape, [100, 300]) == 2 * 250 * 4096 * 32


def test_the_random_model_is_what_loading_gives(stand_in):
    """Same classes, numbers, flags and places as the stand-in read from its file."""
    from gpu import model

    nf4 = model.nf4(stand_in.experiment)
    loaded = modeling.load_base(stand_in.experiment, dtype="float32", quantization=nf4)
    built = model.build(
        loaded.config, dtype="float32", quantization=nf4, device=torch.device("cpu")
    )

    def described(base):
        layers = [(name, type(m), m.training) for name, m in base.named_modules()]
        weights = [
            (name, type(p), p.dtype, p.shape, p.device, p.requires_grad)
            for name, p in base.named_parameters()
            if "_proj" in name
        ]
        flags = base.is_quantized, base.is_loaded_in_4bit, base.quantization_method
        return layers, weights, flags, [b.tolist() for b in base.buffers()]

    assert described(built) == described(loaded)
    state = built.model.layers[0].mlp.up_proj.weight.quant_state
    assert state.nested and state.quant_type == "nf4"
    spread = memory.prepare_base(built, memory.MemoryPlan("dequantised", False, 1, False))
    weight = spread.model.layers[0].mlp.up_proj.weight
    assert weight.std().item() == pytest.approx(model.DEVIATION, rel=0.05)


@pytest.mark.parametrize("rows", [4, 3])
def test_the_head_is_what_lies_between_norm_and_loss(stand_in, tmp_path, monkeypatch, rows):
    """By a clock that counts the marks: in order, four for every piece of a batch."""
    from gpu import timing

    class Counted:
        number = 0

        def __init__(self, device):
            Counted.number += 1
            self.at = Counted.number

        def until(self, later):
            return later.at - self.at

    monkeypatch.setattr(timing, "Mark", Counted)
    trainer = stand_in.trainer(tmp_path, trainer_class=timing.TimedTrainer)
    trainer.rows = rows
    chosen = list(trainer.train_dataset.select(range(4)))
    trainer.trial_step(trainer.data_collator(chosen))
    pieces = ceil(4 / rows)
    assert len(trainer.marks) == len(trainer.pieces) == pieces
    for mark in trainer.marks:
        assert mark["norm"].at < mark["forward"].at < mark["loss"].at < mark["gradient"].at
    assert trainer.head_seconds() == 2 * pieces
    assert sum(tokens for tokens, _ in trainer.pieces) == sum(len(r["input_ids"]) for r in chosen)


def test_goals_are_met_missed_or_not_measured():
    from gpu import report

    found = {"peak": {"flops_per_second": 800e12},
             "nf4": {"tokens_per_second": 14_000.0, "flops_per_second": 425e12,
                     "padding_share": 0.0},
             "nf4-24gb": {"memory": 25e9, "padding_share": 0.4},
             "evaluation": {"tokens_per_second": 40_000.0}}  # fmt: skip
    rows = report.completed(found, "NVIDIA H200")
    assert rows["nf4"]["of_specified"] == pytest.approx(425 / 989)
    assert rows["nf4"]["of_peak"] == pytest.approx(425 / 800)
    verdicts = [line.split(": ")[1].split(" ")[0] for line in report.goals(rows).splitlines()]
    assert verdicts == ["met", "met", "missed", "missed", "not"]
    assert report.specified("NVIDIA H100 PCIe") == 756e12
    assert report.specified("NVIDIA L40S") == 362e12
    assert report.specified("CPU") is None
