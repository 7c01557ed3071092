import os
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyaction.data.layouts import LAYOUTS as TOOLS
from pyaction.data.layouts import FrameLayout, Pictures

ODD = "Abschieds-winken_!!!_[a-z]*?_(#1)&;@~+{name}%d_wave_u_0"  # glob, format and shell would all stumble

# Templates of frames and of flow, and the axes: as each tool names them. APART: flow in another root.
LAYOUTS = {
    "dense_flow": ("{v}/img_{i:05d}.jpg", "{v}/flow_{a}_{i:05d}.jpg", "xy"),
    "dense_flow_png": ("{v}/img_{i:05d}.png", "{v}/flow_{a}_{i:05d}.png", "xy"),
    "mmaction2": ("{v}/img_{i:05d}.jpg", "{v}/{a}_{i:05d}.jpg", "xy"),
    "hidden_two_stream": ("{v}/image_{i:04d}.jpg", "{v}/flow_{a}_{i:04d}.jpg", "xy"),
    "twostreamfusion": ("jpegs_256/{v}/frame{i:06d}.jpg", "tvl1_flow/{a}/{v}/frame{i:06d}.jpg", "uv"),
    "twostreamfusion_one_folder": ("jpegs_256/{v}/frame{i:06d}.jpg", "{a}/{v}/frame{i:06d}.jpg", "uv"),
    "mars": ("{v}/{i:05d}.jpg", "{v}/TVL1jpg_{a}_{i:05d}.jpg", "xy"),
    "i3d": ("{v}/{n}-{i:06d}.jpg", "{v}/{n}-{i:06d}{a}.jpg", "xy"),
    "resnets_3d": ("{v}/image_{i:05d}.jpg", None, ""),
    "flow_alone": (None, "{v}/flow_{a}_{i:05d}.jpg", "xy"),
    "flow_alone_uv": (None, "{a}/{v}/frame{i:06d}.jpg", "uv"),
    "no_padding": ("{v}/img_{i}.jpeg", "{v}/flow_{a}_{i}.jpeg", "xy"),
}
APART = {
    "tsm_v2": ("{v}/{i:06d}.jpg", "{v}/{i:06d}.jpg", ""),
    "tsm_v1": ("{v}/{i:05d}.jpg", "{d:06d}/{d:06d}-{a}_{i:05d}.jpg", "xy"),
    "img_and_split": ("{v}/img_{i:05d}.jpg", "{v}/flow_{a}_{i:05d}.jpg", "xy"),
    "uv": ("{v}/frame{i:06d}.jpg", "{a}/{v}/frame{i:06d}.jpg", "uv"),
}


def named(template, video, number, axis=""):
    name = video.rpartition("/")[2]
    return template.format(v=video, n=name, d=int(name) if name.isdecimal() else 0, i=number, a=axis)


def fill(root, template, axes, video, count, start):
    """Makes the pictures, empty; gives their paths: for each number one, or one of each axis."""
    wanted = []
    for number in range(start, start + count):
        wanted.append(tuple(root / named(template, video, number, axis) for axis in axes or [""]))
        for path in wanted[-1]:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    return wanted


def touch(folder, *names):
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).touch()


def check(layout, path, frames, flows):
    """Every picture of a video is found."""
    clip = layout.open(path)
    assert (clip.num_frames, clip.num_flows) == (len(frames), len(flows))
    assert [(clip.frame_path(i),) for i in range(clip.num_frames)] == frames
    assert [clip.flow_paths(i) for i in range(clip.num_flows)] == flows
    for index in (-1, len(frames)):
        with pytest.raises(IndexError, match=f"has {len(frames)} frames, counted from 0; got {index}"):
            clip.frame_path(index)
    for index in (-1, len(flows)):
        with pytest.raises(IndexError, match=f"has {len(flows)} flows, counted from 0; got {index}"):
            clip.flow_paths(index)


