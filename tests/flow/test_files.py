import os
import struct
import subprocess
import sys

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pyaction import flow as pf

NAN, INF = float("nan"), float("inf")
SUFFIXES = [".flo", ".png"]


def random_flow(height, width, seed=3, scale=30.0):
    return torch.randn(2, height, width, generator=torch.Generator().manual_seed(seed)) * scale


def flo_bytes(width, height, *values):
    return b"PIEH" + struct.pack(f"<ii{len(values)}f", width, height, *values)


def png_bytes(picture):
    """A png by OpenCV, from RGB."""
    return cv2.imencode(".png", np.ascontiguousarray(picture[..., ::-1]))[1].tobytes()


# --- .flo ---------------------------------------------------------------------------------------------


def test_flo_known_value(tmp_path):
    # Two wide, three high; u and v interleaved, row after row.
    data = flo_bytes(2, 3, 1, -1, 2, -2, 3, -3, 4, -4, 5, -5, 6.25, -6.5)
    flow = torch.tensor([[[1, 2], [3, 4], [5, 6.25]], [[-1, -2], [-3, -4], [-5, -6.5]]])
    (tmp_path / "a.flo").write_bytes(data)
    read = pf.read(tmp_path / "a.flo")
    assert read.flow.dtype == torch.float32 and read.valid.dtype == torch.bool
    assert torch.equal(read.flow, flow)
    assert read.valid.shape == (3, 2) and read.valid.all()
    pf.write(tmp_path / "b.flo", flow)
    assert (tmp_path / "b.flo").read_bytes() == data


@pytest.mark.parametrize("unknown", [NAN, INF, -INF, 1e10, -1e10, 1.1e9])
def test_flo_reads_unknown(tmp_path, unknown):
    (tmp_path / "a.flo").write_bytes(flo_bytes(4, 1, 7, unknown, unknown, 8, 9, -1e9, 1e9, 10))
    flow, valid = pf.read(tmp_path / "a.flo")
    assert valid.tolist() == [[False, False, True, True]]
    assert flow.tolist() == [[[0, 0, 9, 1e9]], [[0, 0, -1e9, 10]]]


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("unknown", [NAN, INF, -INF])
def test_flo_writes_unknown(tmp_path, unknown, dtype):
    flow = torch.tensor([[[1, unknown, 3]], [[4, 5, 6]]], dtype=dtype)
    pf.write(tmp_path / "a.flo", flow, torch.tensor([[True, True, False]]))
    assert (tmp_path / "a.flo").read_bytes() == flo_bytes(3, 1, 1, 4, 1e10, 1e10, 1e10, 1e10)


@given(
    values=st.lists(st.floats(-1e9, 1e9, width=32), min_size=12, max_size=12),
    mask=st.lists(st.booleans(), min_size=6, max_size=6),
    width=st.sampled_from([1, 2, 3, 6]),
)
def test_flo_round_trip(tmp_path_factory, values, mask, width):
    path = tmp_path_factory.mktemp("flo") / "a.flo"
    flow, valid = torch.tensor(values).view(2, -1, width), torch.tensor(mask).view(-1, width)
    pf.write(path, flow, valid)
    read = pf.read(path)
    assert torch.equal(read.valid, valid)
    assert torch.equal(read.flow, flow * valid)


def test_flo_as_opencv(tmp_path):
    flow = random_flow(13, 17)
    pf.write(tmp_path / "ours.flo", flow)
    assert np.array_equal(cv2.readOpticalFlow(str(tmp_path / "ours.flo")), flow.permute(1, 2, 0).numpy())
    assert cv2.writeOpticalFlow(str(tmp_path / "theirs.flo"), flow.permute(1, 2, 0).contiguous().numpy())
    assert torch.equal(pf.read(tmp_path / "theirs.flo").flow, flow)


# --- KITTI .png ---------------------------------------------------------------------------------------


