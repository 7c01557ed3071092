import json

import pytest

from pyaction.data.annotations import (
    Annotation,
    AnnotationList,
    read_hmdb51,
    read_kinetics,
    read_something_v1,
    read_something_v2,
    read_ucf101,
)

KINETICS = "label,youtube_id,time_start,time_end,split,is_cc"
HMDB51_ODD = "Abschieds-winken_!!!!!!_[Gruß]_(#1)&;@~+_wave_u_cm_np1_fr_bad_0.avi"


def write(folder, **files):
    """`a_csv="text"` becomes a.csv."""
    for name, text in files.items():
        stem, _, suffix = name.rpartition("_")
        data = text.encode() if isinstance(text, str) else text
        (folder / f"{stem}.{suffix}").write_bytes(data)
    return folder


def write_ucf101(folder, classes="1 Archery\r\n2 Biking\r\n", train="", test=""):
    return write(folder, classInd_txt=classes, trainlist02_txt=train, testlist02_txt=test)


def as_tuples(result):
    return [(item.path, item.label) for item in result.items]


# --- UCF101 -------------------------------------------------------------------------------------------


def test_ucf101(tmp_path):
    train = "Biking/v_Biking_g08_c01.avi 2\r\nArchery/v_Archery_g09_c01.avi 1\r\n\r\n"
    write_ucf101(tmp_path, train=train, test="Biking/v_Biking_g01_c02.avi\r\n")
    result = read_ucf101(tmp_path, 2, "train")
    assert result.class_names == ("Archery", "Biking")
    assert result.items == (
        Annotation("Biking/v_Biking_g08_c01.avi", 1),
        Annotation("Archery/v_Archery_g09_c01.avi", 0),
    )
    assert as_tuples(read_ucf101(tmp_path, 2, "test")) == [("Biking/v_Biking_g01_c02.avi", 1)]


def test_ucf101_ids_make_the_order(tmp_path):
    write_ucf101(tmp_path, "2 Archery\n1 Biking\n", test="Archery/a.avi\n")
    result = read_ucf101(tmp_path, 2, "test")
    assert result == AnnotationList((Annotation("Archery/a.avi", 1),), ("Biking", "Archery"))


@pytest.mark.parametrize(
    ("classes", "train", "message"),
    [
        ("1 A\n2 B\n", "A/a.avi 1\nC/c.avi 3\n", r"trainlist02.txt:2: 'C' is none of the 2 classes"),
        ("1 A\n2 B\n", "A/a.avi 1\n\nA/b.avi 2\n", r"trainlist02.txt:3: class 'A' is 1 in classInd.txt; got 2"),
        ("1 A\n2 B\n", "A/a.avi\n", r"trainlist02.txt:1: expected 'class/video id'; got 'A/a.avi'"),
        ("1 A\n2 B\n", "A/a b.avi 1\n", r"trainlist02.txt:1: expected 'class/video id'"),
        ("1 A\n2 B\n", "a.avi 1\n", r"trainlist02.txt:1: expected class/video; got 'a.avi'"),
        ("1 A\n2 B\n", "A/a.avi 1\nA/a.avi 1\n", r"trainlist02.txt:2: 'A/a.avi' was there before, at .*:1$"),
        ("1 A\n2 B\n", "A/a.avi one\n", r"trainlist02.txt:1: id must be a whole number; got 'one'"),
        ("1 A\n2 B\n", "A/a.avi 1\rA/b.avi 1\n", r"trainlist02.txt:1: .* control character '\\r'"),
        ("1 A\n2 B\n", " \r\n", r"trainlist02.txt is empty"),
        ("1 A\n3 B\n", "A/a.avi 1\n", r"classInd.txt: expected 2 classes numbered from 1; 2 is missing"),
        ("0 A\n1 B\n", "A/a.avi 1\n", r"classInd.txt: expected 2 classes numbered from 1; 2 is missing"),
        ("1 A\n1 B\n", "A/a.avi 1\n", r"classInd.txt:2: class 1 'B' was there before"),
        ("1 A\n2 A\n", "A/a.avi 1\n", r"classInd.txt:2: class 2 'A' was there before"),
        ("A\n", "A/a.avi 1\n", r"classInd.txt:1: expected 'id class'; got 'A'"),
        ("1 A\n", b"A/a.avi 1\nA/\xff.avi 1\n", r"trainlist02.txt:2: expected UTF-8 text; got the byte 0xff"),
    ],
)
def test_ucf101_rejects(tmp_path, classes, train, message):
    with pytest.raises(ValueError, match=message):
        read_ucf101(write_ucf101(tmp_path, classes, train), 2, "train")


