"""The numbered videos, encoded once."""

import pytest
from video.numbered_video import COUNT, STREAMS, encode, numbered_picture


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("streams")
    pictures = [numbered_picture(number) for number in range(COUNT)]
    for name, (codec, pixel_format, options) in STREAMS.items():
        encode(folder / name, codec, pixel_format, options, pictures)
    return folder


@pytest.fixture(params=STREAMS)
def path(folder, request):
    return folder / request.param
