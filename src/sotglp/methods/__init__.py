"""Methods of adaptation: SOT-GLP and the baselines, one file each, and their common base."""