def test_ucf101_rejects_arguments(tmp_path):
    with pytest.raises(ValueError, match="split must be 1, 2 or 3; got 4"):
        read_ucf101(tmp_path, 4, "train")
    with pytest.raises(ValueError, match="subset must be 'train' or 'test'; got 'val'"):
        read_ucf101(tmp_path, 1, "val")
    with pytest.raises(ValueError, match=r"classInd.txt cannot be read: No such file or directory"):
        read_ucf101(tmp_path, 1, "train")


def test_ucf101_real(real_data):
    train, test = (read_ucf101(real_data / "annotations/ucf101", 1, subset) for subset in ("train", "test"))
    assert (len(train.items), len(test.items), len(train.class_names)) == (9537, 3783, 101)
    assert {item.label for item in test.items} == set(range(101))
    assert test.items[0] == Annotation("ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c01.avi", 0)
    # The class is the folder's, whose spelling the file's name does not share.
    label = train.class_names.index("HandstandPushups")
    assert Annotation("HandstandPushups/v_HandStandPushups_g08_c01.avi", label) in train.items


# --- HMDB51 -------------------------------------------------------------------------------------------


def write_hmdb51(folder):
    return write(
        folder,
        climb_stairs_test_split3_txt="s1.avi 1 \ns2.avi 2 \n",
        climb_test_split3_txt="c0.avi 0 \nc1.avi 1 \n",
        wave_test_split3_txt=f"{HMDB51_ODD} 2 \nw1.avi 1 \nw0.avi 0 \n",
        readme_txt="not a list",
    )


def test_hmdb51(tmp_path):
    write_hmdb51(tmp_path)
    (tmp_path / "._wave_test_split3.txt").write_bytes(b"\xff")  # as macOS leaves them
    train = read_hmdb51(tmp_path, 3, "train")
    # Sorted as classes; as files climb_stairs_ would come first.
    assert train.class_names == ("climb", "climb_stairs", "wave")
    assert as_tuples(train) == [("climb/c1.avi", 0), ("climb_stairs/s1.avi", 1), ("wave/w1.avi", 2)]
    assert as_tuples(read_hmdb51(tmp_path, 3, "test")) == [("climb_stairs/s2.avi", 1), (f"wave/{HMDB51_ODD}", 2)]


def test_hmdb51_unused(tmp_path):
    result = read_hmdb51(write_hmdb51(tmp_path), 3, "train", include_unused=True)
    assert [path for path, _ in as_tuples(result)] == [
        "climb/c0.avi", "climb/c1.avi", "climb_stairs/s1.avi", "wave/w1.avi", "wave/w0.avi"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("wave", "message"),
    [
        ("a.avi 3 \n", r"wave_test_split3.txt:1: expected a file name and 0, 1 or 2; got 'a.avi 3'"),
        ("a.avi 1 \nwave/a.avi 1\n", r"wave_test_split3.txt:2: expected a file name"),
        ("a.avi\n", r"wave_test_split3.txt:1: expected 'file id'; got 'a.avi'"),
        ("a.avi 1\nb.avi 0\na.avi 2\n", r"wave_test_split3.txt:3: 'wave/a.avi' was there before, at .*:1$"),
        ("", r"wave_test_split3.txt is empty"),
    ],
)
def test_hmdb51_rejects(tmp_path, wave, message):
    with pytest.raises(ValueError, match=message):
        read_hmdb51(write(write_hmdb51(tmp_path), wave_test_split3_txt=wave), 3, "train")


