import sys
from pathlib import Path

# Scripts import their neighbours by plain names, as when they are run.
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))
