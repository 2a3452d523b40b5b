import subprocess
import sys

import pytest

pytestmark = pytest.mark.fast

CODE = """
import importlib, pkgutil, sys
import efpn_d2.data
names = [m.name for m in pkgutil.walk_packages(efpn_d2.data.__path__, "efpn_d2.data.")]
assert len(names) > 30
for name in names:
    for loaded in [m for m in sys.modules if m.startswith("efpn_d2.data")]:
        del sys.modules[loaded]
    importlib.import_module(name)
"""


def test_any_module_can_be_the_first():
    """None waits for another that waits for it."""
    command = [sys.executable, "-W", "ignore", "-c", CODE]
    child = subprocess.run(command, capture_output=True, text=True)
    assert child.returncode == 0, child.stderr
