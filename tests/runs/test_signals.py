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


def test_an_interrupted_run_asks_its_jobs_to_end_and_waits_for_them():
    """As from a shell's background, which lets its children ignore SIGINT."""
    running = subprocess.Popen(
        [sys.executable, "-c", MAIN],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),
    )
    assert running.stdout.readline() == "working\n"
    running.send_signal(signal.SIGINT)
    assert running.communicate(timeout=30)[0].split("\n")[:-1] == [
        "saved",
        "engine ended",
        "all ended",
    ]
