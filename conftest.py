"""Code blocks of README.md and docs are tests; tests/support/doc_blocks.py says how each language is run."""

from support.doc_blocks import SYBIL

pytest_collect_file = SYBIL.pytest()
