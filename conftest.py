"""Code blocks of README.md and docs are tests; tests/support/doc_blocks.py says how each language is run."""

import sotglp  # noqa: F401 - before torch, whose threads then don't spin on shared cores
from support.doc_blocks import SYBIL

pytest_collect_file = SYBIL.pytest()
