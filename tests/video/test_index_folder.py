"""What is kept of a video from one visit to the next saves time, and changes nothing else."""

import multiprocessing
import os
import shutil

import pytest
import torch
from video.numbered_video import COUNT, HEIGHT, WIDTH, number_in
from video.test_reader_errors import packet_positions

from pyaction import video
from pyaction.video.decoding_pass import DecodingPass
from pyaction.video.index_file import IndexFile
from pyaction.video.pyav_reader import DECODER


@pytest.fixture
def index_folder(tmp_path):
    folder = tmp_path / "indexes"
    folder.mkdir()
    return folder


@pytest.fixture
def decoded(monkeypatch):
    """A list with an entry for every frame that is decoded."""
    entries = []
    decode = DecodingPass._decode

    def counting(self):
        for frame in decode(self):
            entries.append(frame.pts)
            yield frame

    monkeypatch.setattr(DecodingPass, "_decode", counting)
    return entries


def visit(path, index_folder, **options):
    with video.open(path, index_folder=index_folder, **options) as reader:
        return len(reader), reader.timestamps, reader.size, reader.fps


def only_file(folder):
    (file,) = folder.iterdir()
    return file


def test_the_second_visit_decodes_nothing_to_count(path, index_folder, decoded):
    first = visit(path, index_folder)
    assert len(decoded) == COUNT
    second = visit(path, index_folder)
    assert len(decoded) == COUNT
    assert second[0] == first[0] == COUNT
    assert torch.equal(second[1], first[1])
    assert second[2:] == first[2:] == ((HEIGHT, WIDTH), 25)
    assert visit(path, index_folder, short_side=32, color="gray")[2] == (32, 48)
    assert len(decoded) == COUNT


def test_frames_are_exact_with_an_index(path, index_folder):
    every = torch.stack(list(video.open(path)))
    visit(path, index_folder)
    generator = torch.Generator().manual_seed(11)
    with video.open(path, index_folder=index_folder) as reader:
        for number in torch.randperm(COUNT, generator=generator).tolist():
            assert torch.equal(reader.frames([number])[0], every[number]), number
        clips = torch.randint(-COUNT, COUNT, (3, 7), generator=generator)
        assert torch.equal(reader.clips(clips), every[clips])
    with video.open(path, index_folder=index_folder) as reader:
        assert torch.equal(reader.frames(), every)
        assert torch.equal(torch.stack(list(reader)), every)


def test_frames_are_decoded_from_the_nearest_keyframe(folder, index_folder, decoded):
    visit(folder / "mpeg4.avi", index_folder)  # a keyframe every 12 frames
    decoded.clear()
    with video.open(folder / "mpeg4.avi", index_folder=index_folder) as reader:
        assert [number_in(frame) for frame in reader.frames([38, 13])] == [38, 13]
    assert len(decoded) == 2 + 3  # 12, 13 and 36, 37, 38


@pytest.mark.parametrize("name", ["h264_b_frames.mp4", "h264_open_gop.mkv"])
def test_unwanted_frames_that_none_refers_to_are_left_out(folder, index_folder, decoded, name):
    visit(folder / name, index_folder)
    decoded.clear()
    with video.open(folder / name, index_folder=index_folder) as reader:
        assert [number_in(frame) for frame in reader.frames([35, 29])] == [35, 29]
        assert reader._seeking_is_exact
        assert 2 < len(decoded) <= 8  # of the 12 from frame 24 on
        # And what was left out comes when it is wanted.
        for number in (27, 28, 30, 31, 32, 33, 34):
            assert number_in(reader.frames([number])[0]) == number
        assert reader._seeking_is_exact


def test_frames_one_by_one_are_decoded_once(folder, index_folder, decoded):
    visit(folder / "h264_b_frames.mp4", index_folder)
    decoded.clear()
    with video.open(folder / "h264_b_frames.mp4", index_folder=index_folder) as reader:
        assert [number_in(reader.frames([number])[0]) for number in range(COUNT)] == list(range(COUNT))
    assert len(decoded) == COUNT


