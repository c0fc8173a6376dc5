"""Transport plans exchanged in trained models: what the plan of the local branch changes in their predictions.

``python benchmarks/plans.py --data ../shared/data`` follows the first part of docs/plan_protocol.md and prints its
table. It trains a model for each set, number of shots and seed, about half an hour on two cores.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from sotglp.backbone import Backbone
from sotglp.backbone_defaults import training_defaults
from sotglp.features.cache_folder import default_cache_dir
from sotglp.features.encode import encode_images
from sotglp.images.image_set import ImageSet
from sotglp.methods.base import unit_patches
from sotglp.methods.sot_glp import SOTGLP
from sotglp.settings import InferenceConfig, ModelConfig, TrainConfig
from sotglp.training.fit import adapt
from sotglp.transport import sinkhorn
from sotglp.transport.plans import patch_mass, plan_entropy, prompt_overlap

SETS = ("ship/trash", "ship/clothing", "ship/grocery", "pacs_photo", "rsscn7", "flowers102", "eurosat", "cifar10")
CELLS = ((4, 1), (4, 2), (4, 3), (16, 1))
"""Shots and seeds."""

TOP_K = 10

Plans = Callable[[Tensor, Tensor], Tensor]
"""Plans (B, C, K, N) for similarities on the support and for the same less their mean over classes."""


def relative(epsilon: float, *, centred: bool) -> Plans:
    """Transport with epsilon in units of the costs' standard deviation in each problem."""

    def plans(similarity: Tensor, less_mean: Tensor) -> Tensor:
        cost = -(less_mean if centred else similarity)
        return sinkhorn(cost / cost.std(dim=(-2, -1), keepdim=True).clamp(min=1e-6), epsilon)

    return plans


def dustbin(share: float, epsilon: float) -> Plans:
    """Transport of a share of the patches' mass; the rest goes to a column of mean cost."""

    def plans(similarity: Tensor, less_mean: Tensor) -> Tensor:
        n_prompts = less_mean.shape[-1]
        cost = -less_mean / less_mean.std(dim=(-2, -1), keepdim=True).clamp(min=1e-6)
        cost = torch.cat([cost, cost.mean(dim=(-2, -1), keepdim=True).expand(*cost.shape[:-1], 1)], dim=-1)
        columns = torch.tensor([*[share / n_prompts] * n_prompts, 1 - share], dtype=cost.dtype)
        return sinkhorn(cost, epsilon, column_marginal=columns)[..., :n_prompts] / share

    return plans


VARIANTS: dict[str, Plans] = {
    "uniform": lambda similarity, _: torch.full_like(similarity, 1 / similarity[0, 0].numel()),
    "published (0.1)": lambda similarity, _: sinkhorn(1 - similarity, 0.1),
    **{f"relative {e}": relative(e, centred=False) for e in (0.1, 0.3, 1.0)},
    **{f"centred {e}": relative(e, centred=True) for e in (0.1, 0.3, 1.0)},
    **{f"dustbin {share}": dustbin(share, 0.3) for share in (0.5, 0.8)},
}


