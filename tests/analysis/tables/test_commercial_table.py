"""The table of commercial models, by hand."""

from __future__ import annotations

import pandas as pd
import pytest

from feyntune.analysis.tables import scores
from feyntune.experiment.sections import Statistics


def test_table_by_hand():
    def of(semscores, statuses=None):
        found = pd.DataFrame(
            {
                "id": ["a", "b", "c", "d"][: len(semscores)],
                "semscore": semscores,
                "semscore_with_prompt": [None if s is None else 0.9 for s in semscores],
                "tokens": [10] * len(semscores),
                "entropy_exp": [5.0] * len(semscores),
            }
        ).astype({"semscore": float, "semscore_with_prompt": float})
        return found.assign(status=statuses) if statuses else found

    answered = {"them": of([0.8, None, 0.6], ["answered", "refused", "answered"])}
    completed = {"base": of([0.1, 0.2, 0.3, 0.9]), "s1-LoRA-QKV": of([0.4, 0.6, 0.9])}
    completed["s1-LoRA-QKV"].loc[2, "tokens"] = 0
    asked = {
        "them": {"reason": None, "models": ["them-1", "them-2"]},
        "others": {"reason": "OTHERS_KEY is not set", "models": []},
    }
    sampled = Statistics(resamples=99, confidence=0.95, seed=1)
    table = scores.commercial(
        answered,
        completed,
        asked,
        ["base", "s1-LoRA-all", "s1-LoRA-QKV"],
        sampled,
        absent="not run",
    )
    table = table.set_index("model")
    assert list(table.index) == ["them", "others", "base", "s1-LoRA-all", "s1-LoRA-QKV"]
    counts = ["prompts", "answers", "refused", "no_answer"]
    assert table.loc["them", counts].tolist() == [3, 2, 1, 0]
    assert table.loc["them", "semscore"] == pytest.approx(0.7)
    assert table.loc["them", "answered_as"] == "them-1, them-2"
    # Base is judged on the abstracts that the others were given, not on its fourth.
    assert table.loc["base", "prompts"] == 3
    assert table.loc["base", "semscore"] == pytest.approx(0.2)
    assert table.loc["others", "note"] == "not asked: OTHERS_KEY is not set"
    assert table.loc["others", counts].isna().all()
    assert table["note"].tolist() == ["", "not asked: OTHERS_KEY is not set", "", "not run", ""]
    # A completion without a token is no answer.
    assert table.loc["s1-LoRA-QKV", counts].tolist() == [3, 2, 0, 1]
    assert table.loc["s1-LoRA-QKV", "semscore"] == pytest.approx(0.5)
