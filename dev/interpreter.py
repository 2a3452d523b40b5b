"""Import checks and pip for the running interpreter."""

import importlib.util
import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass

# Runs in a child process, because the result of importing a module is cached.
_PROBE = """
import importlib.util, json, sys
def probe(name):
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:  # no origin: an empty folder of that name
        return {"state": "absent"}
    try:
        module = __import__(name)
    except BaseException as error:
        return {"state": "broken", "detail": f"{type(error).__name__}: {error}"}
    return {"state": "works", "detail": f"{getattr(module, '__version__', '?')} in {spec.origin}"}
print(json.dumps(probe(sys.argv[1])))
"""


class SetupError(Exception):
    """Setup failed; the message is one sentence for the user."""


@dataclass(frozen=True)
class Probe:
    """Result of importing a module: ``state`` is "absent", "broken" or "works"."""

    state: str
    detail: str = ""


def probe_module(name: str) -> Probe:
    """Import a module in a child of this interpreter, outside of the working directory."""
    with tempfile.TemporaryDirectory() as neutral:
        child = subprocess.run(
            [sys.executable, "-c", _PROBE, name], cwd=neutral, capture_output=True, text=True
        )
    if child.returncode != 0 or not child.stdout.strip():
        return Probe("broken", f"Python ended with status {child.returncode}")
    return Probe(**json.loads(child.stdout.splitlines()[-1]))


def pip_reason(stderr: str) -> str:
    """Return pip's reason for a failure on one line.

    Args:
        stderr: pip's error output, including warnings.

    Returns:
        The first sentence of its last error line, the headline of its framed errors, or the end of
        its traceback. If the index did not respond, this is stated, because pip only says that it
        found no such package.
    """
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    framed = [line.removeprefix("×").strip() for line in lines if line.startswith("×")]
    errors = [line.removeprefix("ERROR:").strip() for line in lines if line.startswith("ERROR:")]
    errors = [line for line in errors if line != "Exception:"]
    if errors and "No matching distribution" in errors[-1] and "connection broken" in stderr:
        return "the package index did not answer"
    return (framed or errors or lines or [""])[-1].split(". ")[0]


def run_pip(*arguments: str) -> None:
    """Run this interpreter's pip with the user's pip configuration.

    Raises:
        SetupError: if pip is missing or fails; the message is the reason.
    """
    if importlib.util.find_spec("pip") is None:
        raise SetupError(f"{sys.executable} has no pip; `{sys.executable} -m ensurepip` adds it.")
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments]
    child = subprocess.run(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    if child.returncode != 0:
        raise SetupError(pip_reason(child.stderr) or f"pip ended with status {child.returncode}")
