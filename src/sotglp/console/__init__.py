"""Console output: results, progress, escaped text, figures."""
