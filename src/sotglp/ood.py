"""Public name of the OOD scores, which :mod:`sotglp.scoring.ood` implements."""

from sotglp.scoring.ood import SCORES, score

__all__ = ["SCORES", "score"]
