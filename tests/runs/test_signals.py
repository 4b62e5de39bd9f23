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
ENGINE = f"""
import subprocess, sys
job = subprocess.Popen([sys.executable, "-c", {JOB!r}, "-m", "feyntune", "run"])
try:
    job.wait()
except KeyboardInterrupt:
    job.wait()
    print("engine ended", flush=True)
"""
MAIN = f"""
import os, sys
from feyntune.runs import signals
signals.heed_interrupts()
try:
    signals.supervised([sys.executable, "-c", {ENGINE!r}], dict(os.environ))
except KeyboardInterrupt:
    print("all ended", flush=True)
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
    said = in_background(MAIN).communicate(timeout=30)[0]
    assert said.splitlines() == ["saved", "engine ended", "all ended"]


def test_an_interrupted_stage_lets_its_kernel_save():
    assert in_background(ALONE).communicate(timeout=30)[0].splitlines() == ["saved", "asked 75"]