def test_iterating_makes_an_index_too(folder, index_folder, decoded):
    with video.open(folder / "vp9.webm", index_folder=index_folder) as reader:
        next(iter(reader))
        assert list(index_folder.iterdir()) == []
        assert len(list(reader)) == COUNT
    decoded.clear()
    assert visit(folder / "vp9.webm", index_folder)[0] == COUNT
    assert decoded == []


def test_equal_names_in_different_folders(folder, tmp_path, index_folder):
    for place, name in (("one", "mpeg4.avi"), ("other", "mjpeg.avi")):
        (tmp_path / place).mkdir()
        shutil.copy(folder / name, tmp_path / place / "v.avi")
        visit(tmp_path / place / "v.avi", index_folder)
    assert len(list(index_folder.iterdir())) == 2


def test_a_path_may_be_relative(folder, index_folder, monkeypatch, decoded):
    visit(folder / "vp9.webm", index_folder)
    decoded.clear()
    monkeypatch.chdir(folder)
    visit("vp9.webm", os.path.relpath(index_folder, folder))
    assert decoded == []


def test_a_video_that_changed(folder, tmp_path, index_folder):
    path = tmp_path / "v.avi"
    shutil.copy(folder / "mpeg4.avi", path)
    visit(path, index_folder)
    shutil.copy(folder / "mjpeg.avi", path)
    every = torch.stack(list(video.open(path)))
    with video.open(path, index_folder=index_folder) as reader:
        assert torch.equal(reader.frames([30, 2]), every[[30, 2]])


def test_what_an_index_was_made_for(folder, tmp_path, index_folder):
    path = tmp_path / "v.avi"
    shutil.copy(folder / "mpeg4.avi", path)
    visit(path, index_folder)
    assert IndexFile(index_folder, path, DECODER).load() is not None
    assert IndexFile(index_folder, path, "libavcodec 1.2.3").load() is None
    times = path.stat().st_mtime_ns
    os.utime(path, ns=(times, times + 1))
    assert IndexFile(index_folder, path, DECODER).load() is None
    path.write_bytes(path.read_bytes() + b"\0")
    os.utime(path, ns=(times, times))
    assert IndexFile(index_folder, path, DECODER).load() is None


def test_nothing_is_kept_of_a_video_that_changes_meanwhile(folder, tmp_path, index_folder):
    path = tmp_path / "v.avi"
    shutil.copy(folder / "mpeg4.avi", path)
    with video.open(path, index_folder=index_folder) as reader:
        path.write_bytes((folder / "mpeg4.avi").read_bytes())
        assert len(reader) == COUNT
    assert list(index_folder.iterdir()) == []


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "other", "longer", "folder"])
def test_a_damaged_index_is_made_anew(folder, index_folder, decoded, damage):
    path = folder / "mpeg4_b_frames.avi"
    visit(path, index_folder)
    file = only_file(index_folder)
    content = file.read_bytes()
    middle = len(content) // 2
    damaged = {
        "cut": content[:middle],
        "flipped": content[:middle] + bytes([content[middle] ^ 4]) + content[middle + 1 :],
        "empty": b"",
        "other": b"RIFF" * 200,
        "longer": content + b"x",
    }
    if damage == "folder":
        file.unlink()
        file.mkdir()
    else:
        file.write_bytes(damaged[damage])
    for _ in range(2):
        with video.open(path, index_folder=index_folder) as reader:
            assert [number_in(frame) for frame in reader.frames([33, 5])] == [33, 5]
    if damage != "folder":
        assert file.read_bytes() == content
    assert only_file(index_folder) == file  # and nothing half-written beside it


def test_every_flipped_byte_of_an_index_is_noticed(folder, index_folder):
    path = folder / "mpeg4.avi"
    visit(path, index_folder)
    content = only_file(index_folder).read_bytes()
    for position in range(0, len(content), 7):
        flipped = bytes([content[position] ^ 255])
        only_file(index_folder).write_bytes(content[:position] + flipped + content[position + 1 :])
        assert IndexFile(index_folder, path, DECODER).load() is None, position


