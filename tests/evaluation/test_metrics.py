"""Metrics of completions: by hand, and as columns of one table."""

import math
import subprocess
import sys

import numpy as np
import pytest

from feyntune.evaluation import metrics


def test_exponentiated_entropy():
    assert metrics.exponentiated_entropy([5, 5, 5]) == pytest.approx(1)
    assert metrics.exponentiated_entropy([1, 2, 3, 4]) == pytest.approx(4)
    halves = math.exp(0.5 * math.log(2) + 2 * 0.25 * math.log(4))
    assert metrics.exponentiated_entropy([7, 7, 8, 9]) == pytest.approx(halves)
    assert math.isnan(metrics.exponentiated_entropy([]))


def test_cosine_by_hand():
    left = np.array([[3.0, 4.0], [1.0, 0.0], [1.0, 1.0], [2.0, 0.0]])
    right = np.array([[30.0, 40.0], [0.0, 5.0], [-2.0, -2.0], [1.0, 1.0]])
    np.testing.assert_allclose(metrics.cosine(left, right), [1, 0, -1, math.sqrt(0.5)], atol=1e-12)


VECTORS = {
    "a": [1, 0], "A": [1, 1], "whole a": [3, 4], "p A": [4, 3],
    "b": [0, 2], "B": [0, -1], "whole b": [0, 1], "q B": [1, 0],
}  # fmt: skip


def completed() -> metrics.Completed:
    """Two abstracts, whose texts have the vectors above."""
    return metrics.Completed(
        abstracts=["whole a", "whole b"],
        prompts=["p", "q"],
        truths=["a", "b"],
        texts=["A", "B"],
        ids=[[1, 1, 2, 2], []],
        truth_ids=[[7, 7, 7], [8]],
        embed=lambda texts: np.array([VECTORS[text] for text in texts], dtype=np.float32),
    )


def test_every_metric_is_a_column():
    found = metrics.measure(completed(), metrics.OF_COMPLETIONS | metrics.OF_TRUTHS)
    assert found.dtypes.astype(str).to_dict() == {
        "tokens": "int64", "semscore": "float64", "semscore_with_prompt": "float64",
        "entropy_exp": "float64", "truth_tokens": "int64", "truth_entropy_exp": "float64",
    }  # fmt: skip
    assert found["tokens"].tolist() == [4, 0] and found["truth_tokens"].tolist() == [3, 1]
    assert found["semscore"].tolist() == pytest.approx([math.sqrt(0.5), -1])
    assert found["semscore_with_prompt"].tolist() == pytest.approx([0.96, 0], abs=1e-7)
    assert found["entropy_exp"].tolist() == pytest.approx([2, math.nan], nan_ok=True)
    assert found["truth_entropy_exp"].tolist() == pytest.approx([1, 1])


def test_a_new_metric_is_one_row():
    rows = metrics.OF_COMPLETIONS | {
        "longer": lambda given: [len(text) > 1 for text in given.texts]
    }
    assert metrics.measure(completed(), rows).columns[-1] == "longer"


def test_the_analysis_can_import_it_without_torch():
    code = "import sys; import feyntune.evaluation.metrics; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
