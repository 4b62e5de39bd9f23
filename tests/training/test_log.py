"""The training log as a table."""

import math

import pytest

from feyntune.errors import UserError
from feyntune.training.log import LOG_COLUMNS, training_log


def test_a_row_for_every_step():
    log = training_log(
        [
            {"step": 0, "epoch": 0, "eval_loss": 3.0, "eval_perplexity": 20.0},
            {"step": 1, "epoch": 0.5, "loss": 2.5, "learning_rate": 0.1, "num_tokens": 7},
            {"step": 2, "epoch": 1, "loss": 2.0, "grad_norm": 0.4, "num_tokens": 15},
            {"step": 2, "epoch": 1, "eval_loss": 1.9, "eval_perplexity": 6.7, "eval_time": 3.2},
            {"step": 2, "epoch": 1, "train_runtime": 9.0, "train_loss": 2.25},
        ]
    )
    assert tuple(log.columns) == LOG_COLUMNS
    assert list(log["step"]) == [0, 1, 2]
    assert list(log["loss"].dropna()) == [2.5, 2.0] and list(log["tokens"].dropna()) == [7, 15]
    assert list(log["eval_loss"].dropna()) == [3.0, 1.9] and math.isnan(log["eval_loss"][1])


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_loss_that_is_not_a_number_is_an_error(loss):
    with pytest.raises(UserError, match="loss at step 4 is not a number"):
        training_log([{"step": 4, "loss": loss}])
