"""Arguments and options that several commands share."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

if TYPE_CHECKING or find_spec("typer"):
    from typer import Argument, Option
else:

    class Argument:
        """Declaration of an argument where typer is not installed."""

        is_option = False

        def __init__(self, *names: str, help: str = "", metavar: str | None = None, min: int | None = None) -> None:
            self.names, self.help, self.metavar, self.min = names, help, metavar, min

    class Option(Argument):
        """Declaration of an option where typer is not installed."""

        is_option = True


ModelFile: TypeAlias = Annotated[Path, Argument(metavar="MODEL", help="Model file that `sotglp fit` wrote.")]
Images: TypeAlias = Annotated[
    list[Path],
    Argument(metavar="IMAGES...", help="Images, folders, manifests, patterns, or - for standard input."),
]
TestImages: TypeAlias = Annotated[Path, Argument(metavar="TEST", help="Folder of class folders, or manifest.")]

Split: TypeAlias = Annotated[
    str | None,
    Option(help="Rows of a manifest to use, by their value in its column split, subset, partition or fold; or all."),
]
PathColumn: TypeAlias = Annotated[
    str | None, Option(help="Column of a manifest with the image files; default path, or another usual name.")
]
LabelColumn: TypeAlias = Annotated[
    str | None, Option(help="Column of a manifest with the labels; default label, or another usual name.")
]

Force: TypeAlias = Annotated[bool, Option("--force", help="Replace an existing file.")]
CsvFile: TypeAlias = Annotated[
    str | None, Option("--csv", metavar="FILE", help="Write a CSV table; - for standard output.")
]
JsonFile: TypeAlias = Annotated[
    str | None, Option("--json", metavar="FILE", help="Write the result as JSON; - for standard output.")
]
Debug: TypeAlias = Annotated[bool, Option("--debug", help="Show the traceback of an error.")]

Pretrained: TypeAlias = Annotated[
    str | None, Option(help="Tag or file of the backbone's weights, instead of the one that the model file names.")
]
Device: TypeAlias = Annotated[str, Option(help="cpu, cuda, or auto: cuda if available.")]
Precision: TypeAlias = Annotated[str, Option(help="fp32, bf16, fp16, or auto: fp16 on a GPU, else fp32.")]
BatchSize: TypeAlias = Annotated[int, Option(min=1, help="Images per batch.")]
Workers: TypeAlias = Annotated[int, Option(min=0, help="Processes that decode images; 0 decodes in this one.")]
Engine: TypeAlias = Annotated[
    str, Option(help="Where --processes run: local, this machine, or ray, a Ray cluster (extra `ray`).")
]
RayAddress: TypeAlias = Annotated[
    str | None,
    Option(
        metavar="HOST:PORT",
        help="Ray cluster to use; by default that of RAY_ADDRESS, or one on this machine that ends with the command.",
    ),
]
Processes: TypeAlias = Annotated[
    int | None,
    Option(min=1, help="Processes that share the work; default 1, with Ray one for each GPU, or each node without."),
]
SkipUnreadable: TypeAlias = Annotated[
    bool, Option("--skip-unreadable", help="Skip images that can't be read, and list them.")
]

OodFolders: TypeAlias = Annotated[
    list[Path] | None, Option(metavar="DIR", help="Folder of images of unknown classes (repeat for several).")
]
OodMethod: TypeAlias = Annotated[
    str | None,
    Option(
        help="In-distribution score: mcm, l-mcm, gl-mcm, msp, max-logit, energy, margin, entropy, gen, ash, react, "
        "vim, she, knn, mahalanobis, mahalanobis-patches, subspace or neglabel; by default the calibrated one, or the "
        "one of the backbone."
    ),
]
Temperature: TypeAlias = Annotated[
    float | None, Option(help="Temperature of that score; by default the calibrated one, or 1.")
]

CacheDir: TypeAlias = Annotated[
    Path | None, Option(metavar="DIR", help="Folder of the feature cache; default $SOTGLP_CACHE or ~/.cache/sotglp.")
]
NoCache: TypeAlias = Annotated[bool, Option("--no-cache", help="Keep features in memory only.")]
DataRoot: TypeAlias = Annotated[
    Path | None, Option("--root", metavar="DIR", help="Folder of the datasets; default $SOTGLP_DATA or data.")
]

PANELS = {
    "Model": (
        *("backbone", "pretrained", "image_size", "preset", "method", "methods", "include_backbone"),
        *("shots", "epochs", "learning_rate", "template", "views", "seed", "seeds", "setting"),
    ),
    "Images": ("split", "path_column", "label_column", "skip_unreadable", "ood", "others", "root"),
    "Confidence and unknown images": (
        *("calibrate", "calibrate_on", "tpr", "max_error", "confidence", "ood_method", "temperature"),
        *("unknown", "coverage", "set_score", "per_class", "per_cluster"),
    ),
    "Output": ("out", "force", "csv_file", "json_file", "jsonl_file", "parquet_file", "top", "track", "svg"),
    "Computation": (
        *("device", "precision", "workers", "batch_size", "cache_dir", "no_cache", "num_processes", "processes"),
        *("resume", "dry_run", "debug"),
    ),
}
"""Groups of options in ``--help``, by the names of their parameters; other options stay in the general group."""

PANEL_OF = {name: panel for panel, names in PANELS.items() for name in names}
