"""Weights from files: pyaction's own, and those that circulate for its networks."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from pyaction.models.checkpoint_files import read_checkpoint
from pyaction.models.checkpoint_formats import FORMATS
from pyaction.models.first_convolution import average_over_channels, first_convolution

# The layers that give class scores, in all networks of pyaction: of another size where the classes are others.
_CLASSIFIER = re.compile(r"(.+\.)?(fc|fc1|fc2|fc8(\.\d+)?|classifier\.6|logits\.conv3d|relations\.\d+\.3)\.\w+")
# What DataParallel, Lightning, training scripts and torch.compile put before the names.
_PREFIX = re.compile(r"(module|model|network|_orig_mod)\.")
# What networks of several streams call them: each sees an input.
_STREAMS = ("spatial", "temporal", "teacher", "student", "motionnet")
_STATISTICS = (".running_mean", ".running_var")


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
    averaged: tuple[str, ...]
    """The kernels that were averaged over their input channels: see `average_over_channels`."""
    note: str | None = None
    """What to know of such a file, if anything: what its network was trained to see."""

    def __str__(self) -> str:
        text = f"Loaded {self.matched} entries in the format {self.format}."
        if self.averaged:
            text += f" Averaged {_some(self.averaged)} over the input channels."
        if self.skipped:
            reasons = [f"{name} ({reason})" for name, reason in self.skipped.items()]
            text += f" Skipped {len(reasons)} of the file: {_some(reasons)}."
        if self.missing:
            text += f" Missing {len(self.missing)} of the model: {_some(self.missing)}."
        if self.note is not None:
            text += f" {self.note}."
        return text


def load_weights(
    model: nn.Module,
    path: str | Path,
    format: str = "auto",
    *,
    cross_modality: bool = False,
    partial: bool = False,
) -> LoadReport:
    """Loads weights into a network, from a file of pyaction or of the public releases.

    The file must have all weights and statistics of the network but the classifier's, and no others in its parts; they
    must fit and be finite, or the model stays as it was. A classifier that is missing or of another size is skipped, so
    that a network for other classes can be trained further. No code in the file is run.

    The formats are, with the networks that they fit:

    * `"pyaction"`: any; a state dict, or `{"state_dict": ...}`
    * `"tensorflow-i3d"`: `I3D`; the variables of the authors' release, in a state dict or `.npz`
    * `"piergiaj-i3d"`, `"hassony2-i3d"`: `I3D`; the ports to PyTorch.
    * `"bn-inception"`: `BNInception`; weights of ImageNet by Xiong and by Cadene. For `TSN` load its `backbone`.
    * `"tsn-pytorch"`: `TSN`; trained with 128 for 123 in the mean of BN-Inception's input, as is the next: see
      `transforms.TSN_PYTORCH_RGB`
    * `"trn-pytorch"`: `TRN`; which tuples evaluation sees stays the model's own
    * `"caffe-motionnet"`: `MotionNet`; tensors by the layer names of the authors' release, converted from Caffe
    * `"torchvision"`: `VGG16` and `ResNet`; and GoogLeNet, whose filters are inflated, for `I3D`

    Whoever wrote it, a file with exactly the model's names is taken for pyaction's: torchvision's VGG-16, say. Before
    the names there may be `model.` and `network.` (of Lightning), anywhere `module.` (of DataParallel) and `_orig_mod.`
    (of torch.compile); weights may lie under `"state_dict"`, `"model_state_dict"` or `"model"`.

    Args:
        model: A network of pyaction.
        path: What `torch.save` wrote, `.npz`, or `.safetensors` with that package.
        format: One of those, or `"auto"`: recognised by the names in the file.
        cross_modality: A first convolution, of any stream, over another number of channels takes the file's kernel
            averaged over its channels (`average_over_channels`): flow starts from RGB. Else such a file is refused.
        partial: The file may have a part of the model only, and the rest stays as it is: `TRN` over a trained `TSN`,
            or `CooperativeCrossStream` over one without the blocks; or more than the model, which is skipped. Never
            normalisation without its statistics.

    Returns:
        What was loaded, and what was not.

    Raises:
        FileNotFoundError: There is no such file.
        ImportError: safetensors is needed and not installed.
        ValueError: The file is no checkpoint, would run code, is of no known format, does not fit, lacks something or
            has values that are not finite; or there is no such format.

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
    found, sources, skipped, homeless = _translated(content, names, format, model, file)
    note = FORMATS[format].note(found)
    for name in _misfit_classifiers(found, expected):
        sizes = f"{list(found.pop(name).shape)}, the model's is {list(expected[name].shape)}"
        skipped[sources[name]] = f"classifier of another size: {sizes}"
    first = _first_kernels(model)
    averaged = _average(found, expected, first) if cross_modality else ()
    for name, tensor in found.items():
        _check_fit(tensor, expected[name], f"{sources[name]} of {file}", first=name in first)
    # Integers are counters, and a TRN's tuples.
    missing = tuple(name for name, old in expected.items() if name not in found and old.is_floating_point())
    what = f"{file}, in the format {format},"
    if missing and not any(expected[name].is_floating_point() for name in found):
        raise ValueError(
            f"models.load_weights: {what} has none of the {len(missing)} weights of {type(model).__name__}, "
            f"first {missing[0]}; its keys are {_some(content)}"
        )
    _check_statistics(found, missing, what)
    if not partial:
        _check_complete(found, missing, what, type(model).__name__)
        if homeless:
            raise ValueError(
                f"models.load_weights: {what} has {len(homeless)} weights for which {type(model).__name__} has no "
                f"place, first {homeless[0]}; to skip them give partial=True"
            )
    model.load_state_dict(found, strict=False)
    return LoadReport(format, len(found), skipped, missing, averaged, note)


