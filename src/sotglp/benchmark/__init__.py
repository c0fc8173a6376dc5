"""Methods compared fairly: suites of cells, run once each, and the tables made of them."""
