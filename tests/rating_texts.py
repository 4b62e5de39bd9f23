"""Invented completions to rate: TeX that converts, TeX that does not, and texts that attack."""

from __future__ import annotations

import pandas as pd

from feyntune.experiment.sections import HumanEvaluation
from feyntune.ratings import means

PAPERS = ("0806.1218", "hep-th/9912072", "2108.08859", "hep-th/9503124", "1302.5428", "2401.00010")
SYSTEMS = ("base", "s1-LoRA-all", "s1-LoRA-QKV", "Claude")
TEXTS = (
    r"The Poincar\'e patch of $AdS_5 \times S^5$ has $\mathcal{N}=4$, $\frac{1}{2}\lambda\phi^4$.",
    r"We find $\unknownmacro{x}$ at 5% and an unclosed $E=mc^2",
    "<script>document.title='broken'</script><img src=x onerror=\"document.title='broken'\">",
    '=1+1 is no formula; "quoted", with commas\nand a second line, é and 弦.',
)


def settings(**changed) -> HumanEvaluation:
    given = {
        "raters": ["CP", "VN"], "systems": None, "shared_papers": 2, "own_papers": 1, "seed": 3,
        "ratings": [], "key": None,
    }  # fmt: skip
    return HumanEvaluation(**{**given, **changed})


def completions(systems=SYSTEMS, papers=PAPERS) -> dict[str, pd.DataFrame]:
    """Every text is told from every other by its number."""
    return {
        system: pd.DataFrame(
            {
                "id": papers,
                "prompt": [f"Prompt {n}: $x^{n}$ & more." for n in range(len(papers))],
                "completion": [f"{TEXTS[at % 4]} {at}.{n}" for n in range(len(papers))],
            }
        )
        for at, system in enumerate(systems)
    }


def names() -> list[str]:
    """Every name that a system has, ours or the published one."""
    return sorted({name for ours, (theirs, _) in means.NAMES.items() for name in (ours, theirs)})
