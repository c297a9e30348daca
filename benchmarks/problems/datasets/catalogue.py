"""The data sets of images there are: names, sizes, files and checksums. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ....estimators.errors import UsageError
from ..arguments import shown

_MNIST = {
    "train": ("train-images-idx3-ubyte", "train-images-idx3-ubyte.gz", "train.npy"),
    "test": ("t10k-images-idx3-ubyte", "t10k-images-idx3-ubyte.gz", "test.npy"),
}
_IWAE = "https://raw.githubusercontent.com/yburda/iwae/78a6075484bd7dd6f47a4bb9880d2295bc7a5220"
_OMNIGLOT = {"train": ("chardata.mat", "train.npy"), "test": ("chardata.mat", "test.npy")}


@dataclass(frozen=True)
class Download:
    """A file that can be downloaded.

    Attributes:
        file: its name.
        urls: where it is, the first that answers counts.
        checksum: "sha256:…" of its bytes, or "git-blob:…", the SHA-1 that git knows a file by.
        splits: what it holds.
        size: bytes; None where that is not known.
    """

    file: str
    urls: tuple[str, ...]
    checksum: str
    splits: tuple[str, ...]
    size: int | None = None


@dataclass(frozen=True, eq=False)
class DataSet:
    """Square images of one channel, in two parts.

    Attributes:
        name: as in ``vae[data=name]``.
        side: pixels of a side.
        sizes: {"train": images that are not for testing, "test": images to test with}.
        validation: how many of the first, the last of them, are held out for validation by default.
        files: {"train": names that a file of these images may have, the first that is there counts,
            "test": ...}; empty of what comes with a Python package.
        folders: inside the data folder, where the files may lie.
        contents: {"train": SHA-256 of the images as an IDX file, "test": ...}, where it is known.
        downloads: the files that `elbograd data get` fetches.
        shuffled: the seed of NumPy's ``RandomState`` under which the images are brought into another order,
            where theirs is by class; None for the order of the files.
        whole_passes: whether a dynamic binarization draws a whole pass before its order, as numbers that are
            published had it, and not batch by batch.
    """

    name: str
    side: int
    sizes: Mapping[str, int]
    validation: int
    files: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    folders: tuple[str, ...] = ()
    contents: Mapping[str, str] = field(default_factory=dict)
    downloads: tuple[Download, ...] = ()
    shuffled: int | None = None
    whole_passes: bool = False

    @property
    def pixels(self) -> int:
        """Of an image."""
        return self.side**2


def _idx(bases: tuple[str, ...], train: tuple[str, int], test: tuple[str, int]) -> tuple[Download, ...]:
    """MNIST's two files of images, each with its SHA-256 and size, in several places."""
    return tuple(
        Download(file, tuple(f"{base}/{file}" for base in bases), f"sha256:{sha256}", (split,), size)
        for split, (sha256, size) in (("train", train), ("test", test))
        for file in [_MNIST[split][1]]
    )


#: Checksums: of MNIST as TensorFlow Datasets has them; of Fashion-MNIST those of the files in its repository,
#: whose contents are those of Debian's dataset-fashion-mnist; of chardata.mat the name that git has for it in
#: the repository of Burda, Grosse & Salakhutdinov.
DATA_SETS: dict[str, DataSet] = {
    each.name: each
    for each in (
        DataSet(
            "digits",
            side=8,
            sizes={"train": 1500, "test": 297},
            validation=0,  # what is published was trained on all 1,500
            whole_passes=True,
        ),
        DataSet(
            "mnist-5k",
            side=28,
            sizes={"train": 4500, "test": 500},
            validation=500,
            shuffled=20131220,
        ),
        DataSet(
            "mnist",
            side=28,
            sizes={"train": 60_000, "test": 10_000},
            validation=10_000,
            files=_MNIST,
            folders=("mnist", "MNIST/raw"),
            contents={
                "train": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
                "test": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
            },
            downloads=_idx(
                (
                    "https://ossci-datasets.s3.amazonaws.com/mnist",
                    "https://storage.googleapis.com/cvdf-datasets/mnist",
                ),
                train=("440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609", 9_912_422),
                test=("8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6", 1_648_877),
            ),
        ),
        DataSet(
            "fashion-mnist",
            side=28,
            sizes={"train": 60_000, "test": 10_000},
            validation=10_000,
            files=_MNIST,
            folders=("fashion-mnist", "FashionMNIST/raw"),
            contents={
                "train": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
                "test": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
            },
            downloads=_idx(
                (
                    "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion",
                    "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com",
                ),
                train=("3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84", 26_421_880),
                test=("346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073", 4_422_102),
            ),
        ),
        DataSet(
            "omniglot",
            side=28,
            sizes={"train": 24_345, "test": 8_070},
            validation=1345,  # the order and the split of Burda, Grosse & Salakhutdinov
            shuffled=123,
            files=_OMNIGLOT,
            folders=("omniglot", "OMNIGLOT"),
            downloads=(
                Download(
                    "chardata.mat",
                    (f"{_IWAE}/datasets/OMNIGLOT/chardata.mat",),
                    "git-blob:016a3536ffe5e1d38e42563a18d7a78bfaf643ec",
                    ("train", "test"),
                ),
            ),
        ),
    )
}


def data_set(name: object) -> DataSet:
    """The data set of a name.

    Raises:
        UsageError: there is none of that name.
    """
    if not isinstance(name, str) or name not in DATA_SETS:
        raise UsageError(f"data={shown(name)} is not one of {', '.join(DATA_SETS)}")
    return DATA_SETS[name]
