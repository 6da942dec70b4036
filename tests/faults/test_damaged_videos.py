"""A thousand damaged videos: each gives true frames or one line that names it; none stops the run."""

import os
import random
from collections import Counter
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from test_video import DECORD, stamped, stamps

from lift.extraction import Mended, WorkItem, decode_items
from lift.video import VideoError, VideoFile, probe_video, read_clip, read_frames, write_video

FRAMES = 40
CHECKED = ("h264.mp4", "groups.mp4", "h264.mkv", "hevc.mp4")  # formats in which zeros are seen
BASES = {
    "h264.mp4": ("libx264", {}),
    "groups.mp4": ("libx264", {"g": "8", "bf": "2"}),
    "h264.mkv": ("libx264", {"g": "16"}),
    "hevc.mp4": ("libx265", {}),
    "h264.ts": ("libx264", {"g": "10"}),
    "mpeg4.avi": ("mpeg4", {}),
    "vp9.webm": ("libvpx-vp9", {}),
}


@pytest.fixture(scope="session")
def bases(tmp_path_factory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("bases")
    return {
        name: write_video(
            folder / name, map(stamped, range(FRAMES)), codec=codec, options=options
        ).read_bytes()
        for name, (codec, options) in BASES.items()
    }


def truncated(data: bytearray, dice: random.Random) -> bytes:
    return data[: dice.randrange(len(data))]


def flipped(data: bytearray, dice: random.Random) -> bytes:
    for _ in range(dice.choice((1, 3, 40))):
        data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)
    return data


def zeroed(data: bytearray, dice: random.Random) -> bytes:
    start, length = dice.randrange(len(data)), dice.choice((20, 200, 2000))
    end = min(start + length, len(data))
    return data[:start] + bytes(end - start) + data[end:]


def overwritten(data: bytearray, dice: random.Random) -> bytes:
    start, length = dice.randrange(len(data)), dice.choice((4, 50, 500))
    end = min(start + length, len(data))
    return data[:start] + dice.randbytes(end - start) + data[end:]


def without_a_piece(data: bytearray, dice: random.Random) -> bytes:
    start = dice.randrange(len(data))
    return data[:start] + data[start + dice.choice((1, 188, 1000)) :]


def with_a_piece_more(data: bytearray, dice: random.Random) -> bytes:
    start = dice.randrange(len(data))
    return data[:start] + dice.randbytes(dice.choice((1, 188, 1000))) + data[start:]


DAMAGES = (truncated, flipped, zeroed, overwritten, without_a_piece, with_a_piece_more)


def damage(folder: Path, bases: dict[str, bytes], number: int, dice: random.Random) -> Path:
    """The damaged video of this number; its name says what it was and what happened to it."""
    name, how = dice.choice(list(BASES)), dice.choice(DAMAGES)
    path = folder / f"{number:04d}-{how.__name__}-{name}"
    path.write_bytes(how(bytearray(bases[name]), dice))
    return path


def as_it_is(frames: torch.Tensor) -> torch.Tensor:
    return frames


def read_all(paths: list[Path], on_damage: str) -> dict[str, np.ndarray | str]:
    """The frames of each video or its error, by processes that may die or hang."""
    items = [WorkItem(str(path), ((path.name, np.nan, np.nan),)) for path in paths]
    stream = decode_items(items, as_it_is, 8, workers=2, timeout=60, on_damage=on_damage)
    found = dict(result for results in stream for result in results)
    return {name: r.frames if isinstance(r, Mended) else r for name, r in found.items()}


@pytest.mark.parametrize(
    "count", [60, pytest.param(1000, marks=pytest.mark.slow_faults)], ids=["few", "many"]
)
def test_damaged_videos_give_true_frames_or_an_error_that_names_them(tmp_path, bases, dice, count):
    paths = [damage(tmp_path, bases, number, dice) for number in range(count)]
    clean = {}
    for name, data in bases.items():
        (tmp_path / name).write_bytes(data)
        clean[name] = {frame.tobytes() for frame in read_frames(tmp_path / name, range(FRAMES))}
    read = {"error": 0, "nearest": 0}
    wrong = Counter()
    for on_damage in read:
        results = read_all(paths, on_damage)
        for path in paths:
            _, how, base = path.name.split("-")
            found = results[path.name]
            if isinstance(found, str):
                assert found.startswith(f"{path}: ") and "\n" not in found, found
                assert "the process that decoded it" not in found, f"a crash or a hang: {found}"
                assert "Traceback" not in found and "Error:" not in found, found
                continue
            read[on_damage] += 1
            false = sum(frame.tobytes() not in clean[base] for frame in found)
            wrong[f"{how} {base}"] += bool(false)
            if how in ("zeroed", "truncated") and base in CHECKED:
                assert not false, f"{path.name}, {on_damage}: {false} frames are no frame of {base}"
    print(
        f"read of {count}: {read}; with a frame that nothing could tell from a true one: {+wrong}"
    )
    assert count / 20 < read["error"] <= read["nearest"], "too few were readable to test anything"


