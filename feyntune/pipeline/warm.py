"""A process that has imported the slow libraries once, from which stages are forked.

Importing torch, transformers, peft and TRL takes ten seconds of a core. Sixty-two stages of the
stand-in, each with a kernel of its own, would spend longer on that than on their work. Here one
process imports them, and every stage and kernel starts as a fork of it, in milliseconds.

It only saves time: without it, on another system, with a GPU or with several threads per stage, the
same command runs in a process of its own (:func:`main`). Nothing of this package is imported
before the fork, so a stage always runs the code that its record names.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import runpy
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

SOCKET_VARIABLE, KERNEL_VARIABLE = "FEYNTUNE_WARM_SOCKET", "FEYNTUNE_KERNEL"
KERNEL = "feyntune-warm"
SLOW_LIBRARIES = (
    "papermill",
    "ipykernel.kernelapp",
    "matplotlib.pyplot",
    "pandas",
    "pyarrow.parquet",
    "datasets",
    "torch",
    "transformers.models.llama.modeling_llama",
    "transformers.generation",
    "bitsandbytes",
    "peft",
    "trl.trainer.sft_trainer",
    "scipy.stats",
    "statsmodels.stats.multitest",
)

BEFORE_IMPORTS = {
    # A kernel sets this for its figures, but after the fork matplotlib is imported already.
    "MPLBACKEND": "module://matplotlib_inline.backend_inline",
    # pyarrow's allocator would start a thread, and a process to be forked must have but one.
    "JE_ARROW_MALLOC_CONF": "background_thread:false",
}


@contextlib.contextmanager
def server(environment: dict[str, str], log: Path) -> Iterator[dict[str, str]]:
    """Start the process; yield the variables with which stages find it, then end it.

    It warms up while the first stages run; they do not wait for it.

    Parameters
    ----------
    environment
        What the libraries are to find when they are imported.
    log
        Where the process says why it cannot serve, if it cannot.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="feyntune-") as folder, log.open("w") as said:
        spec = Path(folder) / "kernels" / KERNEL / "kernel.json"
        spec.parent.mkdir(parents=True)
        argv = [sys.executable, "-m", "feyntune.pipeline.warm", "kernel", "-f", "{connection_file}"]
        spec.write_text(json.dumps({"argv": argv, "display_name": KERNEL, "language": "python"}))
        address = str(Path(folder) / "socket")
        process = subprocess.Popen(
            [sys.executable, "-m", "feyntune.pipeline.warm", "serve", address],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=said,
            env={**environment, **BEFORE_IMPORTS},
        )
        try:
            search = os.pathsep.join(filter(None, [folder, os.environ.get("JUPYTER_PATH")]))
            yield {SOCKET_VARIABLE: address, "JUPYTER_PATH": search}
        finally:
            # At once, even if it is still importing; its forks die with it.
            process.kill()
            process.wait()
            process.stdin.close()


def usable() -> bool:
    """Whether forking is safe here: on Linux, and with nothing that holds on to a GPU."""
    return sys.platform == "linux" and not Path("/dev/nvidiactl").exists()


def main() -> None:
    """``python -m feyntune.pipeline.warm``: ``serve``, or what to run (``kernel``, ``run``)."""
    arguments = sys.argv[1:]
    if arguments[:1] == ["serve"]:
        _serve(arguments[1])
    status = _ask(arguments)
    if status is None:
        _run(arguments)
    sys.exit(status)


def _ask(arguments: list[str]) -> int | None:
    """Let the warm process run this; return its exit status, or ``None`` if there is none."""
    address = os.environ.get(SOCKET_VARIABLE)
    if not address:
        return None
    _die_with_parent()
    # Jupyter interrupts a kernel before it ends it; the fork hears of its end by other means.
    signal.signal(signal.SIGINT, signal.SIG_IGN if arguments[0] == "kernel" else signal.SIG_DFL)
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            connection.connect(address)
        except OSError:
            return None
        request = {"arguments": arguments, "environment": {**os.environ}, "folder": os.getcwd()}
        text = json.dumps(request).encode()
        socket.send_fds(connection, [len(text).to_bytes(8)], [0, 1, 2])
        connection.sendall(text)
        answer = connection.recv(1)
    # A closed connection without an answer: the warm process is gone, and with it this stage.
    return answer[0] if answer else 1


