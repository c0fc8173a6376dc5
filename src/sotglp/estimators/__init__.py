"""Scikit-learn estimators over a model, its training and its decisions."""
