"""Training: the fit loop, its batches, checkpoints, several processes, changed class lists."""