def test_hmdb51_rejects_missing_files(tmp_path):
    with pytest.raises(ValueError, match=r"holds no file <class>_test_split3.txt"):
        read_hmdb51(tmp_path, 3, "train")
    # Without this file all later classes would have other labels than in split 2.
    write(write_hmdb51(tmp_path), catch_test_split2_txt="a.avi 1\n")
    with pytest.raises(ValueError, match=r"catch_test_split3.txt cannot be read: No such file"):
        read_hmdb51(tmp_path, 3, "train")
    with pytest.raises(ValueError, match=r"none cannot be listed: No such file"):
        read_hmdb51(tmp_path / "none", 3, "train")


def test_hmdb51_real(real_data):
    folder = real_data / "annotations/hmdb51"
    train, test = (read_hmdb51(folder, 1, subset) for subset in ("train", "test"))
    assert (len(train.items), len(test.items), len(train.class_names)) == (3570, 1530, 51)
    assert len(read_hmdb51(folder, 1, "train", include_unused=True).items) == 3570 + 1666
    for label in range(51):
        assert sum(item.label == label for item in train.items) == 70
        assert sum(item.label == label for item in test.items) == 30
    label = train.class_names.index("wave")
    assert Annotation("wave/RATRACE_wave_f_nm_np1_fr_goo_37.avi", label) in train.items


# --- Kinetics -----------------------------------------------------------------------------------------


def test_kinetics(tmp_path):
    text = f'{KINETICS}\n"tap dancing",-bRBEz2s_-4,104,114,val,0\n"hurling (sport)",abcdefghijk,0,10,val,1\n'
    write(tmp_path, val_csv=text)
    result = read_kinetics(tmp_path / "val.csv")
    assert result.class_names == ("hurling (sport)", "tap dancing")
    assert as_tuples(result) == [
        ("tap_dancing/-bRBEz2s_-4_000104_000114.mp4", 1),
        ("hurling_(sport)/abcdefghijk_000000_000010.mp4", 0),
    ]


def test_kinetics_older_header(tmp_path):
    text = 'video-id,start-time,end-time,label-name\r\nabc,7.5,17.5,"a, or ""b"""\r\n'
    result = read_kinetics(write(tmp_path, a_csv=text) / "a.csv")
    assert result == AnnotationList((Annotation('a,_or_"b"/abc_000007_000017.mp4', 0),), ('a, or "b"',))


@pytest.mark.parametrize(
    "text", ["youtube_id,time_start,time_end,split\nabc,7,17,test\n", f"\ufeff{KINETICS}\n,abc,7,17,test,\n"]
)
def test_kinetics_without_labels(tmp_path, text):
    path = write(tmp_path, test_csv=text) / "test.csv"
    assert read_kinetics(path) == AnnotationList((Annotation("abc_000007_000017.mp4", None),), ())
    assert read_kinetics(path, class_names=["x", "y"]).class_names == ("x", "y")


