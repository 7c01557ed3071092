"""Networks of torchvision with its weights of ImageNet, for streams that start from them."""

from __future__ import annotations

from typing import Any


def torchvision_network(caller: str, name: str, weights: str | None) -> Any:
    """Builds a network of torchvision.

    Args:
        caller: Begins the error messages.
        name: As torchvision calls it: "vgg16".
        weights: The name of weights of torchvision, which downloads them and keeps them in torch.hub's folder;
            "DEFAULT" is its best. None: random.

    Returns:
        An object of torchvision's class, such as `torchvision.models.VGG`.

    Raises:
        ValueError: torchvision has no such weights.
        OSError: they cannot be downloaded.
    """
    import torchvision  # takes a second, which `import pyaction` should not

    names = dict(torchvision.models.get_model_weights(name).__members__)
    names.pop("IMAGENET1K_FEATURES", None)  # VGG's, in which the fully connected layers are NaN
    if weights is not None and weights not in names:
        raise ValueError(f"{caller}: weights must be None or one of {', '.join(map(repr, names))}; got {weights!r}")
    try:
        return torchvision.models.get_model(name, weights=weights)
    except OSError as error:
        raise OSError(
            f"{caller}: {names[str(weights)].url} could not be downloaded ({error}); "
            "fetch it elsewhere, give weights=None, and load its state dict"
        ) from error
