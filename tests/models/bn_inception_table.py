"""The published table of BN-Inception's layers."""

# Block: 1x1, 3x3 reduce, 3x3, double reduce, double, projection, output; None: the block halves the resolution.
TABLE = {
    "3a": (64, 64, 64, 64, 96, 32, 256),
    "3b": (64, 64, 96, 64, 96, 64, 320),
    "3c": (None, 128, 160, 64, 96, None, 576),
    "4a": (224, 64, 96, 96, 128, 128, 576),
    "4b": (192, 96, 128, 96, 128, 128, 576),
    "4c": (160, 128, 160, 128, 160, 128, 608),
    "4d": (96, 128, 192, 160, 192, 128, 608),
    "4e": (None, 128, 192, 192, 256, None, 1056),
    "5a": (352, 192, 320, 160, 224, 128, 1024),
    "5b": (352, 192, 320, 192, 224, 128, 1024),
}


def convolutions(channels: int) -> dict[str, tuple[int, int, int]]:
    """Name -> input channels, filters, size."""
    found = {
        "conv1_7x7_s2": (channels, 64, 7),
        "conv2_3x3_reduce": (64, 64, 1),
        "conv2_3x3": (64, 192, 3),
    }
    before = 192
    for block, (single, reduce3, triple, reduce5, double, projection, after) in TABLE.items():
        prefix = f"inception_{block}_"
        if single is not None:
            found[f"{prefix}1x1"] = (before, single, 1)
        found[f"{prefix}3x3_reduce"] = (before, reduce3, 1)
        found[f"{prefix}3x3"] = (reduce3, triple, 3)
        found[f"{prefix}double_3x3_reduce"] = (before, reduce5, 1)
        found[f"{prefix}double_3x3_1"] = (reduce5, double, 3)
        found[f"{prefix}double_3x3_2"] = (double, double, 3)
        if projection is not None:
            found[f"{prefix}pool_proj"] = (before, projection, 1)
        before = after
    return found


def trunk_parameters(channels: int) -> int:
    """Of all but the classifier: each convolution has a bias, and normalisation with two weights per filter."""
    return sum(filters * (before * size**2 + 3) for before, filters, size in convolutions(channels).values())