def test_png_known_value(tmp_path):
    picture = np.array(
        [
            [[32768, 32768 + 64, 1], [32768 + 1, 32768 - 32, 1], [7, 8, 0]],
            [[0, 65535, 1], [5, 6, 65535], [0, 0, 0]],
        ],
        np.uint16,
    )
    (tmp_path / "a.png").write_bytes(png_bytes(picture))
    flow, valid = pf.read(tmp_path / "a.png")
    assert flow.dtype == torch.float32 and valid.dtype == torch.bool
    assert valid.tolist() == [[True, True, False], [True, True, False]]
    assert flow[0].tolist() == [[0, 1 / 64, 0], [-512, -32763 / 64, 0]]
    assert flow[1].tolist() == [[1, -0.5, 0], [32767 / 64, -32762 / 64, 0]]


@pytest.mark.filterwarnings("error")  # numpy's, about a NaN made an integer
def test_png_writes_what_opencv_reads(tmp_path):
    flow = torch.tensor([[[0, 1 / 64, -600, NAN]], [[-20.5, 0.0117, 600, 1]]])  # 0.0117 · 64 = 0.75
    pf.write(tmp_path / "a.png", flow, torch.tensor([[True, True, True, True]]))
    picture = cv2.imread(str(tmp_path / "a.png"), cv2.IMREAD_UNCHANGED)[..., ::-1]
    assert picture.dtype == np.uint16
    assert picture.tolist() == [[[32768, 31456, 1], [32769, 32769, 1], [0, 65535, 1], [0, 0, 0]]]


