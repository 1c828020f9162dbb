"""The canonical data sets: their classes, sizes, files, addresses and checksums.

MD5s and addresses of MNIST and Fashion-MNIST are those of torchvision.datasets; the SHA-256 of MNIST's idx
bytes are pinned here, so that a mirror may compress them anew. CIFAR comes as the publisher's *binary*
version (MD5 from https://www.cs.toronto.edu/~kriz/cifar.html): the Python version is a pickle, which this
package never opens.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class RemoteFile:
    """One file to fetch. It is accepted if each checksum that is given holds.

    `md5` and `sha256` are of the file's bytes; `content_sha256` is of a .gz file's decompressed bytes, of
    which there are `content_bytes`. `max_bytes` bounds the download.
    """

    name: str
    urls: tuple[str, ...]
    max_bytes: int
    md5: str | None = None
    sha256: str | None = None
    content_sha256: str | None = None
    content_bytes: int | None = None


@dataclass(frozen=True)
class CanonicalSet:
    """A published data set: class names, image shape (C, H, W), samples a split, and files by their role."""

    classes: tuple[str, ...]
    shape: tuple[int, int, int]
    counts: dict[str, int]
    files: dict[str, RemoteFile]


IDX_HEADER = {"images": 16, "labels": 8}
_IDX_NAMES = {
    ("train", "images"): "train-images-idx3-ubyte.gz",
    ("train", "labels"): "train-labels-idx1-ubyte.gz",
    ("test", "images"): "t10k-images-idx3-ubyte.gz",
    ("test", "labels"): "t10k-labels-idx1-ubyte.gz",
}
_IDX_COUNTS = {"train": 60_000, "test": 10_000}


def _idx_files(bases: tuple[str, ...], kind: str, digests: dict[tuple[str, str], str]) -> dict[str, RemoteFile]:
    """The four files of an MNIST-like set; `kind` is the RemoteFile field that `digests` fill."""
    files = {}
    for (split, part), name in _IDX_NAMES.items():
        size = IDX_HEADER[part] + _IDX_COUNTS[split] * (28 * 28 if part == "images" else 1)
        files[f"{split} {part}"] = RemoteFile(
            name=name,
            urls=tuple(base + name for base in bases),
            max_bytes=size + 65_536,
            content_bytes=size,
            **{kind: digests[split, part]},
        )
    return files


_DIGIT_NAMES = tuple("0123456789")

MNIST = CanonicalSet(
    classes=_DIGIT_NAMES,
    shape=(1, 28, 28),
    counts=_IDX_COUNTS,
    files=_idx_files(
        (
            "https://ossci-datasets.s3.amazonaws.com/mnist/",
            "https://storage.googleapis.com/cvdf-datasets/mnist/",
        ),
        "content_sha256",
        {
            ("train", "images"): "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
            ("train", "labels"): "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
            ("test", "images"): "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
            ("test", "labels"): "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
        },
    ),
)

FASHION_MNIST = CanonicalSet(
    classes=(
        *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
        *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
    ),
    shape=(1, 28, 28),
    counts=_IDX_COUNTS,
    files=_idx_files(
        ("http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",),
        "md5",
        {
            ("train", "images"): "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
            ("train", "labels"): "25c81989df183df01b3e8a0aad5dffbe",
            ("test", "images"): "bef4ecab320f06d8554ea6380940ec79",
            ("test", "labels"): "bb300cfdad3c16e7a12a480ee83cd310",
        },
    ),
)

CIFAR10 = CanonicalSet(
    classes=("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
    shape=(3, 32, 32),
    counts={"train": 50_000, "test": 10_000},
    files={
        "archive": RemoteFile(
            name="cifar-10-binary.tar.gz",
            urls=("https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",),
            max_bytes=170_052_171,
            md5="c32a1d4ab5d03f1284b67883e8d87530",
            sha256="c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
        )
    },
)

_CIFAR100_CLASSES = """
apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can
castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin
elephant flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster
man maple_tree motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck
pine_tree plain plate poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk
skyscraper snail snake spider squirrel streetcar sunflower sweet_pepper table tank telephone television tiger
tractor train trout tulip turtle wardrobe whale willow_tree wolf woman worm
"""

CIFAR100 = CanonicalSet(
    classes=tuple(_CIFAR100_CLASSES.split()),
    shape=(3, 32, 32),
    counts={"train": 50_000, "test": 10_000},
    files={
        "archive": RemoteFile(
            name="cifar-100-binary.tar.gz",
            urls=("https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz",),
            max_bytes=168_513_733,
            md5="03b5dce01913d631647c71ecec9e9cb8",
            sha256="58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec",
        )
    },
)

DIGITS = CanonicalSet(classes=_DIGIT_NAMES, shape=(1, 8, 8), counts={"train": 1_497, "test": 300}, files={})

CANONICAL = {
    "digits": DIGITS,
    "mnist": MNIST,
    "fashion_mnist": FASHION_MNIST,
    "cifar10": CIFAR10,
    "cifar100": CIFAR100,
}