def _unwrapped(key: str, expected: Collection[str]) -> str:
    """The name without what wrappers put before it; less of that is taken away where the model has such a name."""
    if key in expected:
        return key
    name = re.sub(r"(?<=\.)(_orig_mod|module)\.", "", key)
    while name not in expected and (prefix := _PREFIX.match(name)):
        name = name[prefix.end() :]
    return name


def _recognized(format: str, names: Collection[str], expected: Mapping[str, Tensor], file: Path) -> str:
    if format != "auto":
        if format not in FORMATS:
            raise ValueError(
                f"models.load_weights: format must be 'auto' or one of {', '.join(FORMATS)}; got {format!r}"
            )
        return format
    if set(names) == set(expected):
        return "pyaction"
    for known, scheme in FORMATS.items():
        if any(scheme.signature.fullmatch(name) for name in names):
            return known
    if set(names) & set(expected):
        return "pyaction"
    raise ValueError(f"models.load_weights: {file} is in no known format; its keys are {_some(names)}")


def _translated(
    content: Mapping[str, object], names: Mapping[str, str], format: str, model: nn.Module, file: Path
) -> tuple[dict[str, Tensor], dict[str, str], dict[str, str], list[str]]:
    """The file's tensors by the model's names, whence each comes, why others are skipped, and which of these matter.

    Those are weights of a part that the model has, in which it has no place for them: the file's network is deeper,
    say. What lies beside the network (a loss, an optimizer), and a classifier, do not matter.
    """
    expected = model.state_dict()
    found: dict[str, Tensor] = {}
    sources: dict[str, str] = {}
    skipped: dict[str, str] = {}
    homeless: list[str] = []
    for key, value in content.items():
        if not isinstance(value, Tensor):
            skipped[key] = "not a tensor"
            continue
        entries = FORMATS[format].translate(names[key], value)
        if isinstance(entries, str):
            skipped[key] = entries
            continue
        for name, tensor in entries:
            if name not in expected:
                skipped[key] = f"{type(model).__name__} has no such entry"
                part = name.partition(".")[0]
                if tensor.is_floating_point() and hasattr(model, part) and not _CLASSIFIER.fullmatch(name):
                    homeless.append(key)
            elif name in found:
                raise ValueError(f"models.load_weights: {file} has {name} twice, as {sources[name]} and as {key}")
            else:
                found[name], sources[name] = tensor, key
    return found, sources, skipped, homeless


