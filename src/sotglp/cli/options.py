"""Options that several commands share, spelled the same everywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

ModelFile = Annotated[Path, typer.Argument(metavar="MODEL", help="Model file that `sotglp fit` wrote.")]
Pretrained = Annotated[
    str | None,
    typer.Option(help="Tag or file with the backbone's weights, if not the one that the model file names."),
]
Device = Annotated[str, typer.Option(help="cpu, cuda, or auto for a GPU where there is one.")]
Precision = Annotated[str, typer.Option(help="fp32, bf16, fp16, or auto: fp16 on a GPU, else fp32.")]
Workers = Annotated[int, typer.Option(min=0, help="Processes that decode images; 0 decodes in this one.")]
BatchSize = Annotated[int, typer.Option(min=1, help="Images encoded at once.")]
OodMethod = Annotated[str, typer.Option(help="Score of being in-distribution: mcm, l-mcm or gl-mcm.")]
Temperature = Annotated[float, typer.Option(help="Temperature of that score.")]
SkipUnreadable = Annotated[
    bool, typer.Option("--skip-unreadable", help="Leave out images that can't be read, and list them.")
]
Json = Annotated[
    str | None,
    typer.Option("--json", metavar="FILE", help="Write the result as JSON; - for standard output."),
]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