def _run(arguments: list[str]) -> None:
    """Run a kernel, or a ``feyntune`` command, in this process."""
    if arguments[0] == "kernel":
        from ipykernel.kernelapp import IPKernelApp

        IPKernelApp.launch_instance(argv=arguments[1:])
        return
    if SOCKET_VARIABLE in os.environ:
        os.environ[KERNEL_VARIABLE] = KERNEL
    sys.argv = ["feyntune", *arguments]
    runpy.run_module("feyntune", run_name="__main__")


def _serve(address: str) -> None:
    """Import, then fork a process per request until standard input closes."""
    for library in SLOW_LIBRARIES:
        importlib.import_module(library)
    threads = len(list(Path("/proc/self/task").iterdir()))
    if threads > 1 or threading.active_count() > 1:
        # A fork copies one thread alone; whatever another held would be held for ever.
        sys.exit(f"{threads} threads after importing; stages start in processes of their own.")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(address)
    listener.listen()
    with selectors.DefaultSelector() as waiting:
        waiting.register(listener, selectors.EVENT_READ, _Fork(listener, waiting))
        # At once: taking down the imported libraries would leave the forks alive for seconds.
        waiting.register(sys.stdin, selectors.EVENT_READ, lambda: os._exit(0))
        while True:
            for ready, _ in waiting.select():
                ready.data()


class _Fork:
    """Answers requests: forks, and tells the exit status, or kills what nobody waits for."""

    def __init__(self, listener: socket.socket, waiting: selectors.BaseSelector):
        self.listener, self.waiting = listener, waiting

    def __call__(self) -> None:
        connection, _ = self.listener.accept()
        header, files, _, _ = socket.recv_fds(connection, 8, 3)
        text = connection.recv(int.from_bytes(header), socket.MSG_WAITALL)
        if not text:  # the client was killed before it had asked
            connection.close()
            return
        child = os.fork()
        if child == 0:
            self.listener.close()
            connection.close()
            _become(json.loads(text), files)
        for file in files:
            os.close(file)
        ended = os.pidfd_open(child)

        def tell() -> None:
            status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            self.waiting.unregister(ended)
            os.close(ended)
            with contextlib.suppress(KeyError):
                self.waiting.unregister(connection)
            with contextlib.suppress(OSError):
                connection.sendall(bytes([status if 0 <= status < 256 else 1]))
            connection.close()

        def abandoned() -> None:
            # The child may have ended in the same instant, and all be told and closed.
            if connection.fileno() != -1:
                self.waiting.unregister(connection)
                with contextlib.suppress(ProcessLookupError):
                    os.kill(child, signal.SIGKILL)

        self.waiting.register(ended, selectors.EVENT_READ, tell)
        self.waiting.register(connection, selectors.EVENT_READ, abandoned)


def _become(request: dict, files: list[int]) -> None:
    """In the fork: take over the requester's files, folder and environment, and run."""
    status = 1
    try:
        for target, file in enumerate(files):
            os.dup2(file, target)
            os.close(file)
        _die_with_parent()
        os.chdir(request["folder"])
        os.environ.clear()
        os.environ.update(request["environment"])
        # A kernel watches for the process that started it, which here is not its parent.
        os.environ.pop("JPY_PARENT_PID", None)
        _run(request["arguments"])
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)


def _die_with_parent() -> None:
    """Let the kernel kill this process when its parent ends."""
    import ctypes

    set_parent_death_signal = 1
    ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGKILL)


if __name__ == "__main__":
    main()