@pytest.mark.parametrize("fewer_flows", [0, 1])
@pytest.mark.parametrize("start", [0, 1])
@pytest.mark.parametrize("class_folder", ["", "wave [x]/"])
@pytest.mark.parametrize("name", LAYOUTS)
def test_layouts(tmp_path, name, class_folder, start, fewer_flows):
    frames, flow, axes = LAYOUTS[name]
    wanted = {}
    for count, video in ((12, ODD), (3, "b")):
        made_frames = fill(tmp_path, frames, "", class_folder + video, count, start) if frames else []
        made_flows = fill(tmp_path, flow, axes, class_folder + video, count - fewer_flows, start) if flow else []
        wanted[video] = made_frames, made_flows
    layout = FrameLayout.detect(tmp_path)
    assert layout.class_folders == bool(class_folder)
    assert layout.flow_step == 1
    for video, (made_frames, made_flows) in wanted.items():
        check(layout, f"{class_folder}{video}", made_frames, made_flows)
        check(layout, f"/elsewhere/{class_folder}{video}.avi", made_frames, made_flows)
        check(layout, f"{class_folder or 'unused/'}{video}.MP4", made_frames, made_flows)
        check(layout, f"{class_folder}{video}.mts", made_frames, made_flows)


@pytest.mark.parametrize("start", [0, 1])
@pytest.mark.parametrize("name", APART)
def test_flow_apart(tmp_path, name, start):
    frames, flow, axes = APART[name]
    wanted = {
        video: (
            fill(tmp_path / "rgb", frames, "", video, count, 1),
            fill(tmp_path / "flow", flow, axes, video, count - 1, start),
        )
        for video, count in (("100218", 12), ("7", 5))
    }
    layout = FrameLayout.detect(tmp_path / "rgb", flow_root=tmp_path / "flow")
    for video, (made_frames, made_flows) in wanted.items():
        check(layout, f"{video}.webm", made_frames, made_flows)


@pytest.mark.parametrize("start", [0, 1])
@pytest.mark.parametrize(("sign", "step", "first", "count"), [("p", 3, 0, 6), ("p", 3, 0, 9), ("m", -3, 3, 6)])
def test_steps(tmp_path, sign, step, first, count, start):
    frames = fill(tmp_path, "{v}/img_{i:05d}.jpg", "", "a", 9, start)
    flows = fill(tmp_path, f"{{v}}/flow_{{a}}_{sign}3_{{i:05d}}.jpg", "xy", "a", count, start + first)
    layout = FrameLayout.detect(tmp_path)
    assert layout.flow_step == step
    check(layout, "a", frames, flows)
    flows[0][1].unlink()
    with pytest.raises(ValueError, match=rf"flow_y_{sign}3_0000{start + first}.jpg is missing"):
        layout.open("a")


@pytest.mark.parametrize("class_folder", ["", "wave/"])
@pytest.mark.parametrize("name", TOOLS)
def test_named_layouts_are_found(tmp_path, name, class_folder):
    """What is written in a layout that was asked for by name is read without naming it."""
    layout = FrameLayout.named(name, tmp_path)
    wanted = {}
    for count, video in ((12, "0000421"), (3, "17")):
        wanted[video] = tuple(
            [
                tuple(pictures.path(class_folder + video, number, axis) for axis in pictures.axes or [""])
                for number in range(1, count + 1 if pictures else 1)
            ]
            for pictures in (layout.frames, layout.flow)
        )
        paths = [path for kind in wanted[video] for paths in kind for path in paths]
        assert set(layout.folders(class_folder + video)) == {path.parent for path in paths}
        for path in paths:
            touch(path.parent, path.name)
    touch(tmp_path, ".lock", "pyaction.json", "finished.jsonl")
    touch(tmp_path / ".partial-1" / "a", "img_00001.jpg")
    found = FrameLayout.detect(tmp_path)
    assert found == replace(layout, class_folders=bool(class_folder))
    for video, (frames, flows) in wanted.items():
        check(found, f"{class_folder}{video}.webm", frames, flows)


@pytest.mark.parametrize("class_folder", ["", "wave/"])
@pytest.mark.parametrize("content", ["frames", "flow"])
@pytest.mark.parametrize("name", ["tsm_v1", "tsm_v2"])
def test_named_layouts_of_one_content(tmp_path, name, content, class_folder):
    frames, flow, axes = APART[name]
    template, axes = {"frames": (frames, ""), "flow": (flow, axes)}[content]
    wanted = fill(tmp_path / content, template, axes, f"{class_folder}000421", 4, 1)
    kinds = (wanted, []) if content == "frames" else ([], wanted)
    check(FrameLayout.detect(tmp_path), f"{class_folder}000421.webm", *kinds)


def test_folders_of_videos_called_frames_and_flow(tmp_path):
    wanted = {video: fill(tmp_path, "{v}/img_{i:05d}.jpg", "", video, 3, 1) for video in ("flow", "frames")}
    for video, frames in wanted.items():
        check(FrameLayout.detect(tmp_path), video, frames, [])


