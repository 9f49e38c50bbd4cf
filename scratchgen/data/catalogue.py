"""The image sets by name: their sizes, the checksums of their files, and where they come from."""

from dataclasses import dataclass
from pathlib import Path

from ..errors import unknown

# The four files of a set, in the order in which they are reported.
ROLES = ("train-images", "train-labels", "t10k-images", "t10k-labels")


@dataclass(frozen=True)
class ImageSet:
    """The sizes, checksums and addresses of a published set."""

    name: str
    train: int  # number of training images
    test: int  # number of test images
    sha256: dict[str, str]  # role -> checksum of the raw (decompressed) file
    image_shape: tuple[int, int] = (28, 28)  # as in the files: H, W
    folders: tuple[str, ...] = ()  # names of the subfolders of a data folder that are searched
    mirrors: tuple[str, ...] = ()  # addresses that the file names are appended to
    embedded: Path | None = None  # the folder, if the set is a part of the package

    def shape(self, role: str) -> tuple[int, ...]:
        """The shape of the array in the file ``role``."""
        count = self.train if role.startswith("train") else self.test
        return (count, *self.image_shape) if role.endswith("images") else (count,)


MNIST_MINI = ImageSet(
    name="mnist-mini",  # the first 10,000 training and the first 2,000 test images of MNIST
    train=10_000,
    test=2_000,
    sha256={
        "train-images": "2889698e6bc3614913e76901316712919d1998fc2b44512451bfe65bc1e668b1",
        "train-labels": "651e38e2ac0632f5113ec18f1df4977117f953197819034009971a6675a0df78",
        "t10k-images": "3f6bd66dee48df299584c67669bceee490faa25f931496bd7473b42106d7daed",
        "t10k-labels": "7b098e5f6a3065807cebeabf36fb1724a8aff19f2673ac08b4923e0e8c715bce",
    },
    embedded=Path(__file__).parent / "mnist-mini",
)

MNIST = ImageSet(
    name="mnist",
    train=60_000,
    test=10_000,
    sha256={
        "train-images": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        "train-labels": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        "t10k-images": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        "t10k-labels": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    },
    folders=("mnist", "fashion-mnist", "fashion"),
    mirrors=(
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        "https://storage.googleapis.com/cvdf-datasets/mnist/",
    ),
)

FASHION_MNIST = ImageSet(
    name="fashion-mnist",
    train=60_000,
    test=10_000,
    sha256={
        "train-images": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
        "train-labels": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
        "t10k-images": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
        "t10k-labels": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
    },
    folders=("fashion-mnist", "fashion", "mnist"),
    mirrors=(
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
    ),
)

SETS = {each.name: each for each in (MNIST_MINI, MNIST, FASHION_MNIST)}


def names() -> tuple[str, ...]:
    """The names of the image sets, the default first."""
    return tuple(SETS)


def image_set(name: str) -> ImageSet:
    """The ImageSet called ``name``; UserError with the nearest match if there is none."""
    if not isinstance(name, str) or name not in SETS:
        raise unknown("data set", name, SETS)
    return SETS[name]


def published_name(role):
    """The name of the file ``role`` on the mirrors: ``train-images-idx3-ubyte.gz``."""
    return f"{role}-idx{_ndim(role)}-ubyte.gz"


def file_names(role):
    """All names of the file ``role`` that are accepted on disk."""
    stems = (f"{role}-idx{_ndim(role)}-ubyte", f"{role}.idx{_ndim(role)}-ubyte")
    return tuple(stem + suffix for stem in stems for suffix in (".gz", ""))


def _ndim(role):
    return 3 if role.endswith("images") else 1
