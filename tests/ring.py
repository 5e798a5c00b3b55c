"""Processes that train together on this machine, as `mlx.launch` starts them; none outlives its test."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest

SECONDS = 120
"""After which a process that has not ended is taken for one that hangs."""
needs_ring = pytest.mark.skipif(
    not mx.distributed.is_available("ring"), reason="this MLX has no ring of sockets to connect processes with"
)


def free_ports(count: int) -> list[int]:
    """Ports of this machine that nobody listens on now."""
    with contextlib.ExitStack() as open_ones:
        sockets = [open_ones.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


@contextlib.contextmanager
def killed_at_the_end(processes: list[subprocess.Popen[str]]) -> Iterator[list[subprocess.Popen[str]]]:
    try:
        yield processes
    finally:
        for process in processes:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # each is started with a session of its own
            process.wait()
            for stream in (process.stdout, process.stderr):
                if stream:
                    stream.close()


def start(rank: int, ports: list[int], folder: Path, *arguments: str, **options: Any) -> subprocess.Popen[str]:
    """`python ARGUMENTS` as process `rank` of the ring."""
    hosts = folder / "ring.json"
    hosts.write_text(json.dumps([[f"127.0.0.1:{port}"] for port in ports]))
    own = {"MLX_RANK": str(rank), "MLX_HOSTFILE": str(hosts), "PYTHONUNBUFFERED": "1"}
    return subprocess.Popen(
        [sys.executable, *arguments],
        env={**os.environ, **own, **options.pop("env", {})},
        cwd=options.pop("cwd", folder),
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        **options,
    )


def run(folder: Path, *arguments: str, ranks: int = 2, **options: Any) -> list[tuple[int, str, str]]:
    """`python ARGUMENTS` in that many processes at once: (exit code, standard output, standard error) of each."""
    ports = free_ports(ranks)
    with killed_at_the_end([start(rank, ports, folder, *arguments, **options) for rank in range(ranks)]) as processes:
        said = [process.communicate(timeout=SECONDS) for process in processes]
        return [(process.returncode, *texts) for process, texts in zip(processes, said, strict=True)]