def test_an_index_that_another_machine_made_is_replaced(folder, index_folder):
    """One that decodes to other pixels, and nothing else tells it apart."""
    path = folder / "h264_b_frames.mp4"
    every = torch.stack(list(video.open(path)))
    visit(path, index_folder)
    content = only_file(index_folder).read_bytes()
    index = IndexFile(index_folder, path, DECODER).load()
    index.fingerprints = [value ^ 1 for value in index.fingerprints]
    IndexFile(index_folder, path, DECODER).save(index)
    assert only_file(index_folder).read_bytes() != content
    with video.open(path, index_folder=index_folder) as reader:
        assert torch.equal(reader.frames([40, 3]), every[[40, 3]])
        assert torch.equal(reader.frames([12]), every[[12]])
    assert only_file(index_folder).read_bytes() == content


def test_many_processes_share_a_folder(folder, index_folder):
    videos = [folder / name for name in ("mpeg4.avi", "mjpeg.avi", "vp9.webm")] * 8
    with multiprocessing.get_context("fork").Pool(4) as pool:
        found = pool.starmap(count_and_pick, [(path, index_folder) for path in videos], chunksize=1)
    assert found == [(COUNT, [17, 4])] * len(videos)
    assert len(list(index_folder.iterdir())) == 3
    assert {file.suffix for file in index_folder.iterdir()} == {".index"}


def count_and_pick(path, index_folder):
    torch.set_num_threads(1)  # after a fork the threads of the parent are gone
    with video.open(path, index_folder=index_folder) as reader:
        return len(reader), [number_in(frame) for frame in reader.frames([17, 4])]


# ---------------------------------------------------------------------- damaged videos


def damage(path):
    content = bytearray(path.read_bytes())
    start = packet_positions(path)[20]
    content[start + 12 : start + 200] = bytes(255 - byte for byte in content[start + 12 : start + 200])
    path.write_bytes(content)


@pytest.mark.parametrize("name", ["h264_b_frames.mp4", "vp9.webm", "mpeg4.avi"])
def test_a_damaged_video_stays_damaged(folder, tmp_path, index_folder, name):
    path = tmp_path / name
    shutil.copy(folder / name, path)
    damage(path)
    with video.open(path, on_error="stop", index_folder=index_folder) as reader:
        assert 10 < len(reader) < 30
    with (
        video.open(path, index_folder=index_folder) as reader,
        pytest.raises(video.VideoError, match="is damaged after"),
    ):
        len(reader)
    assert list(index_folder.iterdir()) == []


def test_a_cut_video_stays_cut(folder, tmp_path, index_folder):
    """FFmpeg reads it without an error."""
    path = tmp_path / "v.webm"
    path.write_bytes((folder / "vp9.webm").read_bytes()[: packet_positions(folder / "vp9.webm")[20] - 20])
    with video.open(path, on_error="stop", index_folder=index_folder) as reader:
        assert len(reader) == 19
    assert only_file(index_folder).exists()
    with pytest.raises(video.VideoError, match="is cut short"):
        video.open(path, index_folder=index_folder)


def test_a_video_that_decays(folder, tmp_path, index_folder):
    """The disk forgets some bytes; name, size and time stay."""
    path = tmp_path / "v.avi"
    shutil.copy(folder / "mpeg4.avi", path)
    visit(path, index_folder)
    times = path.stat().st_mtime_ns
    damage(path)
    os.utime(path, ns=(times, times))
    with video.open(path, index_folder=index_folder) as reader:
        assert number_in(reader.frames([7])[0]) == 7
        with pytest.raises(video.VideoError, match="is damaged after"):
            reader.frames([21, 7])
    with video.open(path, on_error="stop", index_folder=index_folder) as reader:
        assert len(reader) == COUNT  # not yet known better
        with pytest.raises(IndexError, match=r"has 1\d frames|has 2\d frames"):
            reader.frames([21, 7])
        assert len(reader) < 30


def test_no_such_folder(folder, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"^there is no folder .*nowhere for indexes; create it, or leave"):
        video.open(folder / "mpeg4.avi", index_folder=tmp_path / "nowhere")
