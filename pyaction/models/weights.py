"""Weights from files: pyaction's own, and those that circulate for its networks."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from pyaction.models.checkpoint_files import read_checkpoint
from pyaction.models.checkpoint_formats import FORMATS
from pyaction.models.first_convolution import average_over_channels, first_convolution

# The layers that give class scores, in all networks of pyaction: of another size where the classes are others.
_CLASSIFIER = re.compile(r"(.+\.)?(fc|fc1|fc2|fc8(\.\d+)?|classifier\.6|logits\.conv3d|relations\.\d+\.3)\.\w+")
_LEAST_SHARE = 0.5  # of a network's weights


@dataclass(frozen=True)
class LoadReport:
    """What `load_weights` has done; `str(report)` says it in a sentence or two."""

    format: str
    """The file's scheme of names, one of `load_weights`'s formats."""
    matched: int
    """How many entries of the model's state dict got values."""
    skipped: dict[str, str]
    """By name in the file: why an entry was not used."""
    missing: tuple[str, ...]
    """Weights and statistics of the model that got nothing, and are as before."""
    averaged: str | None
    """The kernel that was averaged over its input channels, if any: see `average_over_channels`."""

    def __str__(self) -> str:
        text = f"Loaded {self.matched} entries in the format {self.format}."
        if self.averaged is not None:
            text += f" Averaged {self.averaged} over its input channels."
        if self.skipped:
            reasons = [f"{name} ({reason})" for name, reason in self.skipped.items()]
            text += f" Skipped {len(reasons)} of the file: {_some(reasons)}."
        if self.missing:
            text += f" Missing {len(self.missing)} of the model: {_some(self.missing)}."
        return text


def load_weights(
    model: nn.Module, path: str | Path, format: str = "auto", *, cross_modality: bool = False
) -> LoadReport:
    """Loads weights into a network, from a file of pyaction or of the public releases.

    A classifier of another size is skipped, so that a network for other classes can be trained further. All else has
    to fit, or the model stays as it was. No code in the file is run.

    The formats are, with the networks that they fit:

    * `"pyaction"`: any; a state dict, or `{"state_dict": ...}`, where names may begin with `model.` or `module.`
    * `"tensorflow-i3d"`: `I3D`; the variables of the authors' release, in a state dict or `.npz`
    * `"piergiaj-i3d"`, `"hassony2-i3d"`: `I3D`; the ports to PyTorch.
    * `"bn-inception"`: `BNInception`; weights of ImageNet by Xiong and by Cadene. For `TSN` load its `backbone`.
    * `"tsn-pytorch"`: `TSN`; trained with 128 for 123 in the mean of BN-Inception's input, as is the next
    * `"trn-pytorch"`: `TRN`; which tuples evaluation sees stays the model's own
    * `"caffe-motionnet"`: `MotionNet`; tensors by the layer names of the authors' release, converted from Caffe
    * `"torchvision"`: `VGG16` and `ResNet`

    Whoever wrote it, a file with exactly the model's names is taken for pyaction's: torchvision's VGG-16, say.

    Args:
        model: A network of pyaction.
        path: What `torch.save` wrote, `.npz`, or `.safetensors` with that package.
        format: One of those, or `"auto"`: recognised by the names in the file.
        cross_modality: A first convolution over another number of channels takes the file's kernel averaged over its
            channels (`average_over_channels`): flow starts from RGB. Else such a file is refused.

    Returns:
        What was loaded, and what was not.

    Raises:
        FileNotFoundError: There is no such file.
        ImportError: safetensors is needed and not installed.
        ValueError: The file is no checkpoint, would run code, is of no known format, does not fit, or has less than
            half of the model's weights, classifier aside; or there is no such format.

    Example:
        >>> import tempfile, torch
        >>> from pyaction import models
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     torch.save(models.FuseNet(classes=5).state_dict(), f"{folder}/fusenet.pt")
        ...     print(load_weights(models.FuseNet(classes=5), f"{folder}/fusenet.pt"))
        Loaded 4 entries in the format pyaction.
    """
    file = Path(path)
    content = read_checkpoint(file)
    expected = model.state_dict()
    names = {key: _unwrapped(key, expected) for key in content}
    format = _recognized(format, names.values(), expected, file)
    found, sources, skipped = _translated(content, names, format, model, file)
    for name in _misfit_classifiers(found, expected):
        sizes = f"{list(found.pop(name).shape)}, the model's is {list(expected[name].shape)}"
        skipped[sources[name]] = f"classifier of another size: {sizes}"
    first = _first_kernel(model)
    averaged = _average(found, expected, first) if cross_modality else None
    for name, tensor in found.items():
        _check_fit(tensor, expected[name], f"{sources[name]} of {file}", first=name == first)
    _check_share(found, expected, f"{file}, in the format {format},", type(model).__name__, content)
    model.load_state_dict(found, strict=False)
    # Integers are counters, and a TRN's tuples.
    missing = tuple(name for name, old in expected.items() if name not in found and old.is_floating_point())
    return LoadReport(format, len(found), skipped, missing, averaged)


