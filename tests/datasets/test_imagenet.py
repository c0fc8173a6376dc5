import re
from collections import Counter
from contextlib import contextmanager

import pytest
from open_clip import IMAGENET_CLASSNAMES
from timm.data import ImageNetInfo
from torchvision.datasets import ImageFolder

from sotglp.datasets import ENTRIES as ENTRY
from sotglp.datasets.imagenet import imagenet_names
from sotglp.errors import SotglpError
from sotglp.images.decode import open_image
from sotglp.images.labels import prompt_name
from support.dataset_trees import by_class, plant

WNIDS = tuple(imagenet_names())
NAMES = tuple(imagenet_names().values())
V2_FOLDER = "imagenetv2-matched-frequency-format-val"
SOME = ("n15075141", "n01443537", "n03445777")
SOME_IN_ORDER = ("goldfish", "golf ball", "toilet paper")


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """The folders train and val of ImageNet; shared, since thousands of files take long to remove."""
    folder = tmp_path_factory.mktemp("imagenet")
    plant(folder, [f"train/{file}" for file in [*by_class(WNIDS), f"{WNIDS[7]}/other.JPEG"]])
    plant(folder, [f"val/{file}" for file in by_class(WNIDS)])
    return folder


@pytest.fixture(scope="module")
def numbered(tmp_path_factory):
    """ImageNetV2's class folders."""
    return plant(tmp_path_factory.mktemp("v2"), by_class(map(str, range(1000)), "jpeg"))


def place(folder, at):
    at.parent.mkdir(parents=True, exist_ok=True)
    at.symlink_to(folder)
    return at


@contextmanager
def renamed(path, name):
    """Rename a file or folder for a while."""
    elsewhere = path.rename(path.parent / name)
    try:
        yield
    finally:
        elsewhere.rename(path)


@contextmanager
def added(folder, file):
    """Put a file there for a while, in a new folder if it names one."""
    plant(folder, [file])
    try:
        yield
    finally:
        (folder / file).unlink()
        if (folder / file).parent != folder:
            (folder / file).parent.rmdir()


def refused(name, root):
    with pytest.raises(SotglpError) as caught:
        ENTRY[name].load(root)
    message = str(caught.value)
    assert not message.endswith(".")
    return message


@pytest.mark.parametrize("below", ["imagenet/images", "imagenet"])
def test_imagenet_in_the_layout_of_coop_and_of_torchvision(images, tmp_path, below):
    at = place(images, tmp_path / below)
    if below.endswith("images"):  # CoOp's names, which are ignored
        (tmp_path / "imagenet/classnames.txt").write_text("".join(f"{wnid} thing\n" for wnid in WNIDS))
    splits = ENTRY["imagenet"].load(tmp_path)
    assert splits.classes == NAMES
    assert splits.val is None
    assert Counter(splits.train.labels) == {**dict.fromkeys(NAMES, 1), NAMES[7]: 2}
    assert splits.test.labels == NAMES
    assert [image.parent for image in splits.test.images] == [at / "val" / wnid for wnid in WNIDS]
    assert open_image(splits.train.images[0]).size == (16, 16)


def test_class_numbers_are_torchvisions(images, tmp_path):
    at = place(images, tmp_path / "imagenet/images")
    splits = ENTRY["imagenet"].load(tmp_path)
    theirs = ImageFolder(at / "train").samples
    ours = zip(map(str, splits.train.images), splits.train.targets(splits.classes), strict=True)
    assert sorted(ours) == sorted(theirs)


@pytest.mark.parametrize("split", ["train", "val"])
def test_imagenet_without_a_split(images, tmp_path, split):
    at = place(images, tmp_path / "imagenet/images")
    with renamed(images / split, "elsewhere"):
        assert f"there is no folder {at / split};" in refused("imagenet", tmp_path)


def test_imagenet_with_an_empty_and_a_missing_class(images, tmp_path):
    val = place(images, tmp_path / "imagenet/images") / "val"
    with renamed(val / WNIDS[5], ".hidden"), renamed(val / WNIDS[3] / f"{WNIDS[3]}_0.JPEG", ".hidden.JPEG"):
        message = refused("imagenet", tmp_path)
    assert message.startswith(f"{val} has no images of 2 of 1000 classes, the first in the folder {WNIDS[3]};")


@pytest.mark.parametrize(
    ("split", "file", "words"),
    [
        ("train", "n99999999/a.JPEG", "has folders that are not classes of the dataset: n99999999;"),
        ("val", "ILSVRC2012_val_1.JPEG", "has images outside class folders: ILSVRC2012_val_1.JPEG;"),
    ],
)
def test_imagenet_with_other_folders_or_images(images, tmp_path, split, file, words):
    folder = place(images, tmp_path / "imagenet/images") / split
    with added(folder, file):
        assert refused("imagenet", tmp_path).startswith(f"{folder} {words}")


