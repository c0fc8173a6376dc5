"""Finished choices of a run, beside its checkpoint, so that a resumed run does not repeat them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from sotglp.backbone import Backbone
from sotglp.errors import SotglpError
from sotglp.features.distributed import Processes
from sotglp.files.atomic import os_reason, write_file
from sotglp.images.image_set import ImageSet
from sotglp.methods.registry import build_model
from sotglp.scoring.choice import Choice
from sotglp.settings import Settings, TrainConfig
from sotglp.training.checkpoint import run_identity

_CHOICES = TypeAdapter(dict[str, Choice])


def choices_file(checkpoint: Path) -> Path:
    """Path of the choices of the run that has this checkpoint."""
    return checkpoint.with_name(f"{checkpoint.name}.choices")


class KeptChoices:
    """Choices by what they depend on, in a file that is replaced after each.

    Parameters
    ----------
    path : Path or None
        The file; None keeps nothing.
    resume : bool, default False
        Read the file if it exists. Raise a SotglpError if it can't be read.
    """

    def __init__(self, path: Path | None = None, *, resume: bool = False) -> None:
        self._path = path
        self._found: dict[str, Choice] = {}
        if path is None or not resume or not path.exists():
            return
        try:
            self._found = _CHOICES.validate_json(path.read_bytes())
        except ValidationError as error:
            raise SotglpError(f"{path} is damaged: start again with --force") from error
        except OSError as error:
            raise SotglpError(f"{path} can't be read ({os_reason(error)}): start again with --force") from error

    def get(
        self,
        setting: str,
        backbone: Backbone,
        images: ImageSet,
        candidates: Mapping[str, tuple[Settings, TrainConfig]],
        choose: Callable[[], Choice],
        **others: Any,
    ) -> Choice:
        """Return the choice of a setting for labelled shots, made by ``choose`` unless it is kept.

        It depends on the ``candidates``, settings by method, and on ``others``, values that JSON can hold.
        """
        parts = {
            "setting": setting,
            "runs": [
                [name, run_identity(build_model(backbone, images.classes, model_config), images, config)]
                for name, (model_config, config) in candidates.items()
            ],
            "others": others,
        }
        identity = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
        if identity not in self._found:
            self._found[identity] = choose()
            if self._path is not None and Processes(backbone.device).is_first:
                content = _CHOICES.dump_json(self._found)
                write_file(self._path, lambda path: path.write_bytes(content), force=True)
        return self._found[identity]