def test_png_mask(tmp_path):
    valid = torch.tensor([[True, False, True], [False, True, True]])
    pf.write(tmp_path / "a.png", torch.full((2, 2, 3), 3.0), valid)
    picture = cv2.imread(str(tmp_path / "a.png"), cv2.IMREAD_UNCHANGED)[..., ::-1]
    assert np.array_equal(picture[..., 2] == 1, valid.numpy())
    assert (picture[~valid.numpy()] == 0).all()
    assert torch.equal(pf.read(tmp_path / "a.png").flow, torch.full((2, 2, 3), 3.0) * valid)


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (37, 53), (375, 1242)])
def test_png_as_opencv(tmp_path, size):
    picture = np.random.default_rng(5).integers(0, 2**16, (*size, 3)).astype(np.uint16)
    (tmp_path / "theirs.png").write_bytes(png_bytes(picture))
    flow, valid = pf.read(tmp_path / "theirs.png")
    expected = (picture[..., :2].astype(np.float32) - 32768) / 64 * (picture[..., 2:] > 0)
    assert np.array_equal(flow.permute(1, 2, 0).numpy(), expected)
    pf.write(tmp_path / "ours.png", flow, valid)
    ours = cv2.imread(str(tmp_path / "ours.png"), cv2.IMREAD_UNCHANGED)[..., ::-1]
    assert np.array_equal(ours[..., :2], picture[..., :2] * (picture[..., 2:] > 0))
    assert np.array_equal(ours[..., 2], picture[..., 2] > 0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_png_rounds_to_nearest(tmp_path, dtype):
    flow = random_flow(21, 34, scale=100.0).to(dtype)
    pf.write(tmp_path / "a.png", flow)
    read, valid = pf.read(tmp_path / "a.png")
    assert valid.all()
    assert (read.double() - flow.double()).abs().max() <= 1 / 128


# --- both ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_takes_views_and_upper_case(tmp_path, suffix):
    flow = random_flow(9, 7).mul(64).round().div(64)
    padded = torch.full((1, 10, 9, 2), 77.0)
    view = padded[0, 1:, 1:8].permute(2, 0, 1)
    view.copy_(flow)
    path = str(tmp_path / "a") + suffix.upper()
    pf.write(path, view.requires_grad_())
    assert torch.equal(pf.read(path).flow, flow)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_read_owns_its_memory(tmp_path, suffix):
    for shape in [(2, 1, 1), (2, 1, 5), (2, 5, 1)]:
        pf.write(tmp_path / f"a{suffix}", torch.full(shape, 2.0))
        flow, valid = pf.read(tmp_path / f"a{suffix}")
        assert flow.is_contiguous() and flow.shape == shape
        flow += 1
        valid &= False
        assert (flow == 3).all() and not valid.any()


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_writes_back_what_it_read(tmp_path, suffix):
    a, b = tmp_path / f"a{suffix}", tmp_path / f"b{suffix}"
    pf.write(a, random_flow(6, 5), random_flow(6, 5)[0] > 0)
    pf.write(b, *pf.read(a))
    assert a.read_bytes() == b.read_bytes()


def interrupted_write(path, data):
    with open(path, "wb") as file:
        file.write(data[: len(data) // 2])
    raise KeyboardInterrupt


def refused_replace(source, target):
    raise PermissionError("no renaming today")


FAILURES = {
    "interrupted": ("pathlib.Path.write_bytes", interrupted_write, KeyboardInterrupt),
    "not renamed": ("os.replace", refused_replace, PermissionError),
}


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("before", [None, b"the file from last time"])
@pytest.mark.parametrize("failure", FAILURES)
def test_failed_write_leaves_nothing_behind(tmp_path, monkeypatch, suffix, before, failure):
    path = tmp_path / f"a{suffix}"
    if before is not None:
        path.write_bytes(before)
    broken, replacement, error = FAILURES[failure]
    monkeypatch.setattr(broken, replacement)
    with pytest.raises(error):
        pf.write(path, random_flow(4, 4))
    monkeypatch.undo()
    assert [p.name for p in tmp_path.iterdir()] == ([] if before is None else [path.name])
    assert before is None or path.read_bytes() == before


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_write_replaces_and_leaves_one_file(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    pf.write(path, torch.full((2, 3, 3), 5.0))
    pf.write(path, torch.full((2, 2, 4), 6.0))
    assert torch.equal(pf.read(path).flow, torch.full((2, 2, 4), 6.0))
    assert os.listdir(tmp_path) == [path.name]
    (tmp_path / "plain").touch()
    assert path.stat().st_mode == (tmp_path / "plain").stat().st_mode  # the umask's, not a private file's


def test_import_loads_no_decoder():
    code = "import sys, pyaction.flow; sys.exit('av' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_missing_paths(tmp_path, suffix):
    with pytest.raises(FileNotFoundError):
        pf.read(tmp_path / f"a{suffix}")
    with pytest.raises(FileNotFoundError):
        pf.write(tmp_path / "no" / f"a{suffix}", random_flow(2, 2))


GOOD_PNG = png_bytes(np.full((30, 40, 3), 40000, np.uint16))


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.pfm", b"PF", r"a\.pfm must end in \.flo \(Middlebury\) or \.png \(KITTI\); got '\.pfm'"),
        ("flo", b"", r"flo must end in .* got ''"),
        ("a.flo", b"", r"a\.flo must hold a \.flo header of 12 bytes; got 0 bytes"),
        ("a.flo", b"PIEH\1\0\0\0\1\0\0", r"header of 12 bytes; got 11 bytes"),
        ("a.flo", b"PIEX" + flo_bytes(1, 1, 2, 3)[4:], r"a\.flo must begin with b'PIEH' .*; got b'PIEX'"),
        ("a.flo", flo_bytes(3, 2, *range(11)), r"must be 60 bytes long for its 3 x 2 pixels; got 56 bytes"),
        ("a.flo", flo_bytes(3, 2, *range(13)), r"must be 60 bytes long for its 3 x 2 pixels; got 64 bytes"),
        ("a.flo", flo_bytes(2**31 - 1, 2**31 - 1, 1), r"2147483647 x 2147483647 pixels; got 16 bytes"),
        ("a.flo", flo_bytes(0, 5), r"width and height >= 1; got 0 x 5"),
        ("a.flo", flo_bytes(-1, -1, 3, 4), r"width and height >= 1; got -1 x -1"),
        ("a.png", b"", r"a\.png must be a whole png file; got 0 bytes"),
        ("a.png", flo_bytes(1, 1, 2, 3), r"a\.png must be a whole png file; got 20 bytes"),
        ("a.png", GOOD_PNG[:-20], r"a\.png must be a whole png file"),
        ("a.png", GOOD_PNG[:60] + b"\x55\xaa" + GOOD_PNG[62:], r"a\.png must be a whole png file"),
        ("a.png", png_bytes(np.zeros((4, 5, 3), np.uint8)), r"RGB png of 16 bits \(KITTI flow\); got rgb24"),
        ("a.png", cv2.imencode(".png", np.zeros((4, 5), np.uint16))[1].tobytes(), r"16 bits .* got gray16be"),
    ],
)
def test_read_rejects(tmp_path, name, data, message):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(ValueError, match="flow.read: .*" + message):
        pf.read(tmp_path / name)


ZEROS = torch.zeros(2, 3, 4)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (("a.jpg", ZEROS), ValueError, r"a\.jpg must end in .*; got '\.jpg'"),
        (("a.flo", ZEROS.numpy()), TypeError, r"flow must be a torch\.Tensor; got ndarray"),
        (("a.flo", ZEROS.int()), ValueError, r"floating point.*got torch\.int32"),
        (("a.flo", ZEROS.movedim(0, -1)), ValueError, r"\[\.\.\., 2, H, W\].*; got \[3, 4, 2\]"),
        (("a.flo", ZEROS[:, 0]), ValueError, r"got \[2, 4\]"),
        (("a.png", ZEROS[:, :0]), ValueError, r"H, W >= 1; got \[2, 0, 4\]"),
        (("a.png", ZEROS[None]), ValueError, r"one field \[2, H, W\]; got \[1, 2, 3, 4\]"),
        (("a.png", ZEROS, np.ones((3, 4), bool)), TypeError, r"valid must be.*; got ndarray"),
        (("a.png", ZEROS, ZEROS[0]), ValueError, r"torch\.bool.*; got torch\.float32"),
        (("a.png", ZEROS, ZEROS[0].T == 0), ValueError, r"must be \[3, 4\].*got \[4, 3\]"),
    ],
)
def test_write_rejects(tmp_path, arguments, error, message):
    with pytest.raises(error, match="flow.write: .*" + message):
        pf.write(tmp_path / arguments[0], *arguments[1:])
    assert not list(tmp_path.iterdir())


