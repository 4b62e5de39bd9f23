"""Ctrl-C: jobs are asked to end and do so, also where there is no terminal."""

import os
import signal
import subprocess
import sys

JOB = """
import signal, sys, time
def save(*_):
    print("saved", flush=True)
    sys.exit(75)
signal.signal(signal.SIGTERM, save)
print("working", flush=True)
time.sleep(60)
"""
ALONE = f"""
import subprocess, sys
from feyntune.runs import signals
signals.heed_interrupts()
with signals.passed_on() as request:
    kernel = subprocess.Popen([sys.executable, "-c", {JOB!r}], start_new_session=True)
    kernel.wait()
print("asked" if request.received else "not asked", kernel.returncode, flush=True)
"""


def main_with(job: str) -> str:
    """A command that supervises an engine with one job."""
    engine = f"""
import subprocess, sys
job = subprocess.Popen([sys.executable, "-c", {job!r}, "-m", "feyntune", "run"])
try:
    job.wait()
except KeyboardInterrupt:
    job.wait()
    print("engine ended", flush=True)
"""
    return f"""
import os, sys
from feyntune.runs import signals
signals.heed_interrupts()
try:
    signals.supervised([sys.executable, "-c", {engine!r}], dict(os.environ), os.getcwd())
except KeyboardInterrupt:
    print("all ended", flush=True)
"""


def in_background(script: str) -> subprocess.Popen:
    """As a shell starts what ends with &: its children ignore SIGINT."""
    running = subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),
    )
    assert running.stdout.readline() == "working\n"
    running.send_signal(signal.SIGINT)
    return running


def test_an_interrupted_run_asks_its_jobs_to_end_and_waits_for_them():
    said = in_background(main_with(JOB)).communicate(timeout=30)[0]
    assert said.splitlines() == ["saved", "engine ended", "all ended"]


def test_an_interrupted_stage_lets_its_kernel_save():
    assert in_background(ALONE).communicate(timeout=30)[0].splitlines() == ["saved", "asked 75"]


def test_a_second_ctrl_c_waits_for_nothing():
    stubborn = JOB.replace("sys.exit(75)", "time.sleep(60)")
    running = in_background(main_with(stubborn))
    assert running.stdout.readline() == "saved\n"
    running.send_signal(signal.SIGINT)
    assert running.communicate(timeout=30)[0] == "all ended\n"
