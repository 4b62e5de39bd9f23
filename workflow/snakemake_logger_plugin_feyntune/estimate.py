"""How long a run of the workflow will still take, about."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

# Mean seconds of a run of each stage of smoke, by its run records, on two cores. Only proportions
# count, and only until a run of the stage has been seen.
TYPICAL = {
    "stand-in-snapshot": 0.5,
    "01_data_curation": 4.7,
    "stand-in-base": 8.5,
    "02_finetune": 14.4,
    "03_perplexity": 5.7,
    "04_completions": 5.9,
    "05_commercial_llms": 8.4,
    "06_human_evaluation": 3.6,
    "07_figures_and_tables": 8.3,
    "08_reproduction_report": 5.9,
}
# Of a stage that smoke lacks: a guess.
OTHER = 5
# Nothing is said before this share of the whole has been seen.
SEEN = 0.1


class Estimate:
    """Of what the runs that ended, and those under way, took.

    Parameters
    ----------
    jobs
        Each with its ``runs``, one after another: ``name``, ``stage``, ``subject``, and what an
        earlier run took in ``seconds``, if any.
    workers
        Jobs at a time; ``None`` where nobody knows, as in a cluster's queue.
    """

    def __init__(self, jobs: Iterable[dict], workers: int | None):
        self.jobs, self.workers = list(jobs), workers
        self.runs = {run["name"]: run for job in self.jobs for run in job["runs"]}
        self.ended: dict[str, float | None] = {}  # seconds; None for what was there already
        self.under_way: dict[str, float] = {}  # seconds left, as the run itself says

    def left(self) -> float | None:
        """Seconds; ``None`` as long as too little has been seen."""
        seen = [*self.ended, *self.under_way]
        if not self.workers or _typical(self.runs, seen) < SEEN * _typical(self.runs, self.runs):
            return None
        alone = sum(self._rest(job) for job in self.jobs if not job["runs"][0]["subject"])
        side_by_side = [self._rest(job) for job in self.jobs if job["runs"][0]["subject"]]
        return alone + max([sum(side_by_side) / self.workers, *side_by_side])

    def _rest(self, job: dict) -> float:
        """Seconds that a job will still take."""
        return sum(self._cost(r["name"]) for r in job["runs"] if r["name"] not in self.ended)

    def _cost(self, name: str) -> float:
        """Seconds that a run will still take."""
        if name in self.under_way:
            return self.under_way[name]
        stage = self.runs[name]["stage"]
        same = [took for other, took in self._took.items() if self.runs[other]["stage"] == stage]
        if same:
            return sum(same) / len(same)
        earlier = self.runs[name]["seconds"]
        return TYPICAL.get(stage, OTHER) * self._slowness() if earlier is None else earlier

    def _slowness(self) -> float:
        """Seconds for a second of :data:`TYPICAL`, on this machine and for this experiment."""
        typical = _typical(self.runs, self._took)
        return sum(self._took.values()) / typical if typical else 1.0

    @property
    def _took(self) -> dict[str, float]:
        return {name: took for name, took in self.ended.items() if took is not None}


def _typical(runs: Mapping[str, dict], names: Iterable[str]) -> float:
    return sum(TYPICAL.get(runs[name]["stage"], OTHER) for name in names)


def about(seconds: float) -> str:
    """``about 5 min left``: no more exact than it is."""
    minutes = round(seconds / 60)
    if not minutes:
        return "under 1 min left"
    return f"about {minutes} min left" if minutes < 90 else f"about {minutes / 60:.0f} h left"