def _misfit_classifiers(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> list[str]:
    """All entries of those classifiers of which one does not fit: a bias means nothing without its kernel."""
    layers = {
        name.rpartition(".")[0]
        for name, tensor in found.items()
        if _CLASSIFIER.fullmatch(name) and tensor.shape != expected[name].shape
    }
    return [name for name in found if name.rpartition(".")[0] in layers]


def _first_kernels(model: nn.Module) -> tuple[str, ...]:
    """The kernels that see an input: each stream's, or the network's."""
    kernels = []
    for network in (model, *(stream for name, stream in model.named_children() if name in _STREAMS)):
        with suppress(ValueError):  # FuseNet has none
            kernels.append(first_convolution(network).weight)
    return tuple(name for name, old in model.named_parameters() if any(old is kernel for kernel in kernels))


def _average(found: dict[str, Tensor], expected: Mapping[str, Tensor], first: Iterable[str]) -> tuple[str, ...]:
    """Fits the first kernels to the model's channels; returns the names of those that needed it."""
    averaged = tuple(name for name in first if name in found and _differ_in_channels(found[name], expected[name]))
    for name in averaged:
        found[name] = average_over_channels(found[name], expected[name].shape[1])
    return averaged


def _differ_in_channels(kernel: Tensor, other: Tensor) -> bool:
    """Whether two kernels differ in their input channels alone."""
    shape, others = kernel.shape, other.shape
    return shape != others and shape[:1] + shape[2:] == others[:1] + others[2:]


def _check_fit(tensor: Tensor, old: Tensor, what: str, *, first: bool) -> None:
    if tensor.shape != old.shape:
        hint = ""
        if first and _differ_in_channels(tensor, old):
            hint = "; for input of other channels give cross_modality=True"
        raise ValueError(
            f"models.load_weights: {what} must have shape {list(old.shape)}; got {list(tensor.shape)}{hint}"
        )
    # Whatever could fail in copying has to fail here, before the first value is copied.
    dense = tensor.layout is torch.strided and not tensor.is_meta
    if not dense or tensor.is_floating_point() != old.is_floating_point():
        kind = "floating point" if old.is_floating_point() else "integers"
        raise ValueError(
            f"models.load_weights: {what} must be a dense tensor of {kind}; got {tensor.dtype}, {tensor.layout}"
        )
    # By the extremes, which NaN passes through: isfinite would take memory as large as the weights.
    if (
        tensor.is_floating_point()
        and tensor.numel()
        and not torch.stack(tensor.aminmax()).to(old.dtype).isfinite().all()
    ):
        raise ValueError(f"models.load_weights: {what} must be finite; got NaN or infinity")


def _check_statistics(found: Collection[str], missing: Iterable[str], what: str) -> None:
    """Refuses a file with weights of a module, but without the statistics beside them that they were trained with."""
    modules = {_module_of(_module_of(name)) for name in found if not _CLASSIFIER.fullmatch(name)}
    lacking = [name for name in missing if name.endswith(_STATISTICS) and _module_of(_module_of(name)) in modules]
    if lacking:
        raise ValueError(
            f"models.load_weights: {what} lacks {len(lacking)} of the statistics of batch normalisation, "
            f"first {lacking[0]}, without which its weights mean nothing"
        )


def _check_complete(found: Collection[str], missing: Iterable[str], what: str, model: str) -> None:
    """Refuses a file that leaves anything but a whole classifier as it was."""
    layers = {_module_of(name) for name in found}
    lacking = [name for name in missing if not _CLASSIFIER.fullmatch(name) or _module_of(name) in layers]
    if lacking:
        raise ValueError(
            f"models.load_weights: {what} lacks {len(lacking)} of the weights of {model}, first {lacking[0]}; "
            "to load a part give partial=True"
        )


def _module_of(name: str) -> str:
    return name.rpartition(".")[0]


def _some(names: Iterable[str]) -> str:
    first, *rest = names
    shown = ", ".join([first, *rest[:2]])
    return f"{shown} and {len(rest) - 2} more" if len(rest) > 2 else shown