def test_kinetics_other_files_classes(tmp_path):
    path = write(tmp_path, val_csv=f"{KINETICS}\nyoga,abc,7,17,val,0\n") / "val.csv"
    assert read_kinetics(path, class_names=["archery", "yoga"]).items[0].label == 1
    with pytest.raises(ValueError, match=r"val.csv:2: 'yoga' is none of the 2 classes"):
        read_kinetics(path, class_names=["archery", "zumba"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a/b.mp4 3\n", "a.csv:1: expected a header with youtube_id,.* or video-id,.*; got 'a/b.mp4 3'"),
        ("class,youtube_id,time_start,time_end\na,abc,1,2\n", "a.csv:1: expected a header with .*; got 'class,"),
        (f"{KINETICS}\na,abc,1,2,val\n", "a.csv:2: expected 6 fields, label,.*; got 5"),
        (f"{KINETICS}\na,b,abc,1,2,val,0\n", "a.csv:2: expected 6 fields, label,.*; got 7"),
        (
            f"{KINETICS}\n\na,#NAME?,1,2,val,0\n",
            "a.csv:3: expected a YouTube id and two times; got '#NAME[?]', '1', '2'",
        ),
        (f"{KINETICS}\na,abc,-1,2,val,0\n", "a.csv:2: expected a YouTube id and two times; got 'abc', '-1', '2'"),
        (f"{KINETICS}\na,abc,12,2,val,0\n", "a.csv:2: the clip must end after its start; got 12 to 2"),
        (
            f'{KINETICS}\n"a,abc,1,2,val,0\nb,abc,1,2,val,0\n',
            "a.csv:2: expected fields separated by commas; got an err",
        ),
        (f"{KINETICS}\na,abc,1,2,val,0\n,abd,1,2,val,0\n", "a.csv:3: expected labels for all clips or for none; 'abd_"),
        (f"{KINETICS}\na,abc,1,2,val,0\na,abc,1,2.5,val,0\n", "a.csv:3: 'a/abc_000001_000002.mp4' was there before"),
        (
            f"{KINETICS}\na b,abc,1,2,val,0\na_b,abd,1,2,val,0\n",
            "some of the 2 classes are one and the same but for bl",
        ),
        (f"{KINETICS}\n../a,abc,1,2,val,0\n", "a.csv:2: a class that is to name a folder cannot hold '/'; got '../a'"),
        (f"{KINETICS}\n", "a.csv lists no clip"),
        ("", "a.csv is empty"),
    ],
)
def test_kinetics_rejects(tmp_path, text, message):
    with pytest.raises(ValueError, match=message):
        read_kinetics(write(tmp_path, a_csv=text) / "a.csv")


def test_kinetics_real(real_data):
    folder = real_data / "annotations/kinetics400"
    result = read_kinetics(folder / "kinetics-400_val.csv")
    assert (len(result.items), len(result.class_names)) == (19906, 400)
    assert result.items[0] == Annotation("abseiling/0wR5jVB-WPk_000417_000427.mp4", 0)
    # As the label maps that follow names with underscores have it.
    assert list(result.class_names) == sorted(result.class_names, key=lambda name: name.replace(" ", "_"))
    test = read_kinetics(folder / "kinetics-400_test_head400.csv", class_names=result.class_names)
    assert (len(test.items), {item.label for item in test.items}) == (399, {None})
    assert test.items[0].path == "--6bJUbfpnQ_000017_000027.mp4"


# --- Something-Something ------------------------------------------------------------------------------

V2_LABELS = '{\r\n"Holding something":"1",\r\n"Putting something on something":"0"\r\n}\r\n'


def read_v2(folder, listed, labels=V2_LABELS):
    write(folder, list_json=listed if isinstance(listed, str) else json.dumps(listed), labels_json=labels)
    return read_something_v2(folder / "list.json", folder / "labels.json")


def test_something_v2(tmp_path):
    result = read_v2(
        tmp_path,
        [
            {"id": "7", "label": "holding a cup", "template": "Holding [something]", "placeholders": ["a cup"]},
            {"id": "08", "template": "Putting [something] on [something]"},
        ],
    )
    assert result.class_names == ("Putting something on something", "Holding something")
    assert as_tuples(result) == [("7.webm", 1), ("08.webm", 0)]
    assert as_tuples(read_v2(tmp_path, [{"id": "9"}])) == [("9.webm", None)]