def test_imagenetv2_is_numbered_by_class(numbered, tmp_path):
    place(numbered, tmp_path / "imagenetv2" / V2_FOLDER)
    splits = ENTRY["imagenetv2"].load(tmp_path)
    assert splits.classes == NAMES
    assert (splits.train, splits.val) == (None, None)
    numbers = [int(image.parent.name) for image in splits.test.images]
    assert splits.test.targets(NAMES).tolist() == numbers
    assert sorted(numbers) == list(range(1000))


@pytest.mark.parametrize("other", ["1000", "n01440764", "007"])
def test_imagenetv2_with_other_folders(numbered, tmp_path, other):
    folder = place(numbered, tmp_path / "imagenetv2" / V2_FOLDER)
    with added(folder, f"{other}/a.jpeg"):
        message = refused("imagenetv2", tmp_path)
    assert message.startswith(f"{folder} has folders that are not classes of the dataset: {other};")


def test_imagenetv2_in_part(numbered, tmp_path):
    folder = place(numbered, tmp_path / "imagenetv2" / V2_FOLDER)
    with renamed(folder / "9", ".a"), renamed(folder / "10", ".b"), renamed(folder / "999", ".c"):
        message = refused("imagenetv2", tmp_path)
    assert message.startswith(f"{folder} has no images of 3 of 1000 classes, the first in the folder 9;")


def test_imagenet_sketch_has_all_classes(images, tmp_path):
    folder = place(images / "val", tmp_path / "imagenet-sketch/images")
    splits = ENTRY["imagenet_sketch"].load(tmp_path)
    assert (splits.classes, splits.test.labels, splits.train) == (NAMES, NAMES, None)
    with renamed(folder / WNIDS[999], ".hidden"):
        message = refused("imagenet_sketch", tmp_path)
    assert message.startswith(f"{folder} has no images of 1 of 1000 classes, the first in the folder {WNIDS[999]};")


@pytest.mark.parametrize(("name", "below"), [("imagenet_a", "imagenet-a"), ("imagenet_r", "imagenet-r")])
def test_sets_of_some_classes_have_those_with_a_folder_in_imagenets_order(tmp_path, name, below):
    folder = plant(tmp_path / ENTRY[name].folder / below, by_class(SOME, "jpg", n=2))
    (folder / "README.txt").write_text("n01443537 goldfish\n")
    splits = ENTRY[name].load(tmp_path)
    assert splits.classes == SOME_IN_ORDER
    assert (splits.train, splits.val) == (None, None)
    assert Counter(splits.test.labels) == dict.fromkeys(SOME_IN_ORDER, 2)
    assert [imagenet_names()[image.parent.name] for image in splits.test.images] == list(splits.test.labels)
    (folder / "n01440764").mkdir()
    assert f"{folder} has no images of 1 of 4 classes, the first in the folder n01440764;" in refused(name, tmp_path)
    plant(folder, ["gold fish/a.jpg"])
    assert f"{folder} has folders that are not classes of the dataset: gold fish;" in refused(name, tmp_path)


def test_the_layout_shown_is_one_that_is_read(images, numbered, tmp_path):
    place(images, tmp_path / "imagenet/images")
    place(numbered, tmp_path / "imagenetv2" / V2_FOLDER)
    place(images / "val", tmp_path / "imagenet-sketch/images")
    plant(tmp_path / "imagenet-adversarial/imagenet-a", by_class(["n01498041"], "jpg"))
    plant(tmp_path / "imagenet-rendition/imagenet-r", by_class(["n01443537"], "jpg"))
    for entry in (entry for name, entry in ENTRY.items() if name.startswith("imagenet")):
        splits = entry.load(tmp_path)
        read = {*splits.test.images, *(splits.train.images if splits.train else ())}
        for line in entry.layout:
            shown = set((tmp_path / entry.folder).glob(line))
            assert shown
            assert shown <= read


def test_a_thousand_names_by_ascending_wordnet_number_make_different_prompts():
    assert len(WNIDS) == 1000
    assert list(WNIDS) == sorted(set(WNIDS))
    assert all(re.fullmatch(r"n\d{8}", wnid) for wnid in WNIDS)
    assert len(set(map(prompt_name, NAMES))) == 1000


def test_names_are_those_of_open_clip_except_for_two():
    pairs = zip(IMAGENET_CLASSNAMES, NAMES, strict=True)
    changed = {k: (theirs, ours) for k, (theirs, ours) in enumerate(pairs) if theirs != ours}
    assert changed == {744: ("missile", "projectile"), 836: ("sunglasses", "sunglass")}


def test_names_match_wordnets_descriptions_of_the_numbers():
    info = ImageNetInfo()
    lemmas = [info.label_name_to_description(wnid).lower() for wnid in WNIDS]
    last_words = [name.lower().split()[-1] for name in NAMES]

    def matching(shift):
        return sum(last_words[k] in lemmas[(k + shift) % 1000] for k in range(1000)) / 1000

    assert matching(0) > 0.85
    assert matching(1) < 0.3


def test_the_names_cannot_be_changed():
    with pytest.raises(TypeError):
        imagenet_names()["n01440764"] = "carp"