def _unwrapped(key: str, expected: Collection[str]) -> str:
    """The name without what DataParallel and Lightning put before it."""
    return key if key in expected else re.sub(r"^((module|model)\.)+", "", key)


def _recognized(format: str, names: Collection[str], expected: Mapping[str, Tensor], file: Path) -> str:
    if format != "auto":
        if format not in FORMATS:
            raise ValueError(f"load_weights: format must be 'auto' or one of {', '.join(FORMATS)}; got {format!r}")
        return format
    if set(names) == set(expected):
        return "pyaction"
    for known, scheme in FORMATS.items():
        if any(scheme.signature.fullmatch(name) for name in names):
            return known
    if set(names) & set(expected):
        return "pyaction"
    raise ValueError(f"load_weights: {file} is in no known format; its keys are {_some(names)}")


def _translated(
    content: Mapping[str, object], names: Mapping[str, str], format: str, model: nn.Module, file: Path
) -> tuple[dict[str, Tensor], dict[str, str], dict[str, str]]:
    """The file's tensors by the model's names, whence each comes, and why others are skipped."""
    expected = model.state_dict()
    found: dict[str, Tensor] = {}
    sources: dict[str, str] = {}
    skipped: dict[str, str] = {}
    for key, value in content.items():
        if not isinstance(value, Tensor):
            skipped[key] = "not a tensor"
            continue
        for name, tensor in FORMATS[format].translate(names[key], value):
            if name not in expected:
                skipped[key] = f"{type(model).__name__} has no such entry"
            elif name in found:
                raise ValueError(f"load_weights: {file} has {name} twice, as {sources[name]} and as {key}")
            else:
                found[name], sources[name] = tensor, key
    return found, sources, skipped


def _misfit_classifiers(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> list[str]:
    """All entries of those classifiers of which one does not fit: a bias means nothing without its kernel."""
    layers = {
        name.rpartition(".")[0]
        for name, tensor in found.items()
        if _CLASSIFIER.fullmatch(name) and tensor.shape != expected[name].shape
    }
    return [name for name in found if name.rpartition(".")[0] in layers]


def _first_kernel(model: nn.Module) -> str | None:
    try:
        kernel = first_convolution(model).weight
    except ValueError:  # FuseNet has none
        return None
    return next(name for name, parameter in model.named_parameters() if parameter is kernel)


def _average(found: dict[str, Tensor], expected: Mapping[str, Tensor], first: str | None) -> str | None:
    """Fits the first convolution's kernel to the model's channels; returns its name if that was needed."""
    if first not in found or not _differ_in_channels(found[first], expected[first]):
        return None
    found[first] = average_over_channels(found[first], expected[first].shape[1])
    return first


def _differ_in_channels(kernel: Tensor, other: Tensor) -> bool:
    """Whether two kernels differ in their input channels alone."""
    shape, others = kernel.shape, other.shape
    return shape != others and shape[:1] + shape[2:] == others[:1] + others[2:]


def _check_fit(tensor: Tensor, old: Tensor, what: str, *, first: bool) -> None:
    if tensor.shape != old.shape:
        hint = ""
        if first and _differ_in_channels(tensor, old):
            hint = "; for input of other channels give cross_modality=True"
        raise ValueError(f"load_weights: {what} must have shape {list(old.shape)}; got {list(tensor.shape)}{hint}")
    # Whatever could fail in copying has to fail here, before the first value is copied.
    dense = tensor.layout is torch.strided and not tensor.is_meta
    if not dense or tensor.is_floating_point() != old.is_floating_point():
        kind = "floating point" if old.is_floating_point() else "integers"
        raise ValueError(f"load_weights: {what} must be a dense tensor of {kind}; got {tensor.dtype}, {tensor.layout}")


def _check_share(
    found: Collection[str], expected: Mapping[str, Tensor], file: str, model: str, content: Iterable[str]
) -> None:
    """Refuses a file that hardly fills the model."""
    sizes = {name: old.numel() for name, old in expected.items() if old.is_floating_point()}
    # Of a network that is nothing but a classifier, that counts.
    body = {name: size for name, size in sizes.items() if not _CLASSIFIER.fullmatch(name)} or sizes
    share = sum(size for name, size in body.items() if name in found) / max(1, sum(body.values()))
    if share < _LEAST_SHARE:
        raise ValueError(
            f"load_weights: {file} has {share:.0%} of the weights of {model}, less than half; "
            f"its keys are {_some(content)}"
        )


def _some(names: Iterable[str]) -> str:
    first, *rest = names
    shown = ", ".join([first, *rest[:2]])
    return f"{shown} and {len(rest) - 2} more" if len(rest) > 2 else shown