def test_real_clips_with_2000_zeroed_bytes(shared, tmp_path, dice):
    """What is taken is a frame of the whole file, to the last bit; the rest is counted."""
    videos = sorted((shared / "droid").rglob("*.mp4"))
    read, undamaged = {"error": 0, "nearest": 0}, 0
    for number, source in enumerate(dice.sample(videos, 30)):
        data = bytearray(source.read_bytes())
        start = dice.randrange(len(data) - 2000)
        data[start : start + 2000] = bytes(2000)
        path = tmp_path / f"{number}.mp4"
        path.write_bytes(data)
        clean = {
            frame.tobytes() for frame in read_frames(source, range(probe_video(source).frame_count))
        }
        for on_damage in read:
            try:
                with VideoFile(path) as video:
                    clip = video.read_clip(16, on_damage=on_damage)
                    undamaged += 16 - video.replaced if on_damage == "nearest" else 0
            except VideoError as error:
                assert str(error).startswith(f"{path}: ") and "\n" not in str(error)
                continue
            read[on_damage] += 1
            assert all(frame.tobytes() in clean for frame in clip), path
    print(
        f"read of 30: {read}; undamaged of the frames wanted: {undamaged / 16 / read['nearest']:.0%}"
    )
    assert read["nearest"] >= 15 + read["error"] // 2


# files that are odd, not damaged