# --- public data --------------------------------------------------------------------------------------


@pytest.mark.parametrize("scene", ["RubberWhale", "Grove2", "Urban2", "Venus"])
def test_middlebury(real_data, tmp_path, scene):
    path = real_data / "flow" / "middlebury" / scene / "flow10.flo"
    flow, valid = pf.read(path)
    raw = cv2.readOpticalFlow(str(path))
    known = (np.abs(raw) < 1e9).all(-1)
    assert np.array_equal(valid.numpy(), known)
    assert np.array_equal(flow.permute(1, 2, 0).numpy(), np.where(known[..., None], raw, 0))
    if scene == "RubberWhale":
        assert 0 < (~valid).sum() < valid.numel() / 10
    assert flow.abs().max() < 60
    pf.write(tmp_path / "a.png", flow, valid)
    coarse, coarse_valid = pf.read(tmp_path / "a.png")
    assert torch.equal(coarse_valid, valid)
    assert (coarse - flow).abs().max() <= 1 / 128


def test_other_writers_files(real_data):
    assert pf.read(real_data / "flow/flyingchairs/0000000-gt.flo").flow.shape == (2, 384, 512)
    assert pf.read(real_data / "flow/mmflow_tiny/00001_flow.flo").flow.shape == (2, 50, 50)
    assert pf.read(real_data / "flow/opencv_tvl1/tvl1_flow_opencv3plus.flo").valid.all()
