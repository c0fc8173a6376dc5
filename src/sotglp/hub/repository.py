"""Upload a model file with its card to a repository of the Hugging Face Hub, and download it from there.

Names and arguments are those of ``huggingface_hub.ModelHubMixin``. The mixin itself isn't used: it stores what a class
was called with as ``config.json``, which doesn't describe a model that was loaded or whose classes were changed, while
a model file has its own record.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from warnings import warn

from huggingface_hub import CommitOperationAdd, HfApi, constants
from huggingface_hub.errors import HFValidationError, LocalTokenNotFoundError
from huggingface_hub.utils import (
    EntryNotFoundError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from sotglp.backbone.network import no_waiting_for_the_hub
from sotglp.errors import SotglpError, SotglpWarning, first_line
from sotglp.hub.card import is_unedited, model_card
from sotglp.model_file.record import ModelRecord
from sotglp.scoring.evaluation import Evaluation

MODEL, CARD, CONFIG = "model.safetensors", "README.md", "config.json"
"""Files of a repository. The Hub counts downloads by the last one."""


def config_json(record: ModelRecord) -> str:
    """Return what ``config.json`` says of a model; reading a model needs its own file alone."""
    described = {
        "library_name": "sotglp",
        "classes": record.classes,
        "backbone": record.backbone["name"],
        "image_size": record.backbone["image_size"],
        "versions": record.versions,
    }
    return json.dumps(described, indent=2, ensure_ascii=False) + "\n"


def described(
    record: ModelRecord,
    repo_id: str,
    evaluation: Evaluation | None,
    *,
    license: str | None,
    description: str | None,
    has_backbone: bool,
) -> dict[str, bytes]:
    """Return the card and ``config.json`` of a model by their names, and warn if others can't load it.

    Arguments are as for :func:`sotglp.hub.card.model_card`; ``has_backbone`` tells whether the model file holds the
    backbone's weights.
    """
    _warn_of_own_weights(record, is_included=has_backbone)
    card = model_card(record, repo_id, evaluation, license=license, description=description)
    return {CONFIG: config_json(record).encode(), CARD: card.encode()}


def _warn_of_own_weights(record: ModelRecord, *, is_included: bool) -> None:
    """Warn if others can't load a model, since its backbone's weights are a file of this computer."""
    weights = record.backbone["pretrained"]
    if not is_included and weights and os.path.isfile(weights):
        warn(
            f"others can't load this model, since the weights of its backbone are a file of this computer ({weights}): "
            "store them in the model file with include_backbone=True (fit --include-backbone)",
            SotglpWarning,
            stacklevel=4,
        )


def push(
    files: Mapping[str, Path | bytes],
    repo_id: str,
    *,
    commit_message: str = "Push a model of sotglp",
    private: bool | None = None,
    token: str | None = None,
    branch: str | None = None,
    create_pr: bool = False,
    force: bool = False,
) -> str:
    """Upload files in one commit and return its address; the repository is created if it is missing.

    Parameters
    ----------
    files : mapping of str to Path or bytes
        Files by their names in the repository.
    repo_id : str
        OWNER/NAME.
    commit_message, private, token, branch, create_pr
        See ``huggingface_hub.ModelHubMixin.push_to_hub``.
    force : bool, default False
        Replace a card that somebody wrote or edited; otherwise it is kept, with a warning.

    Raises
    ------
    SotglpError
        If the repository can't be written.
    """
    with _explained(f"{repo_id} can't be written"):
        api = HfApi(endpoint=constants.ENDPOINT, token=token)
        repo_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
        if branch is not None and not create_pr:
            api.create_branch(repo_id, branch=branch, exist_ok=True)
        content = {name: str(file) if isinstance(file, Path) else file for name, file in files.items()}
        if CARD in content and not force and _has_own_card(api, repo_id, branch):
            del content[CARD]
            warn(
                f"{CARD} of {repo_id} is kept, since somebody wrote or edited it: replace it with force=True (--force)",
                SotglpWarning,
                stacklevel=3,
            )
        operations = [CommitOperationAdd(name, file) for name, file in content.items()]
        done = api.create_commit(
            repo_id, operations, commit_message=commit_message, revision=branch, create_pr=create_pr
        )
        return str(done.pr_url or done.commit_url)


def model_path(
    source: str | os.PathLike[str],
    *,
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    force_download: bool = False,
    local_files_only: bool = False,
) -> Path:
    """Return the model file of a repository, OWNER/NAME, or of a folder; it is downloaded if it isn't in the cache.

    Raises
    ------
    SotglpError
        If there is no such repository, revision or file, or it can't be downloaded.
    """
    if os.path.isdir(source):
        return Path(source) / MODEL
    repo_id = os.fspath(source)
    with _explained(f"the model of {repo_id} can't be downloaded"), no_waiting_for_the_hub():
        options: dict[str, Any] = {"force_download": force_download, "local_files_only": local_files_only}
        found = HfApi(endpoint=constants.ENDPOINT, token=token).hf_hub_download(
            repo_id, MODEL, revision=revision, cache_dir=cache_dir, **options
        )
        return Path(found)


def _has_own_card(api: HfApi, repo_id: str, revision: str | None) -> bool:
    """Whether a repository has a card that isn't as :func:`sotglp.hub.card.model_card` wrote it."""
    try:
        path = api.hf_hub_download(repo_id, CARD, revision=revision)
    except LocalEntryNotFoundError:  # an EntryNotFoundError too, but of the network
        raise
    except (EntryNotFoundError, RevisionNotFoundError):
        return False
    return not is_unedited(Path(path).read_text(encoding="utf-8"))


@contextmanager
def _explained(what: str) -> Iterator[None]:
    """Turn errors of the Hub's client into sentences; ``what`` is their beginning."""
    try:
        yield
    except SotglpError:
        raise
    except HFValidationError as error:
        raise SotglpError(f"{what}: write a repository as OWNER/NAME ({first_line(error)})") from error
    except LocalEntryNotFoundError as error:
        raise SotglpError(f"{what}: it isn't in the cache, and the Hub can't be reached; check the network") from error
    except EntryNotFoundError as error:
        raise SotglpError(f"{what}: it has no {MODEL}; check the name") from error
    except RevisionNotFoundError as error:
        raise SotglpError(f"{what}: it has no such branch, tag or commit; check the revision") from error
    except RepositoryNotFoundError as error:
        raise SotglpError(
            f"{what}: there is no such repository, or it is private; check the name, and log in with `hf auth login`"
        ) from error
    except LocalTokenNotFoundError as error:
        raise SotglpError(f"{what}: log in with `hf auth login`, or give a token (token=, HF_TOKEN)") from error
    except Exception as error:  # of the client, its HTTP library and the file system
        raise SotglpError(
            f"{what} ({type(error).__name__}: {first_line(error)}): check the network, and the token that `hf auth "
            "login` stored or HF_TOKEN names"
        ) from error
