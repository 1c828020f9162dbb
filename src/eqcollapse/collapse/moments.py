"""What neural collapse is measured from: counts, means and within-class scatter of the features of each
class.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from os import PathLike
from typing import Any, ParamSpec, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from eqcollapse.collapse.arrays import as_tensor, present
from eqcollapse.collapse.gathering import Gathering
from eqcollapse.collapse.serialization import passes_of, tensors_of
from eqcollapse.collapse.streaming import FirstPass, Projection, SecondPass

P = ParamSpec("P")
R = TypeVar("R")
Pass = TypeVar("Pass", FirstPass, SecondPass)

CLASS_SCATTER_BYTES = 64 << 20
"""With scatter="auto": one scatter matrix a class up to this size (K of about 200), a single pooled one
above.
"""

OTHER_FEATURES = (
    "the second pass saw other features than the first: are they augmented, in training mode, or of another precision?"
)


def _as_normal_tensors(method: Callable[P, R]) -> Callable[P, R]:
    """Return `method` without gradients and outside any inference mode of its caller: what is made inside one could
    not be added to after it.
    """

    @wraps(method)
    def called(*args: P.args, **kwargs: P.kwargs) -> R:
        with torch.inference_mode(False), torch.no_grad():
            return method(*args, **kwargs)

    return called


class Moments:
    """Class counts, means and within-class scatter of N×d features, accumulated batch by batch in float64.

    ::

        moments = Moments(num_classes, dim)
        for features, labels in batches:
            moments.update(features, labels)  # first pass: counts, means, traces
        moments.second_pass(weight, bias)
        for features, labels in batches:
            moments.update(features, labels)  # the same samples again, in any order and batches

    or, for features in memory, `Moments.of(features, labels, num_classes, weight, bias)`. Without the
    second pass what needs the scatter or the samples' decisions (NC1, NC4) is undefined; NC2, NC3, norms,
    angles, the trace ratio and the CDNV are not.

    The accumulators live where the first batch lives. On CUDA no update waits for the device.
    """

    @_as_normal_tensors
    def __init__(self, num_classes: int, dim: int, *, scatter: str = "auto", device: torch.device | str | None = None):
        """Start empty; `device`: where to accumulate, if not where the first batch lives.

        `scatter`: "class" keeps one (K-1)×(K-1) scatter a class, which NC1 of a group of classes chosen
        later needs; "pooled" keeps their sum; "auto" is "class" while that is small. Raises ValueError on
        an unknown option.
        """
        if num_classes < 1 or dim < 1:
            raise ValueError(f"num_classes and dim must be at least 1, not {num_classes} and {dim}")
        if scatter not in ("auto", "class", "pooled"):
            raise ValueError(f'scatter must be "auto", "class" or "pooled", not {scatter!r}')
        self.num_classes, self.dim = num_classes, dim
        rank = max(0, min(num_classes - 1, dim))
        small = 8 * num_classes * rank**2 <= CLASS_SCATTER_BYTES
        self._pooled = scatter == "pooled" or (scatter == "auto" and not small)
        self._device = None if device is None else torch.device(device)
        self._first = None if self._device is None else FirstPass.empty(num_classes, dim, self._device)
        self._second: SecondPass | None = None
        self._projection: Projection | None = None
        self._gathering = Gathering()
        self._taken_in = 0

    @classmethod
    def of(
        cls,
        features: Tensor,
        labels: Tensor,
        num_classes: int,
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        *,
        scatter: str = "auto",
    ) -> Moments:
        """Return the moments of `features` (N×d) with `labels` (N) after both passes; `weight` K×d,
        `bias` K.
        """
        features, labels = as_tensor("features", features), as_tensor("labels", labels)
        moments = cls(num_classes, check_features(features), scatter=scatter)
        moments.update(features, labels)
        moments.second_pass(weight, bias)
        moments.update(features, labels)
        return moments

    @_as_normal_tensors
    def update(self, features: Tensor, labels: Tensor) -> None:
        """Take in a batch: `features` N×d of any real dtype and device, `labels` N integers in 0..K-1.

        Both are only read, and not needed any more afterwards: on the CPU small batches are copied, and
        taken in together. Raises ValueError on wrong shapes or dtypes and, on the CPU, on labels out of
        range; on CUDA, where that would mean to wait, such samples are left out and reported once the
        moments are read.
        """
        features, labels = as_tensor("features", features), as_tensor("labels", labels)
        self._check_batch(features, labels)
        if len(labels) == 0:
            return
        device = self._first_pass(features.device).counts.device
        features, labels = features.detach().to(device), labels.detach().to(device, torch.int64)
        if self._second is not None and self._projection is None:
            raise ValueError("a second pass that was read from a file can be merged, not continued")
        if device.type == "cpu":
            self._check_labels(labels)
            for batch in self._gathering.add(features, labels):
                self._take_in(*batch)
        else:
            self._take_in(features, labels)

    @_as_normal_tensors
    def second_pass(self, weight: Tensor | None = None, bias: Tensor | None = None) -> None:
        """Fix the means and begin the second pass, for which the batches of the first are handed in again.

        `weight` (K×d) and `bias` (K) are the classifier whose decisions NC4 compares with the nearest
        class centre. To share the work, copies of the merged first pass each call this and see a part of
        the samples, then `merge`.
        """
        if self._second is not None:
            raise ValueError("the second pass has begun already")
        weight, bias = as_tensor("weight", weight), as_tensor("bias", bias)
        check_classifier(weight, bias, self.num_classes, self.dim)
        means = self.means
        classifier = None
        if weight is not None:
            W = weight.detach().to(means.device, torch.float64)
            b = W.new_zeros(self.num_classes) if bias is None else bias.detach().to(W)
            classifier = (W, b)
        self._second, self._projection = SecondPass.begin(means, self._pooled, classifier)

    @_as_normal_tensors
    def merge(self, other: Moments) -> Moments:
        """Take in another part's moments of the same pass, and return self; `other` is only read.

        First passes of any parts merge. Second passes merge if they began from the same (merged) first
        pass and classifier. Else ValueError.
        """
        if (self.num_classes, self.dim) != (other.num_classes, other.dim):
            raise ValueError(
                f"moments of {other.num_classes} classes in {other.dim} dimensions do not merge into"
                f" {self.num_classes} classes in {self.dim} dimensions"
            )
        if (self._second is None) != (other._second is None):
            raise ValueError("one of these moments has begun its second pass and the other has not")
        first, others = self._counted(), other._counted()
        device = first.counts.device
        if self._second is None:
            self._first = first.merged(_moved(others, device))
            self._taken_in += other._taken_in
            return self
        if not (_equal(first.counts, others.counts) and _equal(first.means, others.means)):
            raise ValueError("these second passes began from different first passes: merge the first passes before")
        self._second = self._second.merged(_moved(present("second pass", other._second), device))
        return self

    # What has been accumulated. Reading waits for the device.

    @property
    def counts(self) -> Tensor:
        """Numbers of samples (K, int64)."""
        return self._counted().counts

    @property
    def means(self) -> Tensor:
        """Class means (K×d, float64); nan for a class without samples."""
        return self._counted().means

    @property
    def traces(self) -> Tensor:
        """Sums of ||h - m_y||^2 over the samples of each class (K, float64)."""
        first = self._counted()
        return first.traces if self._second is None or self.incomplete else self._second.squares

    @property
    def second(self) -> SecondPass | None:
        """The second pass as far as it has come, on the CPU, or None."""
        self._settle()
        return None if self._second is None else _moved(self._second, torch.device("cpu"))

    @property
    def incomplete(self) -> str | None:
        """Why the scatter and the decisions are not there, or None if they are."""
        if self._second is None:
            return "needs the second pass over the features"
        first, second = self._counted(), self._second
        if not torch.equal(first.counts, second.counts):
            seen, expected = int(second.counts.sum()), int(first.counts.sum())
            return f"the second pass saw {seen} samples, the first {expected}, or of other classes"
        return None if second.saw_features_of(first) else OTHER_FEATURES

    def tensors(self) -> dict[str, Tensor]:
        """Return all of it as named CPU tensors, from which `from_tensors` makes the same moments again,
        bit by bit.

        counts (K), means (K×d), traces (K); after the second pass also basis (d×r), second_counts (K),
        second_traces (K), shift (K×r), scatter (K×r(r+1)/2, or 1×r(r+1)/2 pooled: upper triangles row by
        row), centre_correct (K) and, where they apply, spread (K×r), agreeing, correct (K), fingerprint (K×3).
        """
        tensors = tensors_of(self._counted(), self._second)
        return {name: tensor.cpu().contiguous().clone() for name, tensor in tensors.items()}

    @classmethod
    @_as_normal_tensors
    def from_tensors(cls, tensors: dict[str, Tensor]) -> Moments:
        """Return the moments that `tensors()` gave; ValueError, with the name of the tensor, if it gave no such thing:
        other names, dtypes or shapes, negative counts or squares, numbers that are not finite where they must be.
        """
        first, second = passes_of(tensors)
        pooled = second is not None and second.pooled
        moments = cls(*first.centres.shape, scatter="pooled" if pooled else "class", device=first.counts.device)
        moments._first, moments._second = first, second
        moments._taken_in = int(first.counts.sum())
        return moments

    def save(self, path: str | PathLike[str]) -> None:
        """Write `tensors()` as safetensors."""
        save_file(self.tensors(), path, metadata={"format": FORMAT})

    @classmethod
    def load(cls, path: str | PathLike[str]) -> Moments:
        """Read what `save` wrote; ValueError if the file is something else."""
        try:
            with safe_open(path, framework="pt") as file:
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except SafetensorError as error:
            raise ValueError(f"{path} is not a safetensors file: {error}") from error
        try:
            return cls.from_tensors(tensors)
        except ValueError as error:
            raise ValueError(f"{path} holds no moments: {error}") from error

    @_as_normal_tensors
    def _first_pass(self, device: torch.device) -> FirstPass:
        if self._first is None:
            # Apple's GPUs have no float64: their features are taken to the CPU.
            home = device if device.type in ("cpu", "cuda") else torch.device("cpu")
            self._first = FirstPass.empty(self.num_classes, self.dim, home)
        return self._first

    def __copy__(self) -> Moments:
        """Return moments of the same first pass, for a second pass of their own."""
        self._settle()
        copied = object.__new__(type(self))
        copied.__dict__ |= self.__dict__ | {"_gathering": Gathering()}
        return copied

    def _take_in(self, features: Tensor, labels: Tensor) -> None:
        if self._second is None:
            self._taken_in += len(labels)
            self._first_pass(features.device).update(features, labels)
        else:
            self._second.update(present("projection", self._projection), features, labels)

    @_as_normal_tensors
    def _settle(self) -> None:
        """Take in what has been held back: to be called before anything is read."""
        for batch in self._gathering.rest():
            self._take_in(*batch)

    def _counted(self) -> FirstPass:
        self._settle()
        first = self._first_pass(torch.device("cpu"))
        lost = self._taken_in - int(first.counts.sum())
        if lost:
            raise ValueError(f"{lost} samples had labels outside 0..{self.num_classes - 1}")
        return first

    def _check_batch(self, features: Tensor, labels: Tensor) -> None:
        dim = check_features(features)
        if dim != self.dim:
            raise ValueError(f"features have {dim} dimensions, these moments {self.dim}")
        if labels.shape != features.shape[:1]:
            raise ValueError(
                f"{len(features)} features need as many labels, not a tensor of shape {tuple(labels.shape)}"
            )
        if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
            raise ValueError(f"labels must be integers, not {labels.dtype}")

    def _check_labels(self, labels: Tensor) -> None:
        lowest, highest = int(labels.min()), int(labels.max())
        if lowest < 0 or highest >= self.num_classes:
            raise ValueError(f"labels run from {lowest} to {highest}, outside 0..{self.num_classes - 1}")


FORMAT = "eqcollapse.moments"


def check_features(features: Tensor) -> int:
    """Return d of N×d real features; ValueError for anything else."""
    if features.ndim != 2 or features.is_complex():
        raise ValueError(f"features must be real, N×d, not {features.dtype} of shape {tuple(features.shape)}")
    return features.shape[1]


def check_classifier(weight: Tensor | None, bias: Tensor | None, num_classes: int, dim: int) -> None:
    """Raise ValueError unless weight is K×d and bias K, where given, and bias comes with a weight."""
    if weight is None and bias is not None:
        raise ValueError("a bias needs the weight that goes with it")
    if weight is not None and tuple(weight.shape) != (num_classes, dim):
        check_not_transposed(weight, dim, num_classes)
        raise ValueError(f"weight must be {num_classes}×{dim}, not {tuple(weight.shape)}")
    if bias is not None and tuple(bias.shape) != (num_classes,):
        raise ValueError(f"bias must have {num_classes} entries, not shape {tuple(bias.shape)}")


def check_not_transposed(weight: Tensor, dim: int, num_classes: int | None = None) -> None:
    """Raise ValueError where `weight` is d×K; any K other than d will do unless `num_classes` is given."""
    shape = tuple(weight.shape)
    if len(shape) == 2 and shape[0] == dim != shape[1] and num_classes in (None, shape[1]):
        raise ValueError(
            f"weight must be {num_classes or 'K'}×{dim} (classes×dimensions), not {shape}: it is transposed, "
            "give its transpose"
        )


def _equal(one: Tensor, other: Tensor) -> bool:
    return torch.equal(one.cpu().nan_to_num(), other.cpu().nan_to_num())


def _moved(part: Pass, device: torch.device) -> Pass:
    moved: dict[str, Any] = {name: None if value is None else value.to(device) for name, value in vars(part).items()}
    return type(part)(**moved)
