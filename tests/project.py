"""Where the project lies, so that no test counts folders."""

from pathlib import Path

ROOT = Path(__file__).parents[1]
