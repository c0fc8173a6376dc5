"""Methods of adaptation: SOT-GLP and its peers, one file each, and what they share."""