def test_named_rejects(tmp_path):
    with pytest.raises(ValueError, match=r"layout must be one of dense_flow, mmaction2, .*; got 'tsn'"):
        FrameLayout.named("tsn", tmp_path)


def test_real_frames(real_data, tmp_path):
    (tmp_path / "video").symlink_to(real_data / "mmaction2_rawframes")
    layout = FrameLayout.detect(tmp_path)
    clip = layout.open("video")
    assert (clip.num_frames, clip.num_flows) == (5, 5)
    assert clip.frame_path(0).name == "img_00001.jpg" and clip.frame_path(0).stat().st_size > 0
    assert [path.name for path in clip.flow_paths(4)] == ["x_00005.jpg", "y_00005.jpg"]


def test_what_else_lies_there(tmp_path):
    touch(tmp_path / ".done" / "a", "img_00001.jpg")
    touch(tmp_path / "a", "thumbs.db", "notes1.txt", "done")  # a video of which nothing was extracted
    frames = fill(tmp_path, "{v}/img_{i:05d}.jpg", "", "b", 4, 1)
    touch(tmp_path / "b", "done", "n_frames", "cover.jpg", "flow_x.zip", "img_00005.jpg.tmp", ".img_00005.jpg")
    touch(tmp_path, "list.txt", "00001.jpg")
    layout = FrameLayout.detect(tmp_path)
    assert not layout.class_folders
    check(layout, "b", frames, [])


def test_letters_as_classes(tmp_path):
    frames = fill(tmp_path, "{v}/frame{i:06d}.jpg", "", "u/a", 4, 1)
    touch(tmp_path / "v" / "b", "frame000001.jpg")
    layout = FrameLayout.detect(tmp_path)
    assert layout.class_folders
    check(layout, "u/a", frames, [])


def test_long_video(tmp_path):
    """More frames than the number has digits for."""
    frames = fill(tmp_path, "{v}/{i:01d}.jpg", "", "a", 123, 1)
    check(FrameLayout.detect(tmp_path), "a", frames, [])


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["a.jpg", "b.txt"], r"must hold folders of numbered pictures .*; found .*video: 'a.jpg', 'b.txt'$"),
        ([f"{c}.jpg" for c in "abcdef"], r"found .*video: 'a.jpg', 'b.jpg', 'c.jpg', 'd.jpg' and 2 more$"),
        ([], r"found .*video: nothing$"),
        (["other-00001.jpg"], r"found .*video: 'other-00001.jpg'$"),
        (["flow_x.zip", "flow_y.zip", "img.zip"], r"found .*video: 'flow_x.zip', 'flow_y.zip', 'img.zip'$"),
        (["img_00001.jpg", "image_00001.jpg"], r"found \{video\}/image_%05d.jpg, \{video\}/img_%05d.jpg$"),
        (["img_00001.jpg", "img_00001.png"], r"one kind of .*; found \{video\}/img_%05d.jpg, \{video\}/img_%05d.png$"),
        (["x_00001.jpg", "flow_x_00001.jpg"], r"found \{video\}/flow_\{axis\}_%05d.jpg, \{video\}/\{axis\}_%05d.jpg$"),
        (["flow_x_p2_00001.jpg", "flow_y_m2_00001.jpg"], r"found .*_m2_%05d.jpg, .*_p2_%05d.jpg$"),
    ],
)
def test_detect_rejects(tmp_path, names, message):
    touch(tmp_path / "video", *names)
    with pytest.raises(ValueError, match=message):
        FrameLayout.detect(tmp_path)


