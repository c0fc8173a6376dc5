import multiprocessing
import os
import pickle
import signal
import threading

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms
from torchvision.transforms import RandomResizedCrop

from sotglp.errors import SotglpError, UnreadableImageError
from sotglp.images.image_set import ImageSet
from sotglp.images.views import TrainingTransform, ViewDataset, load_batches

MEAN, STD = (0.48, 0.46, 0.41), (0.27, 0.26, 0.28)
SIZE = 16


def noise(seed, height=40, width=52):
    coarse = np.random.default_rng(seed).integers(0, 256, (height // 4, width // 4, 3), dtype=np.uint8)
    return coarse.repeat(4, axis=0).repeat(4, axis=1)


def evaluation():
    return transforms.Compose(
        [
            transforms.Resize(SIZE, interpolation=transforms.InterpolationMode.BICUBIC),
            transforms.CenterCrop(SIZE),
            transforms.ToTensor(),
            transforms.Normalize(MEAN, STD),
        ]
    )


def training():
    return TrainingTransform(SIZE, MEAN, STD)


@pytest.fixture
def files(tmp_path):
    for k in range(11):
        Image.fromarray(noise(k)).save(tmp_path / f"{k:02}.jpg", quality=90)
    return ImageSet.from_flat_folder(tmp_path)


@pytest.fixture
def spoilt(files):
    for k in (2, 6, 7):
        content = files.images[k].read_bytes()
        files.images[k].write_bytes(content[: len(content) // 2])
    return files


def runs(images, size):
    return np.split(np.arange(len(images)), range(size, len(images), size))


def together(batches):
    batches = list(batches)
    return np.concatenate([indices for indices, _ in batches]), torch.cat([pixels for _, pixels in batches])


def bits(tensor):
    return tensor.contiguous().numpy().tobytes()


def crop_and_flip(seed, size):
    """Redo the draws of the published augmentation for an image of this (height, width)."""
    torch.manual_seed(seed)
    blank = torch.zeros(1, *size)
    top, left, height, width = RandomResizedCrop.get_params(blank, scale=[0.08, 1.0], ratio=[3 / 4, 4 / 3])
    return (left, top, left + width, top + height), bool(torch.rand(1) < 0.5)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("size", [SIZE, (12, 20)])
def test_the_published_augmentation_done_by_pillow_and_numpy(seed, size):
    image = Image.fromarray(noise(1))
    height, width = (size, size) if isinstance(size, int) else size
    box, flipped = crop_and_flip(seed, (40, 52))
    expected = np.asarray(image.crop(box).resize((width, height), Image.Resampling.BICUBIC))
    expected = ((expected[:, ::-1] if flipped else expected) / 255.0 - MEAN) / STD

    transform = TrainingTransform(size, MEAN, STD)
    torch.manual_seed(seed)
    view = transform(image)
    assert view.dtype == torch.float32
    np.testing.assert_allclose(view.permute(1, 2, 0), expected, atol=1e-5)

    torch.manual_seed(seed)
    assert torch.equal(transform(torch.from_numpy(noise(1)).permute(2, 0, 1)), view)


def test_the_augmentation_crops_from_8_percent_up_and_flips_half():
    # A ramp tells the width of a crop by its slope and a flip by the slope's sign.
    ramp = np.broadcast_to(np.linspace(0, 255, 200, dtype=np.uint8)[None, :, None], (200, 200, 3)).copy()
    transform = TrainingTransform(32, (0, 0, 0), (1, 1, 1))
    torch.manual_seed(0)
    slopes = np.array(
        [float(v[0, 16, 24] - v[0, 16, 8]) for v in (transform(Image.fromarray(ramp)) for _ in range(300))]
    )
    widths = np.abs(slopes) * 2
    assert 0.35 < (slopes < 0).mean() < 0.65
    assert np.sqrt(0.08 * 3 / 4) - 0.02 < widths.min() < 0.4
    assert 0.95 < widths.max() < 1.02


def test_preprocessed_tensors_are_cropped_and_flipped_but_not_normalised():
    # Constant images show by their value alone whether they were normalised.
    rows = torch.arange(4.0).reshape(4, 1, 1, 1).expand(4, 3, 20, 20)
    constant = ImageSet.from_items(rows)
    _, views = together(load_batches(constant, training(), runs(constant, 4), seed=1))
    assert views.shape == (4, 3, SIZE, SIZE)
    torch.testing.assert_close(views, torch.arange(4.0).reshape(4, 1, 1, 1).expand_as(views))
    varied = ImageSet.from_items(torch.rand(1, 3, 20, 20, generator=torch.Generator().manual_seed(0)))
    seen = {bits(next(load_batches(varied, training(), [[0]], seed=1, epoch=e))[1]) for e in range(10)}
    assert len(seen) == 10


def test_preprocessed_tensors_are_evaluated_as_they_are():
    rows = torch.randn(5, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    indices, pixels = together(load_batches(ImageSet.from_items(rows), evaluation(), [[0, 1], [2, 3], [4]]))
    np.testing.assert_array_equal(indices, range(5))
    assert torch.equal(pixels, rows)


@pytest.mark.parametrize("seed", [None, 4])
def test_raw_tensors_pictures_and_files_give_the_same_views(tmp_path, seed):
    arrays = [noise(k) for k in range(4)]
    for k, array in enumerate(arrays):
        Image.fromarray(array).save(tmp_path / f"{k}.png")
    sets = [
        ImageSet.from_flat_folder(tmp_path),
        ImageSet.from_items([Image.fromarray(array) for array in arrays]),
        ImageSet.from_items(np.stack(arrays).transpose(0, 3, 1, 2)),
    ]
    transform = evaluation() if seed is None else training()
    views = [together(load_batches(images, transform, runs(images, 3), seed=seed))[1] for images in sets]
    assert torch.equal(views[0], views[1])
    assert torch.equal(views[0], views[2])
    if seed is None:
        assert torch.equal(views[0], torch.stack([evaluation()(Image.fromarray(array)) for array in arrays]))


@pytest.mark.parametrize("seed", [None, 4])
def test_worker_processes_give_the_same_bits(files, seed):
    transform = evaluation() if seed is None else training()
    here, there = (
        list(load_batches(files, transform, runs(files, 4), workers=workers, seed=seed, epoch=2)) for workers in (0, 2)
    )
    assert [len(indices) for indices, _ in there] == [4, 4, 3]
    for (indices, pixels), (other_indices, other_pixels) in zip(here, there, strict=True):
        np.testing.assert_array_equal(indices, other_indices)
        assert bits(pixels) == bits(other_pixels)


def test_sets_of_every_kind_can_be_pickled(files):
    rows = np.stack([noise(k) for k in range(3)]).transpose(0, 3, 1, 2)
    for images in (files, ImageSet.from_items(rows), ImageSet.from_items([Image.fromarray(noise(0))])):
        views = ViewDataset(images, training(), seed=1)
        again = pickle.loads(pickle.dumps(views))
        assert [bits(again[i][1]) for i in range(len(images))] == [bits(views[i][1]) for i in range(len(images))]


def test_thousands_of_tensor_rows_ask_no_process(monkeypatch):
    monkeypatch.setattr(os, "fork", lambda: pytest.fail("a process was started"))
    rows = torch.zeros(3000, 3, 2, 2)
    images = ImageSet.from_items(rows)
    assert sum(len(i) for i, _ in load_batches(images, evaluation(), runs(images, 500), workers=2)) == 3000


def test_a_view_depends_on_seed_epoch_and_image_alone(files):
    def view(i, seed=5, epoch=3):
        return bits(ViewDataset(files, training(), seed, epoch)[i][1])

    order, pixels = together(load_batches(files, training(), [[7, 1, 4], [1]], seed=5, epoch=3))
    np.testing.assert_array_equal(order, [7, 1, 4, 1])
    torch.manual_seed(99)
    assert [bits(row) for row in pixels] == [view(7), view(1), view(4), view(1)]
    same = files.take([0] * 11)
    assert len({bits(ViewDataset(same, training(), 5, 3)[i][1]) for i in range(11)}) == 11
    assert len({view(1, seed, epoch) for seed in range(4) for epoch in range(4)}) == 16


def test_batches_are_decoded_ahead_by_a_thread_that_ends_with_the_iteration(files):
    seen = []
    more = threading.Event()

    def transform(picture):
        seen.append(threading.current_thread())
        if len(seen) == 6:
            more.set()
        return evaluation()(picture)

    loaded = load_batches(files, transform, runs(files, 2))
    first, pixels = next(loaded)
    assert first.tolist() == [0, 1]
    assert more.wait(60)  # while this thread has the first batch
    assert threading.main_thread() not in seen
    loaded.close()
    assert not any(thread.is_alive() for thread in seen)
    assert len(seen) < len(files)
    assert torch.equal(pixels[1], ViewDataset(files, evaluation())[1][1])


@pytest.mark.parametrize("workers", [0, 1])
def test_torchs_own_generator_is_left_alone(files, workers):
    torch.manual_seed(12)
    before = torch.get_rng_state()
    list(load_batches(files, training(), runs(files, 4), workers=workers, seed=1))
    assert torch.equal(torch.get_rng_state(), before)


def test_augmenting_does_not_reseed_an_accelerator(files, monkeypatch):
    monkeypatch.setattr(torch, "manual_seed", lambda seed: pytest.fail("every device was reseeded"))
    monkeypatch.setattr(torch.cuda, "manual_seed_all", lambda seed: pytest.fail("the GPU was reseeded"))
    list(load_batches(files, training(), runs(files, 4), seed=1))


@pytest.mark.parametrize("workers", [0, 2])
def test_the_first_unreadable_image_in_order_is_named(spoilt, workers):
    batches = load_batches(spoilt, evaluation(), [[0, 1], [5, 7], [2, 6]], workers=workers)
    np.testing.assert_array_equal(next(batches)[0], [0, 1])
    with pytest.raises(UnreadableImageError, match="truncated") as caught:
        next(batches)
    # While the error is still held: no process may outlive it and stall what comes next.
    assert multiprocessing.active_children() == []
    assert caught.value.source == str(spoilt.images[7])
    assert "Traceback" not in str(caught.value)


@pytest.mark.parametrize("workers", [0, 2])
def test_unreadable_images_can_be_left_out(spoilt, workers):
    unreadable = []
    batches = list(load_batches(spoilt, evaluation(), runs(spoilt, 2), workers=workers, unreadable=unreadable))
    # The batch of images 6 and 7 is gone as a whole.
    assert [indices.tolist() for indices, _ in batches] == [[0, 1], [3], [4, 5], [8, 9], [10]]
    assert [pixels.shape for _, pixels in batches] == [(len(indices), 3, SIZE, SIZE) for indices, _ in batches]
    assert [error.source for error in unreadable] == [str(spoilt.images[k]) for k in (2, 6, 7)]


def test_an_unreadable_picture_is_named_by_its_number():
    pictures = [Image.new("RGB", (3, 3)), Image.new("RGB", (0, 3)), Image.new("RGB", (3, 3))]
    images = ImageSet.from_items(pictures).take([2, 1])
    with pytest.raises(UnreadableImageError, match="can't read image 1: its size is 0 x 3"):
        next(load_batches(images, evaluation(), [[0, 1]]))


def kill_the_process(image):
    os.kill(os.getpid(), signal.SIGKILL)


def fail(image):
    raise RuntimeError("a fault of the transform")


@pytest.mark.skipif(os.name == "nt", reason="kills by a signal")
def test_a_process_that_dies_is_reported_in_a_sentence(files):
    with pytest.raises(SotglpError, match=r"a process that loads images died.*use fewer workers"):
        list(load_batches(files, kill_the_process, runs(files, 4), workers=1))


def test_a_fault_of_the_transform_is_not_mistaken_for_a_dead_process(files):
    with pytest.raises(RuntimeError, match="a fault of the transform"):
        list(load_batches(files, fail, runs(files, 4), workers=1))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"workers": -1}, "workers is -1"),
        ({"seed": -1}, "seed is -1"),
        ({"seed": 1, "epoch": -2}, "epoch is -2"),
    ],
)
def test_arguments_out_of_range(files, options, words):
    with pytest.raises(SotglpError, match=words):
        load_batches(files, evaluation(), [[0]], **options)
