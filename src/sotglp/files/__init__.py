"""Files on disk: atomic writes, locks, packaged data, versions."""