def test_detect_rejects_roots(tmp_path):
    with pytest.raises(ValueError, match=r"none cannot be listed: No such file or directory"):
        FrameLayout.detect(tmp_path / "none")
    with pytest.raises(ValueError, match=r"must hold folders of numbered pictures .*; found .*: nothing$"):
        FrameLayout.detect(tmp_path)
    fill(tmp_path / "rgb", "{v}/img_{i:05d}.jpg", "", "a", 3, 1)
    fill(tmp_path / "flow_x", "{v}/flow_{a}_{i:05d}.jpg", "xy", "a", 3, 1)
    with pytest.raises(ValueError, match=r"a must hold folders of numbered pictures .*; found .*a: 'img_00001.jpg', "):
        FrameLayout.detect(tmp_path / "rgb" / "a")  # one video's folder
    with pytest.raises(ValueError, match=r"rgb must hold flow; found frames alone"):
        FrameLayout.detect(tmp_path / "rgb", flow_root=tmp_path / "rgb")
    with pytest.raises(ValueError, match=r"rgb must hold folders of numbered pictures .*; found .*a: 'img_00001.jpg'"):
        FrameLayout.detect(tmp_path / "flow_x", flow_root=tmp_path / "rgb")
    fill(tmp_path / "flow", "{v}/{a}_{i:05d}.jpg", "xy", "class/a", 3, 1)
    with pytest.raises(ValueError, match=r"rgb and .*flow must both have folders of classes, or neither"):
        FrameLayout.detect(tmp_path / "rgb", flow_root=tmp_path / "flow")
    with pytest.raises(ValueError, match=r"flow must hold frames if .*flow holds the flow; found flow"):
        FrameLayout.detect(tmp_path / "flow", flow_root=tmp_path / "flow")
    fill(tmp_path / "both", "jpegs_256/{v}/frame{i:06d}.jpg", "", "class/a", 3, 1)
    fill(tmp_path / "both", "tvl1_flow/{a}/{v}/frame{i:06d}.jpg", "uv", "a", 3, 1)
    with pytest.raises(ValueError, match=r"both must have folders of classes for both frames and flow, or for neither"):
        FrameLayout.detect(tmp_path / "both")


@pytest.mark.parametrize(
    ("removed", "message"),
    [
        (["img_00003.jpg", "img_00005.jpg"], r"b/img_00003.jpg is missing, the numbers go up to 9$"),
        (["img_00001.jpg"], r"b/img_00001.jpg is missing, the numbers go up to 9$"),
        (["flow_y_00007.jpg"], r"b/flow_y_00007.jpg is missing, the numbers go up to 8$"),
        (["flow_y_00008.jpg"], r"b/flow_y_00008.jpg is missing: there are 8 pictures of the other axis$"),
        ([f"flow_y_{i:05d}.jpg" for i in range(1, 9)], r"b must hold pictures named .*/flow_\{axis\}_%05d.jpg; found"),
        ([f"img_{i:05d}.jpg" for i in range(1, 10)], r"b must hold pictures named .*/img_%05d.jpg; found 'flow_x_"),
        (["img_00009.jpg"], None),
        (["img_00009.jpg", "img_00008.jpg"], r"b must hold as many flows as frames, or 1 fewer; got 7 .* 8 flows"),
        ([f"flow_{a}_00008.jpg" for a in "xy"], r"b must hold as many flows as frames, or 1 fewer; got 9 .* 7 flows"),
    ],
)  # fmt: skip
def test_open_rejects_gaps(tmp_path, removed, message):
    for video in "ab":
        fill(tmp_path, "{v}/img_{i:05d}.jpg", "", video, 9, 1)
        fill(tmp_path, "{v}/flow_{a}_{i:05d}.jpg", "xy", video, 8, 1)
    layout = FrameLayout.detect(tmp_path)
    for name in removed:
        (tmp_path / "b" / name).unlink()
    if message is None:
        assert layout.open("b").num_frames == layout.open("b").num_flows == 8
        return
    with pytest.raises(ValueError, match=message):
        layout.open("b")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("img_00000.jpg", r"b/img_00000.jpg is numbered unlike \{video\}/img_%05d.jpg from 1"),
        ("img_002.jpg", r"b/img_002.jpg is numbered unlike"),
        ("img_000002.jpg", r"b/img_000002.jpg is numbered unlike"),
        ("img_99999999999999999999999.jpg", r"b/img_00004.jpg is missing, the numbers go up to 9999"),
    ],
)
def test_open_rejects_numbers(tmp_path, name, message):
    for video in "ab":
        fill(tmp_path, "{v}/img_{i:05d}.jpg", "", video, 3, 1)
    touch(tmp_path / "b", name)
    with pytest.raises(ValueError, match=message):
        FrameLayout.detect(tmp_path).open("b")


def test_open_rejects_videos(tmp_path):
    fill(tmp_path, "{v}/{i:05d}.jpg", "", "000042", 3, 1)
    fill(tmp_path / "flow", "{d:06d}/{d:06d}-{a}_{i:05d}.jpg", "xy", "000042", 3, 1)
    layout = FrameLayout.detect(tmp_path, flow_root=tmp_path / "flow")
    with pytest.raises(ValueError, match=r"none cannot be listed: No such file or directory"):
        layout.open("none")
    with pytest.raises(
        ValueError, match=r"video must be a number for \{id:06d\}/\{id:06d\}-\{axis\}_%05d.jpg; got 'a'"
    ):
        replace(layout, frames=None).open("a")