def mux(path: Path, frames, codec: str = "libx264", pixels: str = "yuv420p", **layout) -> Path:
    """A video of these frames in another pixel format, perhaps with sound or a cover picture."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(
            codec, rate=24, options={"preset": "ultrafast"} if codec == "libx264" else {}
        )
        stream.pix_fmt = pixels
        cover = container.add_stream("mjpeg", rate=1) if layout.get("cover") else None
        if cover:
            cover.width, cover.height, cover.pix_fmt = 32, 32, "yuvj420p"
            cover.disposition = av.stream.Disposition.attached_pic
        for number, array in enumerate(frames):
            if not number:
                stream.height, stream.width = array.shape[:2]
            frame = av.VideoFrame.from_ndarray(array, format="rgb24").reformat(format=pixels)
            frame.pts, frame.time_base = number, Fraction(1, 24)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        if cover:
            picture = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24")
            picture.pts = 0
            container.mux(cover.encode(picture.reformat(format="yuvj420p")))
            container.mux(cover.encode(None))
    return path


@pytest.mark.parametrize(
    "name, options",
    [
        ("alpha.webm", {"codec": "libvpx-vp9", "pixels": "yuva420p"}),
        ("alpha.mov", {"codec": "qtrle", "pixels": "argb"}),
        ("ten_bits.mp4", {"codec": "libx265", "pixels": "yuv420p10le"}),
        ("full_colour.mkv", {"codec": "ffv1", "pixels": "yuv444p"}),
        ("cover.mp4", {"cover": True}),
    ],
)
def test_odd_layouts_give_the_right_frames(tmp_path, name, options):
    path = mux(tmp_path / name, map(stamped, range(20)), **options)
    assert stamps(read_clip(path, 5)) == [0, 4, 9, 14, 19]
    with VideoFile(path) as video:
        assert stamps(video.read_clip(5, on_damage="nearest")) == [0, 4, 9, 14, 19]
        assert video.replaced == 0


@pytest.mark.parametrize("height, width", [(95, 127), (1, 1), (3, 500)])
def test_odd_sizes(tmp_path, height, width):
    frames = [np.full((height, width, 3), 10 * number, np.uint8) for number in range(20)]
    clip = read_clip(mux(tmp_path / "odd.mkv", frames, "ffv1", "yuv444p"), 5)
    assert clip.shape == (5, height, width, 3)
    assert np.abs(clip.mean((1, 2, 3)) - [0, 40, 90, 140, 190]).max() < 2


def test_8000_frames_of_16_by_16(tmp_path, dice):
    frames = (np.full((16, 16, 3), number % 200, np.uint8) for number in range(8000))
    path = write_video(tmp_path / "long.mp4", frames, options={"preset": "ultrafast"})
    assert probe_video(path).frame_count == 8000
    wanted = sorted(dice.sample(range(8000), 5))
    levels = read_frames(path, wanted).mean((1, 2, 3))
    assert np.abs(levels - np.asarray(wanted) % 200).max() < 3


@pytest.mark.parametrize("box", [b"mvhd", b"tkhd", b"mdhd"])
@pytest.mark.parametrize("factor", [0, 3])
def test_a_header_that_lies_about_the_length(tmp_path, bases, box, factor):
    """The packets count; a length that they do not have is refused as a truncated file."""
    data = bytearray(bases["h264.mp4"])
    at = data.find(box) + 4 + {b"mvhd": 16, b"tkhd": 20, b"mdhd": 16}[box]
    length = int.from_bytes(data[at : at + 4], "big")
    data[at : at + 4] = (length * factor).to_bytes(4, "big")
    (tmp_path / "lying.mp4").write_bytes(data)
    try:
        assert stamps(read_clip(tmp_path / "lying.mp4", 3)) == [0, 19, 39]
    except VideoError as error:
        assert factor == 3 and "truncated: the header states" in str(error)


# files that are no videos, and places that are no files


def audio_only(path: Path) -> None:
    with av.open(str(path), "w") as container:
        voice = container.add_stream("aac", rate=16000, layout="mono")
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 16000), np.float32), "fltp", "mono")
        sound.sample_rate = 16000
        container.mux(voice.encode(sound))
        container.mux(voice.encode(None))


NO_VIDEOS = {
    "sound.mp4": (audio_only, "no video stream, only audio"),
    "empty.mp4": (Path.touch, "the file is empty"),
    "text.mp4": (lambda path: path.write_text("no video\n" * 99), "not a video"),
    "zeros.mp4": (lambda path: path.write_bytes(bytes(99_999)), "not a video"),
    "folder.mp4": (Path.mkdir, "is a directory"),
    "broken_link.mp4": (lambda path: path.symlink_to("nowhere.mp4"), "no such file"),
    "loop.mp4": (lambda path: path.symlink_to(path), "no such file|symbolic links"),
    "pipe.mp4": (os.mkfifo, "the file is empty"),
}


@pytest.mark.parametrize("on_damage", ["error", "nearest"])
def test_what_is_no_video_is_named_and_the_others_go_on(tmp_path, bases, on_damage):
    for name, (make, _) in NO_VIDEOS.items():
        make(tmp_path / name)
    (tmp_path / "wrong_suffix.avi").write_bytes(bases["hevc.mp4"])
    (tmp_path / "no_suffix").write_bytes(bases["vp9.webm"])
    (tmp_path / "forbidden.mp4").write_bytes(bases["h264.mp4"])
    (tmp_path / "forbidden.mp4").chmod(0)
    results = read_all(sorted(tmp_path.iterdir()), on_damage)
    for name in ("wrong_suffix.avi", "no_suffix"):
        assert stamps(results[name])[::7] == [0, 39]
    if os.geteuid():  # nothing is forbidden to root
        assert "Permission denied" in results["forbidden.mp4"]
    for name, (_, words) in NO_VIDEOS.items():
        found = results[name]
        assert isinstance(found, str) and found.startswith(f"{tmp_path / name}: "), found
        assert any(word in found for word in words.split("|")) and "\n" not in found, found


@pytest.mark.parametrize("name", ["h264.mp4", "groups.mp4", "hevc.mp4"])
@pytest.mark.parametrize("decoder", [DECORD])
def test_both_decoders_agree_on_a_file_with_a_hole_or_say_why(tmp_path, bases, dice, name, decoder):
    for number in range(20):
        path = tmp_path / f"{number}-{name}"
        path.write_bytes(zeroed(bytearray(bases[name]), dice))
        clips = []
        for one in ("pyav", decoder):
            try:
                clips.append(read_clip(path, 8, decoder=one))
            except VideoError as error:
                assert str(path) in str(error)
        assert len(clips) < 2 or np.array_equal(*clips), path