@torch.no_grad()
def exchange(
    backbone: Backbone, test: ImageSet, global_text: Tensor, local_text: Tensor, projection: Tensor
) -> dict[str, dict[str, float]]:
    """Predict with each variant and return shares in percent."""
    truth = test.targets(test.classes)
    prompts, texts = (F.normalize(text, dim=-1) for text in (local_text, global_text))  # (C, N, d), (C, M, d)
    n_prompts = prompts.shape[1]
    labels: dict[str, list[Tensor]] = {name: [] for name in VARIANTS}
    alone: dict[str, list[Tensor]] = {name: [] for name in VARIANTS}
    entropy: dict[str, list[Tensor]] = {name: [] for name in VARIANTS}
    overlap: dict[str, list[Tensor]] = {name: [] for name in VARIANTS}
    for _, encoded in encode_images(backbone, test, InferenceConfig(), default_cache_dir()):
        image = F.normalize(encoded.image_features.float(), dim=-1)
        of_global = torch.einsum("bd,cmd->bcm", image, texts).mean(dim=-1)
        tokens = encoded._replace(patch_tokens=encoded.patch_tokens.float() @ projection.T)
        patches = unit_patches(backbone, tokens)
        similarity = torch.einsum("bpd,cnd->bcpn", patches, prompts)
        support = similarity.mean(dim=-1).topk(TOP_K, dim=-1).indices
        rows = support.unsqueeze(-1).expand(*support.shape, n_prompts)
        kept = similarity.gather(2, rows)
        less_mean = (similarity - similarity.mean(dim=1, keepdim=True)).gather(2, rows)
        for name, plans in VARIANTS.items():
            plan = plans(kept, less_mean)
            of_local = (plan * kept).sum(dim=(-2, -1)) / n_prompts
            predicted = (of_global + of_local).argmax(dim=1)
            labels[name].append(predicted)
            alone[name].append(of_local.argmax(dim=1))
            each = torch.arange(len(plan))
            own = plan[each, predicted]
            entropy[name].append(plan_entropy(own))
            mass = patch_mass(plan[each, predicted, None], support[each, predicted, None], similarity.shape[2])
            overlap[name].append(prompt_overlap(mass)[:, 0])
    uniform = torch.cat(labels["uniform"])
    return {
        name: {
            "accuracy": 100 * float((torch.cat(labels[name]).numpy() == truth).mean()),
            "local": 100 * float((torch.cat(alone[name]).numpy() == truth).mean()),
            "changed": 100 * float((torch.cat(labels[name]) != uniform).double().mean()),
            "entropy": float(torch.cat(entropy[name]).mean()),
            "overlap": float(torch.cat(overlap[name]).mean()),
        }
        for name in VARIANTS
    }


def table(cells: list[dict[str, dict[str, float]]]) -> str:
    """Means over cells, and the difference of accuracy from the uniform plan with its standard error."""
    lines = ["| plan | accuracy | less uniform | local alone | labels changed | entropy | overlap |", "|---" * 7 + "|"]
    for name in VARIANTS:
        mean = {key: np.mean([cell[name][key] for cell in cells]) for key in cells[0][name]}
        gains = np.array([cell[name]["accuracy"] - cell["uniform"]["accuracy"] for cell in cells])
        error = gains.std(ddof=1) / len(gains) ** 0.5 if len(gains) > 1 else np.nan
        lines.append(
            f"| {name} | {mean['accuracy']:.2f} | {gains.mean():+.2f} ± {error:.2f} | {mean['local']:.2f} "
            f"| {mean['changed']:.2f} | {mean['entropy']:.4f} | {mean['overlap']:.3f} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--rows", type=Path, default=Path("plans.jsonl"), help="resumed if it exists")
    chosen = parser.parse_args()
    backbone = Backbone.load("photo")
    lines = chosen.rows.read_text(encoding="utf-8").splitlines() if chosen.rows.exists() else []
    done = {tuple(row["cell"]): row["found"] for row in map(json.loads, lines)}
    for cell in [(name, shots, seed) for shots, seed in CELLS for name in SETS]:
        if cell in done:
            continue
        name, shots, seed = cell
        training = TrainConfig(**training_defaults("photo"), shots=shots, seed=seed, remember=False)
        train, test = (ImageSet.from_path(chosen.data / name / part) for part in ("train", "test"))
        model = adapt(backbone, train, ModelConfig(), training, cache_dir=default_cache_dir()).model
        assert isinstance(model, SOTGLP)
        assert model.local_projection is not None
        text = model.encode_text()
        done[cell] = exchange(backbone, test, text.global_, text.local, model.local_projection)
        with chosen.rows.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"cell": cell, "found": done[cell]}) + "\n")
    print(table(list(done.values())))


if __name__ == "__main__":
    main()
