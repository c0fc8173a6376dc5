"""Compare a CUDA device with the published numbers and with the CPU: `python benchmarks/gpu_agreement.py`, a minute.

Prints relative norms of differences for the two reference cases in tests/data, in float32 without TF32.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import Tensor

import sotglp

sys.path.append(str(Path(__file__).parents[1] / "tests"))
from support.samples import REFERENCE_CASES, load_reference


def difference(ours: Tensor, theirs: Tensor) -> float:
    """Norm of the difference, relative to the norm of ``theirs``."""
    ours, theirs = (tensor.detach().double().cpu() for tensor in (ours, theirs))
    return float((ours - theirs).norm() / theirs.norm())


def compare(case: str) -> dict[str, float]:
    """Differences of one reference case on the first CUDA device."""
    reference = load_reference(case)
    numbers, model = reference.numbers, reference.model
    plan_on_cpu, support_on_cpu = model.transport(numbers["image"])
    model.to("cuda")
    images, targets = numbers["image"].to("cuda"), numbers["target"].to("cuda")
    outputs, (plan, support) = model(images), model.transport(images)
    model.loss(images, targets, prompt_dropout=0.0).total.backward()
    return {
        "global logits": difference(outputs.global_logits, numbers["global_logits"].mean(dim=-1)),
        "local logits": difference(outputs.local_logits, numbers["local_score_converged"]),
        "probabilities": difference(model.predict_proba(images), numbers["prob"]),
        # Scores there are smaller for in-distribution images.
        "GL-MCM": difference(sotglp.ood.score(model, images), -numbers["gl_mcm_t1"]),
        "gradient of global prompts": difference(model.global_prompts.grad, numbers["grad_global_prompt"]),
        "gradient of local prompts": difference(model.local_prompts.grad, numbers["grad_local_prompts"]),
        "plan, against the CPU": difference(plan, plan_on_cpu),
        "supports that differ from the CPU's": float((support.cpu() != support_on_cpu).any(dim=-1).sum()),
    }


def main() -> None:
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    print(f"{torch.cuda.get_device_name(0)}, torch {torch.__version__}")
    for case in REFERENCE_CASES:
        for name, value in compare(case).items():
            print(f"{case:20}{name:40}{value:.1e}")


if __name__ == "__main__":
    main()
