"""Our OOD scores with the parameters that are compared, as candidates beside those of pytorch-ood."""

from __future__ import annotations

from collections.abc import Callable

from pytorch_ood_scores import Candidate, Fitting, Score, grid, up_to
from sotglp.methods.class_subspaces import NOISE, RELATIVE, ClassSubspaces
from sotglp.methods.shot_memory import NEIGHBOUR
from sotglp.methods.sot_glp import SOTGLP
from sotglp.methods.text_features import TextFeatures
from sotglp.scoring.ood import SCORES, Evidence, score_evidence

DEFAULT = "subspace"
PACKAGED = "subspace, as packaged"
"""The default score with the constants of the package, which no other score of this table was given."""

COSINES = ("mcm", "l-mcm", "gl-mcm")
LOGITS = ("msp", "margin", "entropy", "gen", "energy", "neglabel")
TEMPERATURES = {**dict.fromkeys(COSINES, (1.0, 0.1, 0.01)), **dict.fromkeys(LOGITS, (1.0, 0.3, 3.0, 10.0))}
NOISES, RELATIVES = (0.03, 0.1, 0.3, 1.0), (0.0, 0.1, 0.2, 0.4, 0.6)


def own_candidates(model: SOTGLP, text: TextFeatures, found: Fitting) -> list[Candidate]:
    """Scores of a model that remembers its shots, with the temperatures and parameters that are compared."""

    def scored(name: str) -> Callable[..., Score]:
        return lambda temperature=1.0: (
            lambda images: score_evidence(Evidence(images.outputs, model, images.encoded, text), name, temperature)
        )

    def nearest(k: int) -> Score:
        return lambda images: (images.features @ found.shots.features.T).topk(k, dim=1).values[:, -1]

    def subspaces(noise: float, relative: float) -> Score:
        fitted = ClassSubspaces(found.shots.features, found.classes, noise=noise, relative=relative)
        return lambda images: fitted.nearness(images.features)

    n = len(found.classes)
    table: dict[str, tuple[Callable[..., Score], dict[str, tuple[float, ...] | list[int]]]] = {
        name: (scored(name), {"temperature": TEMPERATURES[name]} if name in TEMPERATURES else {})
        for name in SCORES
        if name not in ("knn", DEFAULT)
    }
    table["knn"] = nearest, {"k": up_to(n, NEIGHBOUR, 1, 2, 5, 20, 50)}
    table[DEFAULT] = subspaces, {"noise": NOISES, "relative": RELATIVES}
    table[PACKAGED] = subspaces, {"noise": (NOISE,), "relative": (RELATIVE,)}
    return [
        Candidate(name, parameters, lambda fit=fit, chosen=chosen: fit(**chosen))
        for name, (fit, space) in table.items()
        for parameters, chosen in grid(space)
    ]
