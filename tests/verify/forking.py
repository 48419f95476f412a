"""A process that has imported torch and Triton's interpreter once and forks for every request: what keeps the tests of
the equivalence run fast. It runs the real runner; only the imports are shared."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


class ForkingRunner:
    """Stands in for `equivalence._attempt`."""

    def __init__(self) -> None:
        environment = dict(os.environ, TRITON_INTERPRET="1", PYTHONPATH=str(ROOT))
        self.process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
        )

    def attempt(self, request: dict[str, Any], timeout: float, session: Any) -> tuple[int | None, str]:
        from kernel_rewrite.verify.equivalence import _read_report

        assert self.process.stdin is not None and self.process.stdout is not None
        with tempfile.TemporaryDirectory() as folder:
            report, printed = Path(folder, "report"), Path(folder, "printed")
            order = {"request": request, "report": str(report), "printed": str(printed)}
            self.process.stdin.write(json.dumps(order).encode() + b"\n")
            self.process.stdin.flush()
            status = struct.unpack("i", self.process.stdout.read(4))[0]
            _read_report(report.read_text(), session)
            return status, printed.read_text()[-1500:]

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def _serve() -> None:
    import torch
    import triton.language  # noqa: F401

    torch.set_num_threads(1)
    answers = os.fdopen(os.dup(1), "wb")
    for line in sys.stdin:
        order = json.loads(line)
        child = os.fork()
        if not child:
            _run(order)
        _, code = os.waitpid(child, 0)
        answers.write(struct.pack("i", os.waitstatus_to_exitcode(code)))
        answers.flush()


def _run(order: dict[str, Any]) -> None:
    from kernel_rewrite.verify import runner

    read, write = os.pipe()
    os.write(write, json.dumps(order["request"]).encode())
    os.close(write)
    os.dup2(read, 0)
    sys.stdin = os.fdopen(0, "r")
    os.dup2(os.open(order["report"], os.O_WRONLY | os.O_CREAT), 1)
    os.dup2(os.open(order["printed"], os.O_WRONLY | os.O_CREAT), 2)
    try:
        runner.main()
    finally:
        import traceback

        traceback.print_exc()
        os._exit(1)


if __name__ == "__main__":
    _serve()
