"""Runs scripts in forks of one process that has imported the libraries, which takes seconds.

Requests and answers are JSON lines on standard input and output.
"""

import contextlib
import json
import os
import runpy
import sys
import traceback
from pathlib import Path
from subprocess import PIPE, CompletedProcess, Popen
from typing import Any


class ForkServer:
    """A process to run scripts in; ``imports`` are its modules, ``env`` its environment."""

    def __init__(self, imports: list[str], env: dict[str, str]) -> None:
        command = [sys.executable, __file__, *imports]
        self._process = Popen(command, stdin=PIPE, stdout=PIPE, text=True, env=env)

    def run(self, script: Path, args: list[str], cwd: Path, output: Path) -> CompletedProcess:
        """Run a script as ``python script args`` would; its output goes through files."""
        request = {"script": str(script), "args": args, "cwd": str(cwd), "output": str(output)}
        stdin, stdout = self._process.stdin, self._process.stdout
        print(json.dumps(request), file=stdin, flush=True)
        code = json.loads(stdout.readline())["code"]
        texts = [(output / name).read_text() for name in ("stdout", "stderr")]
        return CompletedProcess([str(script), *args], code, *texts)

    def close(self) -> None:
        """End the process."""
        self._process.stdin.close()
        self._process.wait()


def _run(request: dict[str, Any]) -> int:
    """In the fork: the exit code of the script."""
    for number, name in ((1, "stdout"), (2, "stderr")):
        file = os.open(Path(request["output"], name), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, number)
    os.chdir(request["cwd"])
    sys.argv = [request["script"], *request["args"]]
    sys.path[0] = str(Path(request["script"]).parent)
    try:
        runpy.run_path(request["script"], run_name="__main__")
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            return end.code or 0
        print(end.code, file=sys.stderr)
        return 1
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def _serve(imports: list[str]) -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what an import prints is no answer
    for name in imports:
        __import__(name)
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            code = 1
            with contextlib.suppress(BaseException):
                code = _run(json.loads(line))
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(code)
        _, status = os.waitpid(pid, 0)
        print(json.dumps({"code": os.waitstatus_to_exitcode(status)}), file=answers, flush=True)


if __name__ == "__main__":
    _serve(sys.argv[1:])
