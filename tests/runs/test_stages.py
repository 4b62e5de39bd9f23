"""The plan of an experiment, and how its runs are divided into jobs."""

import pytest
from smoke_results import ALL, PLAN, QKV, SMOKE, jobs, smoke

from feyntune.experiment import load
from feyntune.runs.stages import (
    BASE_MODEL,
    COMMERCIAL,
    COMPLETIONS,
    CURATION,
    FIGURES,
    FINETUNE,
    HUMAN,
    PERPLEXITY,
    RELEASED,
    REPORT,
    SNAPSHOT,
    every,
    plan,
    run,
    shared,
)


def test_plan_is_complete_and_in_order():
    expected = [
        (SNAPSHOT, None),
        (CURATION, None),
        (BASE_MODEL, None),
        (FINETUNE, ALL),
        (FINETUNE, QKV),
        *[(PERPLEXITY, m) for m in ("base", ALL, QKV)],
        *[(COMPLETIONS, m) for m in ("base", ALL, QKV)],
        (COMMERCIAL, None),
        (HUMAN, None),
        (FIGURES, None),
        (REPORT, None),
    ]
    assert expected == PLAN
    assert len(plan(load.load("demo"))) == 3 + 20 + 21 + 21 + 2 + 2


@pytest.mark.parametrize("name", load.names())
def test_every_stage_comes_after_what_it_needs(name):
    planned = plan(load.load(name))
    for at, each in enumerate(planned):
        assert set(each.needs) <= set(planned[:at])


def test_plan_leaves_out_stand_ins_that_are_not_needed():
    given = smoke(data__snapshot="arxiv.json")
    assert jobs(plan(given)) == [job for job in PLAN if job != (SNAPSHOT, None)]
    given = smoke(base__model="meta-llama/Llama-3.1-8B")
    assert jobs(plan(given)) == [job for job in PLAN if job != (BASE_MODEL, None)]
    given = smoke(data__snapshot="arxiv.json", base__model="meta-llama/Llama-3.1-8B")
    planned = plan(given)
    assert jobs(planned)[0] == (CURATION, None)
    assert {each for one in planned for each in one.needs} <= set(planned), "nothing asks for them"


def test_plan_of_some_models():
    some = jobs(plan(SMOKE, ["base", ALL]))
    assert {subject for _, subject in some} == {None, "base", ALL}
    assert some == [job for job in PLAN if job[1] != QKV]


def test_released_scores_have_stages_of_their_own():
    published = load.load("published")
    expected = [(RELEASED, None), (HUMAN, None), (FIGURES, None), (REPORT, None)]
    assert jobs(plan(published)) == expected
    assert jobs(run(published, HUMAN).needs) == [(RELEASED, None)]
    assert jobs(run(published, FIGURES).needs) == [(RELEASED, None), (HUMAN, None)]
    assert (RELEASED, None) not in PLAN


def test_the_paper_makes_no_stand_ins():
    stages = {each.stage.name for each in plan(load.load("paper"))}
    wanted = {CURATION, FINETUNE, PERPLEXITY, COMPLETIONS, COMMERCIAL, HUMAN, FIGURES, REPORT}
    assert stages == wanted


def test_jobs_share_kernels_and_a_model_goes_with_its_variant():
    demo = load.load("demo")
    training = shared(every(demo, FINETUNE), workers=2)
    assert [len(part) for part in training] == [10, 10]
    assert sorted(each.subject for part in training for each in part) == sorted(demo.variants)
    measuring = shared(every(demo, PERPLEXITY), workers=2)
    for trained, measured in zip(training, measuring, strict=True):
        variants = [each.subject for each in measured if each.subject != "base"]
        assert variants == [each.subject for each in trained]
    assert sum(each.subject == "base" for part in measuring for each in part) == 1


@pytest.mark.parametrize("name", ["demo", "smoke"])
def test_on_one_machine_a_job_takes_its_models_through_all_stages(name):
    experiment = load.load(name)
    parts = shared(plan(experiment), workers=2)
    assert [each for part in parts for each in part if part[0].stage.name != FINETUNE] == [
        each for each in plan(experiment) if each.subject is None
    ]
    training = [part for part in parts if part[0].stage.name == FINETUNE]
    assert len(training) == 2 and jobs(parts[-1]) == [(s, None) for s in (HUMAN, FIGURES, REPORT)]
    for part in training:
        of = {s: [m for stage, m in jobs(part) if stage == s] for s in (FINETUNE, PERPLEXITY)}
        assert [m for m in of[PERPLEXITY] if m != "base"] == of[FINETUNE]
        assert [m for stage, m in jobs(part) if stage == COMPLETIONS] == of[PERPLEXITY]
    found = [each for part in training for each in part]
    assert len(found) == len(set(found)) == 2 * len(experiment.models) + len(experiment.variants)


def test_where_some_is_done_already_base_goes_where_there_is_room():
    todo = [run(SMOKE, FINETUNE, ALL), *every(SMOKE, PERPLEXITY)]
    parts = [jobs(part) for part in shared(todo, workers=2)]
    assert parts == [
        [(FINETUNE, ALL), (PERPLEXITY, "base"), (PERPLEXITY, ALL)],
        [(PERPLEXITY, QKV)],
    ]


def test_on_a_cluster_a_job_has_one_stage():
    parts = shared(plan(SMOKE), workers=None)
    assert all(len({each.stage.name for each in part}) == 1 for part in parts)
    assert [each for part in parts for each in part] == plan(SMOKE)


def test_on_a_cluster_a_job_has_as_many_as_the_experiment_says():
    paper = load.load("paper")
    assert [len(part) for part in shared(every(paper, FINETUNE), workers=None)] == [1] * 20
    measuring = shared(every(paper, PERPLEXITY), workers=None)
    assert [len(part) for part in measuring] == [7, 7, 7]


def test_more_workers_than_runs_get_one_each():
    assert [len(part) for part in shared(every(SMOKE, FINETUNE), workers=8)] == [1, 1]
    assert [len(part) for part in shared(every(SMOKE, PERPLEXITY), workers=1)] == [3]