def test_layout_written_out(tmp_path):
    frames = fill(tmp_path, "{v}/rgb/f{i:03d}.webp", "", "a", 3, 0)
    layout = FrameLayout(Pictures(tmp_path, "{video}/rgb/f{index:03d}.webp", 0), None)
    check(layout, "a", frames, [])


@pytest.mark.parametrize(
    ("template", "start", "axes", "message"),
    [
        ("{video}/img_%05d.jpg", 1, (), r"template must be like '\{video\}/img_\{index:05d\}.jpg'; got "),
        ("img_{index:05d}.jpg", 1, (), r"template must be like "),
        ("{video}/{index:05d}_{index:05d}.jpg", 1, (), r"template must be like "),
        ("{video}/{axis}_{index:05d}.jpg", 1, (), r"must hold \{axis\} where there are two; got axes \(\)"),
        ("{video}/{index:05d}.jpg", 1, ("x", "y"), r"must hold \{axis\} where there are two"),
        ("{video}/{other}_{index:05d}.jpg", 1, (), r"holds what cannot be filled in: 'other'"),
        ("{video}/{index:05d}.jpg", -1, (), r"start must not be less than 0; got -1"),
    ],
)
def test_pictures_rejects(template, start, axes, message):
    with pytest.raises(ValueError, match=message):
        Pictures(Path("."), template, start, axes)


# --- any names ----------------------------------------------------------------------------------------

NAMES = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="/\0"), min_size=1, max_size=40).filter(
    lambda name: name not in (".", "..") and len(name.encode()) <= 200
)
VIDEOS = NAMES.filter(
    lambda name: not name.startswith(".") and name not in ("u", "v", "jpegs_256", "tvl1_flow") and "." not in name
)


@settings(deadline=None)  # files
@given(
    name=st.sampled_from(sorted(LAYOUTS)),
    videos=st.lists(VIDEOS, min_size=1, max_size=3, unique_by=str.casefold),
    class_folder=st.just("") | VIDEOS.map(lambda name: name + "/"),
    count=st.integers(2, 12),
    start=st.integers(0, 1),
)
def test_any_video_name(tmp_path_factory, name, videos, class_folder, count, start):
    root = tmp_path_factory.mktemp("root")
    frames, flow, axes = LAYOUTS[name]
    wanted = [
        (
            fill(root, frames, "", class_folder + video, count, start) if frames else [],
            fill(root, flow, axes, class_folder + video, count - 1, start) if flow else [],
        )
        for video in videos
    ]
    layout = FrameLayout.detect(root)
    for video, (made_frames, made_flows) in zip(videos, wanted, strict=True):
        check(layout, class_folder + video, made_frames, made_flows)


# Of what the layouts' names are made of: most folders of such names are a layout with something wrong.
NEARLY = st.builds(
    "{}{}{}".format,
    st.sampled_from(["", "img_", "image_", "frame", "flow_x_", "flow_y_", "x_", "y_", "a-", "flow_x_p2_", "flow_y_p2_",
                     "TVL1jpg_x_", "000042-x_", "000042-y_", "{video}", "img_*"]),
    st.sampled_from(["0", "1", "2", "00000", "00001", "00002", "00003", "000001", "9" * 40, "\u0661", ""]),
    st.sampled_from([".jpg", ".png", ".JPG", "x.jpg", "y.jpg", ".txt", ""]),
).filter(bool)  # fmt: skip


@settings(deadline=None)  # files
@given(
    contents=st.dictionaries(
        st.sampled_from(["a", "b", "000042", "u/a", "v/a", "jpegs_256/a", "tvl1_flow/u/a", "tvl1_flow/v/a", ".done/a"])
        | VIDEOS,
        st.sets(NEARLY | NAMES.filter(lambda name: name not in "uva"), max_size=8),
        max_size=4,
    ),
    apart=st.booleans(),
)
def test_any_files(tmp_path_factory, contents, apart):
    root = tmp_path_factory.mktemp("root")
    for folder, names in contents.items():
        touch(root / folder, *names)
    try:
        layout = FrameLayout.detect(root, flow_root=root if apart else None)
    except ValueError as error:
        assert str(root) in str(error)
        return
    for folder in contents:
        try:
            clip = layout.open(folder)
        except ValueError:
            continue
        paths = [clip.frame_path(i) for i in range(clip.num_frames)]
        paths += [path for i in range(clip.num_flows) for path in clip.flow_paths(i)]
        assert paths and len(set(paths)) == len(paths)
        assert all(os.path.isfile(path) for path in paths)
