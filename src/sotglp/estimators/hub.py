"""Fitted estimators on the Hugging Face Hub, by the methods of ``huggingface_hub.ModelHubMixin``."""

from __future__ import annotations

import os
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

from typing_extensions import Self

from sotglp.estimators.base import FewShotEstimator
from sotglp.files.atomic import check_output, write_file
from sotglp.model_file.record import read_record
from sotglp.scoring.evaluation import Evaluation


class HubEstimator(FewShotEstimator):
    """An estimator that is saved to a folder or repository with a model card, and loaded from there."""

    def save_pretrained(
        self,
        save_directory: str | os.PathLike[str],
        *,
        repo_id: str | None = None,
        evaluation: Evaluation | None = None,
        license: str | None = None,
        description: str | None = None,
        include_backbone: bool = False,
        force: bool = False,
    ) -> None:
        """Write ``model.safetensors``, a model card ``README.md`` and ``config.json`` into a folder.

        Parameters
        ----------
        save_directory : path
            The folder; it is created if it is missing.
        repo_id : str or None, default None
            Repository that the card names, OWNER/NAME; None takes the name of the folder.
        evaluation : Evaluation or None, default None
            From :meth:`evaluate`, for the card's tables and metrics.
        license : str or None, default None
            Identifier of the model's licence, such as ``"mit"``.
        description : str or None, default None
            Further paragraphs of the card in Markdown, such as the origin of the images and the intended use.
        include_backbone : bool, default False
            Store the backbone's weights too; see :meth:`save`.
        force : bool, default False
            Replace existing files.
        """
        from sotglp.hub.repository import CARD, CONFIG, MODEL, described

        folder = Path(save_directory)
        for name in (CARD, CONFIG, MODEL):
            check_output(folder / name, force=force)
        self.save(folder / MODEL, force=force, include_backbone=include_backbone)
        texts = described(
            read_record(folder / MODEL),
            repo_id or folder.resolve().name,
            evaluation,
            license=license,
            description=description,
            has_backbone=include_backbone,
        )
        for name, content in texts.items():
            write_file(folder / name, partial(Path.write_bytes, data=content), force=force)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        evaluation: Evaluation | None = None,
        license: str | None = None,
        description: str | None = None,
        include_backbone: bool = False,
        commit_message: str = "Push a model of sotglp",
        private: bool | None = None,
        token: str | None = None,
        branch: str | None = None,
        create_pr: bool = False,
        force: bool = False,
    ) -> str:
        """Upload the model and its card to a repository of the Hugging Face Hub, and return the commit's address.

        Parameters
        ----------
        repo_id : str
            OWNER/NAME; the repository is created if it is missing.
        evaluation, license, description, include_backbone
            See :meth:`save_pretrained`.
        commit_message, private, token, branch, create_pr
            See ``huggingface_hub.ModelHubMixin.push_to_hub``.
        force : bool, default False
            Replace a card that somebody wrote or edited; otherwise it is kept, with a warning.

        Raises
        ------
        SotglpError
            If the repository can't be written.
        """
        from sotglp.hub.repository import push

        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(
                folder,
                repo_id=repo_id,
                evaluation=evaluation,
                license=license,
                description=description,
                include_backbone=include_backbone,
            )
            return push(
                {path.name: path for path in sorted(Path(folder).iterdir())},
                repo_id,
                commit_message=commit_message,
                private=private,
                token=token,
                branch=branch,
                create_pr=create_pr,
                force=force,
            )

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | os.PathLike[str],
        *,
        revision: str | None = None,
        token: str | bool | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        force_download: bool = False,
        local_files_only: bool = False,
        **options: Any,
    ) -> Self:
        """Load a model from a repository of the Hugging Face Hub, or from a folder of :meth:`save_pretrained`.

        Parameters
        ----------
        pretrained_model_name_or_path : str or path
            OWNER/NAME, or a folder.
        revision, token, cache_dir, force_download, local_files_only
            See ``huggingface_hub.ModelHubMixin.from_pretrained``.
        **options
            ``backbone``, ``pretrained`` and ``device`` of :meth:`load`.

        Raises
        ------
        SotglpError
            If the model can't be downloaded or read.
        """
        from sotglp.hub.repository import model_path

        path = model_path(
            pretrained_model_name_or_path,
            revision=revision,
            token=token,
            cache_dir=cache_dir,
            force_download=force_download,
            local_files_only=local_files_only,
        )
        return cls.load(path, **options)
