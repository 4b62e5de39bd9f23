"""What of a machine, or of a container, a process may use."""

from types import SimpleNamespace

import psutil
import pytest

from feyntune import machine

GIB = 2**30


@pytest.fixture
def group(tmp_path, monkeypatch):
    """A container's limits, and a machine of 8 cores and 64 GiB of which 40 are free."""
    monkeypatch.setattr(machine, "CONTROL_GROUP", tmp_path)
    monkeypatch.setattr(machine.os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    memory = SimpleNamespace(total=64 * GIB, available=40 * GIB)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory)
    return lambda name, text: (tmp_path / name).write_text(text)


@pytest.mark.parametrize(
    ("quota", "cores"), [("max 100000", 8), ("250000 100000", 2), ("10000 100000", 1), (None, 8)]
)
def test_cores_are_those_of_the_container(group, quota, cores):
    if quota:
        group("cpu.max", quota)
    assert machine.cores() == cores


def test_memory_is_what_the_container_leaves(group):
    assert machine.free_memory() == 40 * GIB
    group("memory.max", str(16 * GIB))
    group("memory.current", str(6 * GIB))
    assert machine.free_memory() == 10 * GIB
    group("memory.max", "max")
    assert machine.free_memory() == 40 * GIB


def test_files_that_a_container_has_read_are_not_in_the_way(group):
    group("memory.max", str(16 * GIB))
    group("memory.current", str(15 * GIB))
    group("memory.stat", f"anon {GIB}\ninactive_file {9 * GIB}\nactive_file {4 * GIB}\n")
    assert machine.free_memory() == 14 * GIB


def test_jobs_side_by_side_share_the_memory(group, monkeypatch):
    def shares():
        found = []
        for workers in (1, 2, 8):
            monkeypatch.setenv("FEYNTUNE_WORKERS", str(workers))
            found.append(machine.memory_of_a_job() // GIB)
        return found

    assert machine.memory_of_a_job() == 40 * GIB
    assert shares() == [40, 32, 8]
    group("memory.max", str(16 * GIB))
    group("memory.current", str(1 * GIB))
    assert shares() == [15, 8, 2]
