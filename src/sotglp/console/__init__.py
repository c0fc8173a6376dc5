"""Output for people and programs: results, progress bars, printable text, figures."""
