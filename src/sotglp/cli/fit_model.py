"""The run of ``sotglp fit``, once its options are checked."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

from sotglp.backbone import Backbone
from sotglp.backbone.precision import choose_device
from sotglp.backbone_defaults import crossed_ood_method
from sotglp.cli.model_sections import choice_lines
from sotglp.console.output import emit, list_unreadable
from sotglp.console.table import counted
from sotglp.errors import SotglpError, SotglpWarning, UnreadableImageError
from sotglp.features.distributed import Processes
from sotglp.features.view_cache import ViewCache
from sotglp.images.check import readable_images, warn_of_two_labels
from sotglp.images.image_set import ImageSet
from sotglp.images.labels import warn_of_names
from sotglp.model_file.save import calibration_record, save_model
from sotglp.scoring.calibration import Calibration, calibrate_crossed, calibrate_held_out
from sotglp.scoring.choice import Choice
from sotglp.scoring.choose_method import choose_settings
from sotglp.scoring.choose_score import choose_score
from sotglp.scoring.cross_fit import cross_fit, folds_of, remove_checkpoints, remove_fold_checkpoints
from sotglp.scoring.kept_choices import KeptChoices, choices_file
from sotglp.scoring.rejection import check_tpr
from sotglp.scoring.risk_control import check_max_error
from sotglp.settings import Calibrator, InferenceConfig, Settings, TrainConfig
from sotglp.training.chance import warn_near_chance
from sotglp.training.fit import Fitted, adapt, drawn_shots
from sotglp.training.trackers import Tracker


@dataclass(frozen=True)
class FitRun:
    """Inputs, settings and outputs of a run."""

    out: Path
    images: ImageSet
    model_config: Settings
    training: TrainConfig
    candidates: Mapping[str, tuple[Settings, TrainConfig]]
    rate_is_open: bool
    score_is_open: bool
    score_is_default: bool
    inference: InferenceConfig
    features_dir: Path | None
    checkpoint: Path
    calibrate: bool
    held_out: ImageSet | None
    tpr: float
    max_error: float | None
    confidence: float
    calibrator: Calibrator
    resume: bool
    force: bool
    include_backbone: bool
    skip_unreadable: bool
    json_file: str | None
    trackers: Sequence[Tracker]
    choices: tuple[Choice, ...] = ()
    seconds_of_choices: float = 0.0

    def check(self) -> None:
        """Check the images for calibration before a backbone is loaded, and discard interrupted runs of folds."""
        check_tpr(self.tpr)
        warn_of_names(self.images.classes)
        shots = drawn_shots(self.images, self.training)
        if self.held_out:
            _check_held_out(self.held_out, self.images.classes, shots)
        elif self.calibrate:
            folds_of(shots)
        if self.max_error is not None:
            check_max_error(self.max_error, self.confidence, len(self.held_out or shots))
        warn_of_two_labels(shots)
        if self.force and not self.resume:
            remove_fold_checkpoints(self.checkpoint)
            choices_file(self.checkpoint).unlink(missing_ok=True)

    def run(self, backbone: str, pretrained: str, image_size: int | None, device: str) -> None:
        """Choose what is left open, fit, calibrate and write the model; of several processes the first one writes."""
        loaded = Backbone.load(backbone, pretrained, image_size=image_size, device=choose_device(device))
        cache = ViewCache(self.features_dir)
        kept = KeptChoices(choices_file(self.checkpoint), resume=self.resume)
        self._with_choices(loaded, cache, kept)._fit(loaded, cache, kept)

    def _with_choices(self, backbone: Backbone, cache: ViewCache, kept: KeptChoices) -> FitRun:
        """Return the run with the method and the learning rate that held-out shots choose."""
        if len(self.candidates) == 1 and not self.rate_is_open:
            return self
        start = time.monotonic()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SotglpWarning)  # the fit draws and checks the same images once more
            shots = readable_images(drawn_shots(self.images, self.training), [] if self.skip_unreadable else None)
        model_config, training, choices = choose_settings(
            backbone,
            shots,
            self.candidates,
            rate_is_open=self.rate_is_open,
            kept=kept,
            cache_dir=cache,
            show_progress=Processes(backbone.device).is_first,
        )
        return replace(
            self,
            model_config=model_config,
            training=training,
            choices=choices,
            seconds_of_choices=time.monotonic() - start,
        )

    def _fit(self, backbone: Backbone, cache: ViewCache, kept: KeptChoices) -> None:
        unreadable: list[UnreadableImageError] | None = [] if self.skip_unreadable else None
        fitted = adapt(
            backbone,
            self.images,
            self.model_config,
            self.training,
            checkpoint=self.checkpoint,
            resume=self.resume,
            cache_dir=cache,
            unreadable=unreadable,
            show_progress=True,
            callbacks=self.trackers,
        )
        is_first = Processes(backbone.device).is_first
        calibration, choices = self._calibration(fitted, is_first, unreadable, cache, kept)
        choices = (*self.choices, *choices)
        if not is_first:
            return
        save_model(
            self.out,
            fitted.model,
            training=self.training,
            history=fitted.history,
            calibration=calibration,
            choices=choices,
            include_backbone=self.include_backbone,
            force=self.force,
        )
        choices_file(self.checkpoint).unlink(missing_ok=True)
        remove_checkpoints(self.checkpoint)
        warn_near_chance(fitted, self.training)
        result = {
            "classes": fitted.model.class_names,
            "n_images": len(fitted.images),
            "backbone": fitted.model.backbone.name,
            "settings": {"model": self.model_config.model_dump(), "training": self.training.model_dump()},
            "history": fitted.history,
            "calibration": calibration_record(calibration),
            "choices": [asdict(choice) for choice in choices],
            "seconds_of_choices": self.seconds_of_choices,
            "unreadable": list_unreadable(unreadable),
        }
        lines = [line for choice in choices for line in choice_lines(choice)]
        lines += [f"chosen in {self.seconds_of_choices:.1f} s"] if self.choices else []
        emit([*lines, self._summary(fitted, calibration)], result, self.json_file)

    def _calibration(
        self,
        fitted: Fitted,
        is_first: bool,
        unreadable: list[UnreadableImageError] | None,
        cache: ViewCache,
        kept: KeptChoices,
    ) -> tuple[Calibration | None, tuple[Choice, ...]]:
        """Calibrate, after the score was chosen if that is left open; return that choice too."""
        choices: tuple[Choice, ...] = ()
        inference = self.inference.model_copy(update={"show_progress": is_first})
        if self.score_is_open:
            backbone, images = fitted.model.backbone, fitted.images
            by_score = partial(
                choose_score,
                backbone,
                images,
                self.model_config,
                self.training,
                inference,
                cache_dir=cache,
                show_progress=is_first,
            )
            choice = kept.get(
                "ood_method",
                backbone,
                images,
                {fitted.model.kind: (self.model_config, self.training)},
                by_score,
                score=[inference.ood_method, inference.temperature],
            )
            inference = inference.with_score(choice.chosen)
            choices = (choice,)
        if self.calibrate:
            if self.score_is_default:
                score = crossed_ood_method(
                    fitted.model.backbone.name,
                    has_shots=self.training.remember,
                    smallest=fitted.images.smallest_class,
                )
                inference = inference.with_score(score)
            crossed = cross_fit(
                fitted.model,
                fitted.images,
                self.training,
                inference,
                cache_dir=cache,
                checkpoint=self.checkpoint,
                resume=self.resume,
            )
            calibration = calibrate_crossed(
                crossed,
                fitted.images,
                inference,
                self.tpr,
                max_error=self.max_error,
                confidence=self.confidence,
                calibrator=self.calibrator,
            )
            return calibration, choices
        if self.held_out and is_first:
            calibration = calibrate_held_out(
                fitted.model,
                self.held_out,
                inference,
                self.tpr,
                max_error=self.max_error,
                confidence=self.confidence,
                calibrator=self.calibrator,
                unreadable=unreadable,
            )
            return calibration, choices
        return None, choices

    def _summary(self, fitted: Fitted, calibration: Calibration | None) -> str:
        summary = (
            f"{self.out}: {counted(len(fitted.model.class_names), 'class', 'classes')} from "
            f"{counted(len(fitted.images), 'image')}"
        )
        if fitted.history:
            last = fitted.history[-1]
            summary += (
                f", {counted(len(fitted.history), 'epoch')}; loss {last['loss']:.3f}, "
                f"training accuracy {last['accuracy']:.1%}"
            )
        if calibration:
            low, high = calibration.rejection.interval
            summary += f"; calibrated: {calibration.rejection.expected_tpr:.1%} accepted ({low:.1%} to {high:.1%})"
            if bound := calibration.rejection.accepted_error:
                summary += f"; {bound}"
        return summary


def _check_held_out(held_out: ImageSet, classes: tuple[str, ...], shots: ImageSet) -> None:
    """Refuse images for calibration that have other labels or are trained on."""
    try:
        held_out.targets(classes)
    except SotglpError as error:
        raise SotglpError(f"the images for calibration can't be used: {error}") from error
    trained_on = {os.path.realpath(shots.name(index)) for index in range(len(shots))}
    for index in range(len(held_out)):
        if os.path.realpath(held_out.name(index)) in trained_on:
            raise SotglpError(
                f"{held_out.name(index)} is for calibration and is trained on too: keep them apart, or use "
                "--calibrate, which cross-fits the shots"
            )
