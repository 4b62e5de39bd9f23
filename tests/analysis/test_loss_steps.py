"""Steps of a loss at the ends of epochs: known curves in, known heights out."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from feyntune.analysis import loss_steps


def log(height=0.0, slope=0.001, scatter=0.0, *, length=40, epochs=4, seed=0) -> pd.DataFrame:
    """A loss that falls by ``slope`` a step, and by ``height`` more at the end of each epoch."""
    at = np.arange(length * epochs)
    noise = np.random.default_rng(seed).normal(size=len(at))
    loss = 3 - slope * at - height * (at // length) + scatter * noise
    return pd.DataFrame({"step": at + 1, "epoch": (at + 1) / length, "loss": loss})


@pytest.mark.parametrize("length", [6, 7, 40])
@pytest.mark.parametrize("height", [0.0, 0.1, -0.05])
def test_an_even_fall_has_no_step_and_a_step_has_its_height(height, length):
    found = loss_steps.at_boundaries(log(height, length=length), 0.95)
    # The slope itself makes the mean of the lines' ends no step: they meet half-way.
    assert found["step"] == pytest.approx(height, abs=1e-12)
    assert (found["boundaries"], found["steps_per_epoch"]) == (3, length)


def test_a_curve_that_bends_within_epochs_is_no_step():
    smooth = log()
    smooth["loss"] = 2 + np.exp(-np.arange(len(smooth)) / 80)
    assert abs(loss_steps.at_boundaries(smooth, 0.95)["step"]) < 0.01


def test_scatter_is_that_of_single_steps():
    found = loss_steps.at_boundaries(log(0.1, scatter=0.02, length=500), 0.95)
    assert found["scatter"] == pytest.approx(0.02, rel=0.05)
    assert found["step_per_scatter"] == pytest.approx(found["step"] / found["scatter"])


def test_the_interval_covers_as_often_as_it_says():
    drawn = [
        loss_steps.at_boundaries(log(0.05, scatter=0.05, length=11, seed=s), 0.9)
        for s in range(400)
    ]
    covered = np.mean([found["low"] < 0.05 < found["high"] for found in drawn])
    assert 0.86 < covered < 0.94


@pytest.mark.parametrize("short", [log(length=5), log(epochs=1), log().head(0)])
def test_too_few_steps_have_no_statistic(short):
    found = loss_steps.at_boundaries(short, 0.95)
    assert np.isnan(found["step"]) and np.isnan(found["low"])


def test_steps_without_a_loss_do_not_count():
    logged = log(0.1)
    before = pd.DataFrame({"step": [0], "epoch": [0.0], "loss": [np.nan]})
    found = loss_steps.at_boundaries(pd.concat([before, logged]), 0.95)
    assert found["step"] == pytest.approx(0.1)


def test_a_variant_without_log_keeps_its_row():
    logs = {"a": log(0.1), "b": log(length=4)}
    table = loss_steps.table(logs, ["a", "b", "c"], 0.95, absent="not run")
    assert list(table["model"]) == ["a", "b", "c"]
    assert list(table["note"]) == ["", loss_steps.TOO_SHORT, "not run"]
    assert table["step"].isna().tolist() == [False, True, True]
    assert table["steps_per_epoch"].tolist() == [40, 4, pd.NA]
