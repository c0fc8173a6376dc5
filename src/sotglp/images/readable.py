"""Which images of a set can be decoded."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from sotglp.errors import SotglpError, UnreadableImageError
from sotglp.images.decode import open_image
from sotglp.images.image_set import ImageSet, is_tensor


def find_unreadable(images: ImageSet) -> dict[int, UnreadableImageError]:
    """Decode every image; returns what is wrong with those that can't be, by their positions."""

    def problem(index: int) -> UnreadableImageError | None:
        source = images.images[index]
        if is_tensor(source):
            return None
        try:
            open_image(source)
        except UnreadableImageError as error:
            return UnreadableImageError(images.name(index), error.reason)
        return None

    with ThreadPoolExecutor() as pool:
        problems = enumerate(pool.map(problem, range(len(images))))
        return {index: error for index, error in problems if error is not None}


def readable_images(images: ImageSet, unreadable: list[UnreadableImageError] | None = None) -> ImageSet:
    """The images that can be decoded; better to find the others before an hour of training than in it.

    Parameters
    ----------
    images : ImageSet
        Labelled images.
    unreadable : list or None
        Collects images that can't be decoded; None raises at the first.

    Raises
    ------
    SotglpError
        If an image can't be decoded and ``unreadable`` is None, or none of a class can.
    """
    found = find_unreadable(images)
    if not found:
        return images
    if unreadable is None:
        raise next(iter(found.values()))
    unreadable.extend(found.values())
    left = {label for index, label in enumerate(images.labels or ()) if index not in found}
    if lost := sorted(set(images.classes) - left):
        raise SotglpError(f"no image of the class {lost[0]!r} can be read: put readable images in or remove the class")
    return images.take([index for index in range(len(images)) if index not in found])