@pytest.mark.parametrize(
    ("listed", "labels", "message"),
    [
        (
            [{"id": "7", "template": "Moving [it]"}],
            V2_LABELS,
            "list.json: entry 1: 'Moving it' is none of the 2 classes",
        ),
        ([{"id": "7"}, {"id": "7"}], V2_LABELS, "list.json: entry 2: '7.webm' was there before, at .*entry 1"),
        ([{"id": "../7"}], V2_LABELS, "list.json: entry 1: id must be a whole number; got '../7'"),
        ([{"template": "Holding [something]"}], V2_LABELS, "list.json: entry 1: id must be a whole number; got None"),
        ([{"id": True}], V2_LABELS, "list.json: entry 1: id must be a whole number; got True"),
        ([{"id": "7", "template": 3}], V2_LABELS, "list.json: entry 1: expected an object whose template"),
        (["7"], V2_LABELS, "list.json: entry 1: expected an object"),
        ([{"id": "7"}, {"id": "8", "template": "Holding [something]"}], V2_LABELS, "entry 2: expected labels for all"),
        ([], V2_LABELS, "list.json lists no clip"),
        ({}, V2_LABELS, "list.json: expected a list of objects; got a dict"),
        ('[\n{"id":"7"}\n', V2_LABELS, "list.json:3: expected json; got an error: "),
        ("[" * 200_000, V2_LABELS, "list.json: expected json of a few levels; got too many"),
        ('[{"id": ' + "1" * 5000 + "}]", V2_LABELS, "list.json: "),
        ([{"id": "7"}], '{"a": "0", "b": "2"}', "labels.json: expected 2 classes numbered from 0; 1 is missing"),
        ([{"id": "7"}], '{"a": "0", "b": "0"}', "labels.json: 'b' and 'a' have the same label 0"),
        ([{"id": "7"}], '{"a": "0", "a": "1"}', "labels.json: expected json; .* 2 keys has one of them twice"),
        ([{"id": "7"}], '{"a": "-1"}', "labels.json: label of 'a' must be a whole number; got '-1'"),
        ([{"id": "7"}], "{}", "labels.json holds no class"),
        ([{"id": "7"}], "[]", "labels.json: expected an object of classes and numbers; got a list"),
    ],
)
def test_something_v2_rejects(tmp_path, listed, labels, message):
    with pytest.raises(ValueError, match=message):
        read_v2(tmp_path, listed, labels)


def test_something_v2_real(real_data):
    folder = real_data / "annotations/ssv2"
    paths = (folder / f"something-something-v2-{name}.json" for name in ("validation", "labels"))
    result = read_something_v2(*paths)
    assert (len(result.items), len(result.class_names)) == (24777, 174)
    label = result.class_names.index("Spinning something that quickly stops spinning")
    assert result.items[0] == Annotation("74225.webm", label)
    assert {item.label for item in result.items} == set(range(174))


def read_v1(folder, listed, labels="Turning something\nHolding something\n", **options):
    write(folder, list_csv=listed, labels_csv=labels)
    return read_something_v1(folder / "list.csv", folder / "labels.csv", **options)


def test_something_v1(tmp_path):
    result = read_v1(tmp_path, "100218;Holding something\n007;Turning something\n")
    assert result.class_names == ("Turning something", "Holding something")
    assert as_tuples(result) == [("100218", 1), ("007", 0)]
    result = read_v1(tmp_path, "100218;Holding something\n", class_order="sorted")
    assert result.class_names == ("Holding something", "Turning something")
    assert as_tuples(result) == [("100218", 0)]
    assert as_tuples(read_v1(tmp_path, "42\n43\n")) == [("42", None), ("43", None)]


@pytest.mark.parametrize(
    ("listed", "labels", "message"),
    [
        ("7;A\n8;C\n", "A\nB\n", "list.csv:2: 'C' is none of the 2 classes"),
        ("7;A;B\n", "A\nB\n", "list.csv:1: 'A;B' is none of the 2 classes"),
        ("7;A\n8\n", "A\nB\n", "list.csv:2: expected labels for all clips or for none; '8' differs"),
        ("7;A\n7;B\n", "A\nB\n", "list.csv:2: '7' was there before"),
        ("x;A\n", "A\nB\n", "list.csv:1: id must be a whole number; got 'x'"),
        ("7;A\n", "A\nA\n", "labels.csv:2: class 'A' was there before"),
        ("7;A\n", "", "labels.csv is empty"),
    ],
)
def test_something_v1_rejects(tmp_path, listed, labels, message):
    with pytest.raises(ValueError, match=message):
        read_v1(tmp_path, listed, labels)


def test_something_v1_rejects_order(tmp_path):
    with pytest.raises(ValueError, match="class_order must be 'file' or 'sorted'; got 'random'"):
        read_v1(tmp_path, "7;A\n", "A\n", class_order="random")
