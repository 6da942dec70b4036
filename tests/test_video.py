"""Every frame of a test video shows its own number, so that each decoded frame can be checked."""

import os
import pickle
import struct
import subprocess
import sys
import threading
import time
from dataclasses import replace
from fractions import Fraction
from importlib.util import find_spec
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lift import decoding
from lift.io import InputError
from lift.video import (
    VideoError,
    VideoFile,
    VideoInfo,
    frame_range,
    probe_video,
    read_clip,
    read_frames,
    sample_indices,
    write_video,
)

os.environ.setdefault("SVT_LOG", "1")
HEIGHT, WIDTH, BLOCK = 96, 128, 16
FRAMES = 60
# file name: codec and its options
FILES = {
    "h264.mp4": ("libx264", {}),
    "h264.mkv": ("libx264", {}),
    "h264.avi": ("libx264", {}),  # no presentation stamps
    "h264.ts": ("libx264", {"g": "12"}),  # no index: seeking is a guess
    "intra.mp4": ("libx264", {"g": "1"}),
    "short_groups.mp4": ("libx264", {"g": "7", "bf": "2"}),
    "open_h264.mp4": (
        "libx264",
        {"x264-params": "open-gop=1:keyint=12:min-keyint=12:bframes=3:scenecut=0"},
    ),
    "hevc.mp4": ("libx265", {}),
    "open_hevc.mp4": (
        "libx265",
        {"x265-params": "log-level=error:pools=1:open-gop=1:keyint=12:bframes=4"},
    ),
    "vp8.webm": ("libvpx", {}),
    "vp8_alternate.webm": (
        "libvpx",
        {"auto-alt-ref": "1", "lag-in-frames": "20", "arnr-maxframes": "7", "g": "30"},
    ),
    "vp9.webm": ("libvpx-vp9", {"auto-alt-ref": "1", "lag-in-frames": "20"}),
    "av1.mp4": ("libsvtav1", {}),
}
NOT_FOR_DECORD = {"h264.ts", "h264.avi", "open_h264.mp4", "open_hevc.mp4", "av1.mp4"}
needs_decord = pytest.mark.skipif(find_spec("decord") is None, reason="decord is not installed")
DECORD = pytest.param("decord", marks=needs_decord)


def stamped(number: int) -> np.ndarray:
    """A moving picture with its number in 4 x 3 blocks, black or white."""
    frame = np.empty((HEIGHT, WIDTH, 3), np.uint8)
    frame[..., 0] = (np.arange(WIDTH) * 2 + number * 3) % 256
    frame[..., 1] = np.arange(HEIGHT)[:, None] * 2
    frame[..., 2] = 90
    for bit in range(12):
        row, column = divmod(bit, 4)
        frame[row * BLOCK : (row + 1) * BLOCK, column * BLOCK : (column + 1) * BLOCK] = 255 * (
            number >> bit & 1
        )
    return frame


def stamp(frame: np.ndarray) -> int:
    scale = frame.shape[0] / HEIGHT
    centres = [
        (int((bit // 4 + 0.5) * BLOCK * scale), int((bit % 4 + 0.5) * BLOCK * scale))
        for bit in range(12)
    ]
    return sum(int(frame[y, x].mean() > 127) << bit for bit, (y, x) in enumerate(centres))


def stamps(frames: np.ndarray) -> list[int]:
    return [stamp(frame) for frame in frames]


def copy_packets(source: Path, target: Path, change) -> Path:
    """Remux; `change(number, bytes)` gives the new payload, or None to leave the packet out."""
    with av.open(str(source)) as old, av.open(str(target), "w") as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        for number, packet in enumerate(packet for packet in old.demux(video=0) if packet.size):
            payload = change(number, bytes(packet))
            if payload is None:
                continue
            copy = av.Packet(payload)
            copy.pts, copy.dts, copy.duration = packet.pts, packet.dts, packet.duration
            copy.time_base = packet.time_base
            copy.is_keyframe = packet.is_keyframe
            copy.stream = stream
            new.mux(copy)
    return target


def hide(*numbers: int):
    """Clear VP8's show-frame bit of these packets."""
    return lambda number, data: bytes([data[0] & ~0x10]) + data[1:] if number in numbers else data


def write_variable(
    path: Path, milliseconds: list[int], rate: int = 30, options: dict[str, str] | None = None
) -> Path:
    """A video whose frames come at these times."""
    with av.open(str(path), "w") as container:
        options = {"g": "12"} | (options or {})
        stream = container.add_stream("libx264", rate=rate, options=options)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        for number, moment in enumerate(milliseconds):
            frame = av.VideoFrame.from_ndarray(stamped(number), format="rgb24")
            frame.pts, frame.time_base = moment, Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def turn(source: Path, target: Path, a: int, b: int, c: int, d: int) -> Path:
    """Copy an MP4 with another display matrix in its track header."""
    data = bytearray(source.read_bytes())
    at = data.find(b"tkhd") + 4 + 40  # the matrix of a version 0 track header
    one = 1 << 16
    data[at : at + 36] = struct.pack(">9i", a * one, b * one, 0, c * one, d * one, 0, 0, 0, 1 << 30)
    target.write_bytes(data)
    return target


@pytest.fixture(scope="session")
def clips(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("videos")
    for name, (codec, options) in FILES.items():
        write_video(folder / name, map(stamped, range(FRAMES)), codec=codec, options=options)
    return {name: folder / name for name in FILES}


@pytest.fixture(scope="session")
def long_clip(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("long") / "long.mp4"
    return write_video(path, map(stamped, range(3000)), options={"preset": "ultrafast"})


# sampling


@given(n_frames=st.integers(1, 10_000), k=st.integers(1, 64))
def test_samples_are_sorted_spread_evenly_and_hold_both_ends(n_frames, k):
    indices = sample_indices(n_frames, k)
    assert indices.dtype == np.int64 and len(indices) == k
    assert indices[0] == 0 and (k == 1 or indices[-1] == n_frames - 1)
    steps = np.diff(indices)
    assert (steps >= 0).all() and (len(steps) == 0 or steps.max() - steps.min() <= 1)
    assert len(set(indices.tolist())) == min(n_frames, k)


@given(n_frames=st.integers(1, 10_000), k=st.integers(2, 64))
def test_samples_follow_the_equation(n_frames, k):
    exact = [i * (n_frames - 1) / (k - 1) for i in range(k)]
    indices = sample_indices(n_frames, k)
    assert all(
        abs(index - value) <= 1 and index <= value + 1e-9
        for index, value in zip(indices, exact, strict=True)
    )


@pytest.mark.parametrize("arguments", [(0, 16), (16, 0), (-1, 1)])
def test_nothing_cannot_be_sampled(arguments):
    with pytest.raises(ValueError, match="at least 1"):
        sample_indices(*arguments)


# frames


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("decoder", ["auto", "pyav", DECORD])
def test_every_frame_is_the_one_asked_for(clips, name, decoder):
    if decoder == "decord" and name in NOT_FOR_DECORD:
        pytest.skip("decord cannot be trusted with this file")
    info = probe_video(clips[name])
    assert info.frame_count == FRAMES and info.duration == pytest.approx(FRAMES / 24, abs=2e-3)
    assert info.frames_per_second == pytest.approx(24)
    assert (info.width, info.height) == (WIDTH, HEIGHT)
    assert info.times == pytest.approx(np.arange(FRAMES) / 24, abs=1e-3)
    with VideoFile(clips[name], decoder=decoder) as opened:
        assert stamps(opened.read(range(FRAMES))) == list(range(FRAMES))
        wanted = [40, 3, 3, 59, 0]  # any order, repeated, backwards
        assert stamps(opened.read(wanted)) == wanted
    for number in range(0, FRAMES, 7):
        with VideoFile(clips[name], decoder=decoder) as opened:
            assert stamps(opened.read([number])) == [number]
    numbers = np.random.default_rng(0).integers(0, FRAMES, (20, 4))
    with VideoFile(clips[name], decoder=decoder) as opened:
        assert [stamps(opened.read(row)) for row in numbers] == numbers.tolist()


@needs_decord
@pytest.mark.parametrize("name", sorted(set(FILES) - NOT_FOR_DECORD))
@pytest.mark.parametrize("size", [None, 48, 77])
def test_both_decoders_give_the_same_pixels(clips, name, size):
    numbers = sample_indices(FRAMES, 16)
    frames = read_frames(clips[name], numbers, size, "decord")
    assert np.array_equal(frames, read_frames(clips[name], numbers, size, "pyav"))


@pytest.mark.parametrize("name", sorted(NOT_FOR_DECORD))
def test_decord_is_not_asked_where_it_would_err(clips, name):
    with pytest.raises(VideoError, match="decord"):
        read_frames(clips[name], [5], decoder="decord")


def test_a_packet_that_shows_nothing_is_no_frame(clips, tmp_path):
    path = copy_packets(clips["vp8.webm"], tmp_path / "hidden.webm", hide(10, 30, 59))
    shown = [number for number in range(FRAMES) if number not in (10, 30, 59)]
    assert probe_video(path).frame_count == len(shown)
    assert len(set(np.diff(stamps(read_frames(path, range(len(shown))))))) <= 2


@needs_decord
def test_decord_is_refused_where_it_counts_other_frames(clips, tmp_path):
    path = copy_packets(clips["vp8.webm"], tmp_path / "hidden.webm", hide(10, 30, 59))
    with pytest.raises(VideoError, match="decord: counts 60 frames, the file shows 57"):
        read_frames(path, [5], decoder="decord")


def test_a_frame_that_never_comes_is_neither_repeated_nor_replaced(clips, tmp_path, monkeypatch):
    path = copy_packets(clips["vp8.webm"], tmp_path / "hidden.webm", hide(30, 50))
    after = round(51 * 1000 / 24)
    monkeypatch.setattr(
        decoding, "_hidden", lambda packet, codec: abs(packet.pts - after) < 5
    )  # a wrong index
    assert probe_video(path).frame_count == FRAMES - 1
    with pytest.raises(VideoError, match="frame 50 is missing"):
        read_frames(path, [50])  # frame 51 follows, which the index does not know
    monkeypatch.setattr(decoding, "_hidden", lambda packet, codec: False)
    with pytest.raises(VideoError, match="pyav: frame 30 is missing"):
        read_frames(path, range(FRAMES))
    if find_spec("decord"):
        with pytest.raises(VideoError, match="decord: .*duplicate frames"):
            read_frames(path, range(FRAMES), decoder="decord")


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("fragments.mp4", {"movflags": "frag_keyframe+empty_moov"}),
        ("live.mkv", {"live": "1"}),
        ("flash.flv", {}),
    ],
)
def test_containers_without_an_index(clips, tmp_path, name, options):
    with (
        av.open(str(clips["short_groups.mp4"])) as old,
        av.open(str(tmp_path / name), "w", options=options) as new,
    ):
        stream = new.add_stream_from_template(old.streams.video[0])
        for packet in old.demux(video=0):
            if packet.size:
                packet.stream = stream
                new.mux(packet)
    numbers = np.random.default_rng(1).integers(0, FRAMES, (20, 4))
    with VideoFile(tmp_path / name) as opened:
        assert [stamps(opened.read(row)) for row in numbers] == numbers.tolist()


def test_a_seek_that_lands_too_late_is_done_again_from_an_earlier_key_frame(clips):
    index = decoding.index_video(clips["short_groups.mp4"])
    late = replace(index, key_seeks=index.key_seeks + 14 * 512)  # two groups of pictures
    assert stamps(decoding.PyAVReader(late, WIDTH, HEIGHT).read(np.array([30, 31]))) == [30, 31]


@pytest.mark.skipif(not hasattr(os, "sched_getscheduler"), reason="scheduling is Linux's")
@pytest.mark.parametrize("codec", ["libx264", "libsvtav1"])
def test_a_process_that_wrote_a_video_is_scheduled_as_before(tmp_path, codec):
    frames = np.zeros((4, 64, 64, 3), np.uint8)
    before = os.sched_getscheduler(0)
    write_video(tmp_path / "v.mp4", frames, codec=codec)
    assert os.sched_getscheduler(0) == before == os.SCHED_OTHER


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
@pytest.mark.parametrize("decoder", ["pyav", DECORD])
def test_clips_of_one_and_two_frames(tmp_path, count, suffix, decoder):
    path = write_video(tmp_path / f"short{suffix}", map(stamped, range(count)))
    assert probe_video(path).duration == pytest.approx(count / 24, abs=2e-3)
    assert stamps(read_clip(path, 4, decoder=decoder)) == sample_indices(count, 4).tolist()


def test_no_index_gives_no_frame(clips):
    assert read_frames(clips["h264.mp4"], [], size=48).shape == (0, 48, 64, 3)


@pytest.mark.parametrize("decoder", ["pyav", DECORD])
def test_colours_survive(tmp_path, decoder):
    colours = np.array([[200, 40, 40], [40, 200, 40], [40, 40, 200]], np.uint8)
    path = write_video(
        tmp_path / "colours.mp4", np.broadcast_to(colours[:, None, None], (3, 64, 64, 3))
    )
    assert np.abs(read_frames(path, range(3), decoder=decoder).mean((1, 2)) - colours).max() < 4


# size and orientation


def test_size_is_the_short_side_and_never_enlarges(clips):
    assert read_frames(clips["vp9.webm"], [0], size=48).shape == (1, 48, 64, 3)
    assert read_frames(clips["vp9.webm"], [0], size=500).shape == (1, HEIGHT, WIDTH, 3)
    assert stamps(read_frames(clips["vp9.webm"], [21, 42], size=48)) == [21, 42]
    with pytest.raises(ValueError, match="size=0"):
        read_frames(clips["vp9.webm"], [0], size=0)


@pytest.mark.parametrize("decoder", ["pyav", DECORD])
@pytest.mark.parametrize(
    ("degrees", "matrix"), [(90, (0, 1, -1, 0)), (180, (-1, 0, 0, -1)), (270, (0, -1, 1, 0))]
)
def test_a_turned_phone_gives_upright_frames(clips, tmp_path, decoder, degrees, matrix):
    path = turn(clips["h264.mp4"], tmp_path / "turned.mp4", *matrix)
    upright = np.rot90(read_frames(clips["h264.mp4"], [9, 33]), -degrees // 90, axes=(1, 2))
    assert probe_video(path).rotation == degrees
    assert np.array_equal(read_frames(path, [9, 33], decoder=decoder), upright)
    small = read_frames(path, [9, 33], size=80, decoder=decoder)
    assert small.shape == (2, *((107, 80) if degrees % 180 else (80, 107)), 3)
    assert np.array_equal(small, read_frames(path, [9, 33], size=80, decoder="pyav"))


@pytest.mark.parametrize(
    ("matrix", "mirror"),
    [
        ((-1, 0, 0, 1), lambda frames: frames[:, :, ::-1]),
        ((1, 0, 0, -1), lambda frames: frames[:, ::-1]),
        ((0, 1, 1, 0), lambda frames: frames.transpose(0, 2, 1, 3)),
        ((0, -1, -1, 0), lambda frames: frames[:, ::-1, ::-1].transpose(0, 2, 1, 3)),
    ],
)
def test_a_mirrored_picture_is_turned_too(clips, tmp_path, matrix, mirror):
    path = turn(clips["h264.mp4"], tmp_path / "mirrored.mp4", *matrix)
    assert np.array_equal(
        read_frames(path, [9, 33]), mirror(read_frames(clips["h264.mp4"], [9, 33]))
    )
    with pytest.raises(VideoError, match="mirrors"):
        read_frames(path, [9], decoder="decord")


def test_a_display_matrix_at_an_angle_is_refused(clips, tmp_path):
    path = turn(clips["h264.mp4"], tmp_path / "sheared.mp4", 1, 1, -1, 1)
    with pytest.raises(VideoError, match="no quarter turn"):
        probe_video(path)


# time


def info_of(times: list[float], duration: float) -> VideoInfo:
    rate = len(times) / duration
    return VideoInfo("clip.mp4", len(times), rate, duration, 8, 8, 0, "h264", np.asarray(times))


@given(
    gaps=st.lists(st.integers(5, 200), min_size=1, max_size=60),
    start=st.floats(0, 0.999),
    length=st.floats(1e-3, 1),
)
def test_a_range_holds_exactly_the_frames_of_its_time(gaps, start, length):
    times = (np.cumsum(gaps) - gaps[0]) / 1000
    info = info_of(times, times[-1] + 0.04)
    start, end = start * info.duration, start * info.duration + length * info.duration
    inside = frame_range(info, start, min(end, info.duration))
    assert len(inside) >= 1 and inside[0] >= 0 and inside[-1] < len(times)
    if len(inside) > 1:
        assert (times[inside] >= start - 2e-3).all() and (times[inside] <= end + 2e-3).all()
        missed = np.delete(times, inside)
        assert not ((missed > start + 2e-3) & (missed < end - 2e-3)).any()
    else:
        assert times[inside[0]] <= end + 2e-3


def test_a_range_without_ends_is_the_whole_file():
    info = info_of(np.arange(50) / 25, 2.0)
    assert (
        frame_range(info)
        == frame_range(info, float("nan"), float("nan"))
        == frame_range(info, 0, 2.9)
        == range(50)
    )
    assert frame_range(info, 1) == range(25, 50) and frame_range(info, None, 0.4) == range(11)
    assert frame_range(info, 1.01, 1.02) == range(25, 26)
    assert frame_range(info, 1.99) == range(49, 50)


@pytest.mark.parametrize(
    ("start", "end", "cause"),
    [
        (1, 1, "start 1 s is not before end 1 s"),
        (1.5, 1, "start 1.5 s is not before end 1 s"),
        (2, 3, "start 2 s is past the end of the video at 2.000 s"),
        (0, 3.1, "end 3.1 s is past the end of the video at 2.000 s"),
        (0, float("inf"), "end inf s is past the end"),
        (-0.5, 1, "start -0.5 s is before the beginning"),
    ],
)
def test_a_range_the_file_does_not_have_is_refused(start, end, cause):
    with pytest.raises(VideoError, match=cause):
        frame_range(info_of(np.arange(50) / 25, 2.0), start, end)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
@pytest.mark.parametrize("decoder", ["pyav", DECORD])
def test_variable_frame_rate_goes_by_true_time(tmp_path, suffix, decoder):
    moments = np.r_[0, np.cumsum(np.random.default_rng(3).integers(8, 160, 79))]  # milliseconds
    path = write_variable(tmp_path / f"variable{suffix}", moments.tolist())
    info = probe_video(path)
    assert info.times == pytest.approx(moments / 1000, abs=1e-3)
    numbers = np.flatnonzero((moments >= 1000) & (moments <= 3000))
    inside = frame_range(info, 1, 3)
    assert list(inside) == numbers.tolist() and inside.start != round(1 * info.frames_per_second)
    assert stamps(read_frames(path, range(80), decoder=decoder)) == list(range(80))
    assert (
        stamps(read_clip(path, 8, 1, 3, decoder=decoder))
        == numbers[sample_indices(len(numbers), 8)].tolist()
    )


@pytest.mark.parametrize("decoder", ["pyav", DECORD])
def test_many_ranges_of_a_long_file_opened_once(long_clip, decoder):
    with VideoFile(long_clip, size=48, decoder=decoder) as opened:
        for start in (100.0, 3.0, 60.5, 124.5, 0.0):
            inside = frame_range(opened.info, start, min(start + 2, opened.info.duration))
            numbers = inside.start + sample_indices(len(inside), 16)
            assert (
                stamps(opened.read_clip(16, start, min(start + 2, opened.info.duration)))
                == numbers.tolist()
            )


@pytest.fixture
def decoded(monkeypatch) -> list[int]:
    """The packets of the pictures that PyAV's reader has decoded, as they come."""
    seen, numbering = [], decoding._by_packet

    def counted(*arguments):
        for picture in numbering(*arguments):
            seen.append(picture.pts)
            yield picture

    monkeypatch.setattr(decoding, "_by_packet", counted)
    return seen


def test_the_frames_before_a_range_are_not_decoded(long_clip, decoded):
    with VideoFile(long_clip, decoder="pyav") as opened:
        assert stamps(opened.read([2900, 2905])) == [2900, 2905]
    assert 2 <= len(decoded) <= 2 * 250  # x264 sets a key frame every 250 frames


def test_frames_that_nothing_needs_are_passed_over(tmp_path, decoded):
    options = {"g": "48", "bf": "3", "preset": "medium"}
    path = write_video(tmp_path / "b.mp4", map(stamped, range(96)), options=options)
    with VideoFile(path, decoder="pyav") as opened:
        whole = opened.read(range(96))
        assert stamps(whole) == list(range(96)) and len(decoded) == 96
        for step in (2, 5, 7, 11):
            decoded.clear()
            assert (opened.read(range(0, 96, step)) == whole[::step]).all()
        assert len(decoded) < 80
        decoded.clear()
        assert stamps(opened.read([3, 20])) == [3, 20]
        # the next clip begins among the frames that the decoder has had already
        assert stamps(opened.read([21, 22, 23])) == [21, 22, 23]
        assert len(decoded) == len(set(decoded)) <= 30


# stamps that are wrong, missing, shared, or of several clocks


def shift_blocks(source: Path, target: Path, moves: dict[int, int]) -> Path:
    """Copy a Matroska file with the stamps of some packets moved by milliseconds."""
    data = bytearray(source.read_bytes())
    with av.open(str(source)) as container:
        places = [packet.pos for packet in container.demux(video=0) if packet.size]
    for number, move in moves.items():
        at = (
            data.find(b"\x81", places[number] - 2) + 1
        )  # track 1, then the stamp, 16 bits relative to the cluster
        data[at : at + 2] = struct.pack(">h", struct.unpack(">h", data[at : at + 2])[0] + move)
    target.write_bytes(data)
    return target


def all_frames(path: Path, numbers: list[int]) -> VideoInfo:
    """Assert that the file shows these frames, read in order and at random."""
    some = np.random.default_rng(2).integers(0, len(numbers), (12, 3))
    with VideoFile(path) as opened:
        assert opened.info.frame_count == len(numbers)
        assert stamps(opened.read(range(len(numbers)))) == numbers
        assert [stamps(opened.read(row)) for row in some] == [
            [numbers[n] for n in row] for row in some
        ]
    assert (np.diff(opened.info.times) > 0).all()
    return opened.info


MOMENTS = [
    *range(0, 800, 40),
    *range(1200, 8400, 400),
    *range(8400, 9280, 40),
]  # milliseconds, 60 frames


@pytest.mark.parametrize("options", [{"bf": "0"}, {"bf": "2"}])
@pytest.mark.parametrize(
    "moves", [{20: -400}, {45: -40}, {45: 40}, {0: 40}, {59: -40}, {30: -400, 31: -400}, {20: 5000}]
)
def test_a_wrong_stamp_costs_no_other(tmp_path, options, moves):
    clean = write_variable(tmp_path / "clean.mkv", MOMENTS, 25, options)
    info = all_frames(shift_blocks(clean, tmp_path / "wrong.mkv", moves), list(range(60)))
    wrong = np.abs(info.times - np.asarray(MOMENTS) / 1000) > 2e-3
    assert wrong.sum() <= 2 * len(moves)
    assert info.duration == pytest.approx(MOMENTS[-1] / 1000 + 0.04, abs=0.09)
    assert info.frames_per_second == pytest.approx(59 / 9.24, rel=0.02)


def test_the_shared_file_with_one_stamp_twice(shared):
    clean, twice = (
        shared / f"cases/vfr_60_frames_{name}.mkv"
        for name in ("clean_for_comparison", "one_duplicate_stamp")
    )
    assert probe_video(twice).times == pytest.approx(probe_video(clean).times, abs=2e-3)
    assert probe_video(twice).duration == pytest.approx(11.667, abs=2e-3)
    assert np.array_equal(read_clip(twice, 8, 1, 2), read_clip(clean, 8, 1, 2))
    assert np.array_equal(read_frames(twice, range(60)), read_frames(clean, range(60)))


@pytest.mark.parametrize(
    ("codec", "bf"), [("libx264", "2"), ("mpeg4", "0"), ("mpeg4", "2"), ("mjpeg", None)]
)
def test_dropped_frames_of_an_avi_keep_their_time(tmp_path, codec, bf):
    slots = [*range(20), *range(40, 61)]
    with av.open(str(tmp_path / "drops.avi"), "w") as container:
        stream = container.add_stream(
            codec, rate=10, options={"g": "12"} | ({"bf": bf} if bf else {})
        )
        stream.width = WIDTH
        stream.height = HEIGHT
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        for number, slot in enumerate(slots):
            frame = av.VideoFrame.from_ndarray(stamped(number), format="rgb24")
            frame.pts, frame.time_base = slot, Fraction(1, 10)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    info = all_frames(tmp_path / "drops.avi", list(range(41)))
    wrong = np.abs(info.times - np.asarray(slots) / 10)
    # AVI keeps the place of a packet: a reordered frame is a few frames early, also across the gap
    assert wrong.max() < 1e-6 if bf != "2" else (wrong > 0.21).sum() <= 3
    assert info.duration == pytest.approx(6.1, abs=0.3)


def test_an_avi_is_counted_and_sought_without_decoding_it(tmp_path, decoded):
    path = write_video(
        tmp_path / "long.avi",
        map(stamped, range(600)),
        options={"g": "30", "preset": "ultrafast", "bf": "2"},
    )
    with VideoFile(path) as opened:
        assert opened.info.frame_count == 600 and not decoded
        assert stamps(opened.read([500, 505])) == [500, 505] and len(decoded) <= 60


def test_segments_joined_with_cat(tmp_path):
    parts = [
        write_video(
            tmp_path / f"{n}.ts", map(stamped, range(n, n + 48)), options={"g": "8", "bf": "2"}
        )
        for n in (0, 48)
    ]
    path = tmp_path / "joined.ts"
    path.write_bytes(b"".join(part.read_bytes() for part in (*parts, parts[0])))
    info = all_frames(path, [*range(96), *range(48)])
    assert info.times == pytest.approx(np.arange(144) / 24, abs=1e-4)
    assert info.duration == pytest.approx(6, abs=1e-3)
    program = write_video(
        tmp_path / "one.mpg",
        map(stamped, range(48)),
        codec="mpeg2video",
        options={"g": "8", "bf": "2"},
    )
    (tmp_path / "two.mpg").write_bytes(program.read_bytes() * 2)
    assert all_frames(tmp_path / "two.mpg", [*range(48), *range(48)]).duration == pytest.approx(
        4, abs=0.1
    )


def test_the_shared_joined_segments(shared):
    path = shared / "cases" / "ts_two_segments_joined_with_cat_96_frames.ts"
    info = probe_video(path)
    assert info.frame_count == 96 and info.times == pytest.approx(np.arange(96) / 24, abs=1e-4)
    assert len({frame.tobytes() for frame in read_frames(path, range(96))}) >= 48


def test_a_lost_packet_costs_only_the_frames_that_need_it(tmp_path):
    whole = write_video(
        tmp_path / "whole.ts", map(stamped, range(96)), options={"g": "8", "bf": "2"}
    ).read_bytes()
    frames, refused = read_frames(tmp_path / "whole.ts", range(96)), []
    for lost in range(8, len(whole) // 188, 5):
        path = tmp_path / "lost.ts"
        path.write_bytes(whole[: lost * 188] + whole[(lost + 1) * 188 :])
        with VideoFile(path) as opened:
            numbers = np.round(opened.info.times * 24).astype(int)
            sound = opened._index.sound(range(opened.info.frame_count))
            assert np.array_equal(opened.read(sound), frames[numbers[sound]])
            assert np.array_equal(
                opened.read_clip(16), frames[numbers[sound[sample_indices(len(sound), 16)]]]
            )
            damaged = opened._index.damaged
            refused.append(len(damaged))
            if len(damaged):
                with pytest.raises(VideoError, match=f"frame {damaged[0]} is damaged"):
                    opened.read([damaged[0]])
    assert max(refused) <= 16 and max(refused) > 0


def test_the_shared_file_that_lost_a_packet(shared):
    path = shared / "cases" / "ts_one_188_byte_packet_lost.ts"
    assert probe_video(path).frame_count == 95
    assert len(read_clip(path)) == 16 and len(read_frames(path, [*range(43), *range(60, 95)])) == 78
    with pytest.raises(VideoError, match="frame 43 is damaged: data"):
        read_frames(path, range(95))


def test_a_truncated_transport_stream_is_refused(clips, tmp_path):
    data = clips["h264.ts"].read_bytes()
    (tmp_path / "cut.ts").write_bytes(data[: len(data) // 188 // 2 * 188 + 100])
    with pytest.raises(VideoError, match="truncated"):
        read_clip(tmp_path / "cut.ts")


# where seconds count from


def write_late(path: Path, late: float, sound: bool = True) -> Path:
    """Two seconds of video that begin `late` seconds after the sound."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=24, options={"bf": "0", "g": "12"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        voice = container.add_stream("aac", rate=16000, layout="mono") if sound else None
        for number in range(5 if sound else 0):
            silence = av.AudioFrame.from_ndarray(
                np.zeros((1, 16000), np.float32), format="fltp", layout="mono"
            )
            silence.sample_rate = 16000
            silence.pts = number * 16000
            silence.time_base = Fraction(1, 16000)
            container.mux(voice.encode(silence))
        for number in range(48):
            frame = av.VideoFrame.from_ndarray(stamped(number), format="rgb24")
            frame.pts, frame.time_base = number + round(late * 24), Fraction(1, 24)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        if voice:
            container.mux(voice.encode(None))
    return path


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts", ".mov"])
def test_seconds_count_from_the_start_of_the_file(tmp_path, suffix):
    path = write_late(tmp_path / f"late{suffix}", 2)
    info = probe_video(path)
    assert info.times == pytest.approx(
        2 + np.arange(48) / 24, abs=0.09
    )  # AAC begins up to 1024 samples early
    assert info.duration == pytest.approx(4, abs=0.09)
    assert stamps(read_clip(path, 4, 3, 4))[0] in (23, 24)
    assert stamps(read_clip(path, 3)) == [0, 23, 47]
    assert stamps(read_clip(path, 2, 1.5, 2.09))[0] == 0
    with pytest.raises(VideoError, match="before the first frame, which is shown at 2.0"):
        read_clip(path, 4, 0.5, 1.5)


@pytest.mark.parametrize("suffix", [".mp4", ".ts", ".mkv"])
def test_a_clock_that_begins_late_is_the_start(tmp_path, suffix):
    info = probe_video(write_late(tmp_path / f"alone{suffix}", 0, sound=False))
    assert info.times == pytest.approx(np.arange(48) / 24, abs=1e-3) and info.times[0] == 0


# orientation in the codec's data


def test_a_turn_in_the_codecs_data_is_left_to_pyav(shared):
    path = shared / "cases" / "h264_sei_display_orientation_90.mp4"
    with av.open(str(path)) as container:
        stored = np.stack(
            [picture.to_ndarray(format="rgb24") for picture in container.decode(video=0)]
        )[[9, 33]]
    upright = np.rot90(stored, 1, axes=(1, 2)).astype(int)
    info = probe_video(path)
    assert (info.width, info.height, info.rotation) == (128, 192, 270)
    assert np.abs(read_frames(path, [9, 33]) - upright).mean() < 3
    with pytest.raises(VideoError, match="decord: .*turn of the picture is in the codec's data"):
        read_frames(path, [9], decoder="decord")


def orientation_message(turn: int) -> bytes:
    """An H.264 SEI message: turn the picture by so many quarter turns anticlockwise."""
    # not cancelled, not mirrored twice, the angle in 16 bits, repetition period ue(0), no extension
    bits = "0" + "00" + f"{turn * 16384:016b}" + "1" + "0"
    bits += "1" + "0" * (-(len(bits) + 1) % 8)
    payload = int(bits, 2).to_bytes(len(bits) // 8, "big")
    unit = bytes([6, 47, len(payload)]) + payload + b"\x80"
    escaped = unit.replace(b"\0\0\0", b"\0\0\3\0").replace(b"\0\0\1", b"\0\0\3\1")
    return len(escaped).to_bytes(4, "big") + escaped


def test_a_turn_that_changes_is_refused(clips, tmp_path):
    changes = {0: orientation_message(1), 30: orientation_message(2)}
    path = copy_packets(
        clips["intra.mp4"],
        tmp_path / "turned.mp4",
        lambda number, data: changes.get(number, b"") + data,
    )
    upright = np.rot90(read_frames(clips["intra.mp4"], [9]), 1, axes=(1, 2))
    assert np.array_equal(read_frames(path, [9]), upright)  # said with the first picture only
    with pytest.raises(VideoError, match="not turned like the first"):
        read_frames(path, [30])


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
@pytest.mark.parametrize("turns", [1, 2, 3])
def test_a_turn_that_only_the_decoder_sees(clips, tmp_path, suffix, turns):
    message = orientation_message(turns)
    path = copy_packets(
        clips["intra.mp4"], tmp_path / f"turned{suffix}", lambda _, data: message + data
    )
    upright = np.rot90(read_frames(clips["intra.mp4"], [9, 33]), turns, axes=(1, 2))
    assert np.array_equal(read_frames(path, [9, 33]), upright)
    with pytest.raises(VideoError, match="decord: .*turn"):
        read_frames(path, [9], decoder="decord")


# what decord cannot know


def write_as(path: Path, codec: str, pixels: str, height: int = HEIGHT, frames: int = 30) -> Path:
    """A stamped video in another pixel format, a row short where the height is odd."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=24)
        stream.width, stream.height, stream.pix_fmt = WIDTH, height, pixels
        for number in range(frames):
            frame = av.VideoFrame.from_ndarray(
                np.ascontiguousarray(stamped(number)[:height]), format="rgb24"
            )
            frame.pts, frame.time_base = number, Fraction(1, 24)
            container.mux(stream.encode(frame.reformat(format=pixels)))
        container.mux(stream.encode(None))
    return path


@needs_decord
@pytest.mark.parametrize(
    ("name", "codec", "pixels", "height", "cause"),
    [
        ("deep.mp4", "libx264", "yuv420p10le", HEIGHT, "more than 8 bits"),
        ("deep.mov", "prores", "yuv422p10le", HEIGHT, "more than 8 bits"),
        ("odd.webm", "libvpx-vp9", "yuv420p", HEIGHT - 1, "odd height"),
        ("whole.mp4", "libx264", "yuv444p", HEIGHT - 1, None),
        ("clear.webm", "libvpx-vp9", "yuva420p", HEIGHT, None),
    ],
)
def test_pixels_do_not_depend_on_the_decoder(tmp_path, name, codec, pixels, height, cause):
    path = write_as(tmp_path / name, codec, pixels, height)
    frames = read_frames(path, range(30), decoder="pyav")
    assert stamps(frames) == list(range(30))
    small = read_frames(path, range(30), 48, "pyav")
    assert np.array_equal(read_frames(path, range(30), 48, "decord"), small)
    if cause is None:
        assert np.array_equal(read_frames(path, range(30), decoder="decord"), frames)
    else:
        with pytest.raises(VideoError, match=f"decord: .*{cause}"):
            read_frames(path, [3], decoder="decord")


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts"])
def test_the_better_of_two_pictures_is_the_one_that_is_read(clips, tmp_path, suffix):
    other = write_video(tmp_path / "other.mp4", np.zeros((90, 64, 48, 3), np.uint8))
    with av.open(str(clips["h264.mp4"])) as first, av.open(str(other)) as second:
        with av.open(str(tmp_path / f"two{suffix}"), "w") as new:
            packets = []
            for old in (second, first):
                stream = new.add_stream_from_template(old.streams.video[0])
                for packet in (packet for packet in old.demux(video=0) if packet.size):
                    moment = packet.dts * packet.time_base
                    packet.stream = stream
                    packets.append((moment, len(packets), packet))
            for _, _, packet in sorted(packets):
                new.mux(packet)
    info = probe_video(tmp_path / f"two{suffix}")
    chosen = read_frames(tmp_path / f"two{suffix}", range(info.frame_count))
    assert chosen.shape == (90, 64, 48, 3) and chosen.max() < 8  # FFmpeg takes the longer stream
    with pytest.raises(VideoError, match="decord"):
        read_frames(tmp_path / f"two{suffix}", [3], decoder="decord")


def test_a_clock_that_leaps_forward_is_bridged(clips, tmp_path):
    with av.open(str(clips["h264.ts"])) as old, av.open(str(tmp_path / "leap.ts"), "w") as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        for number, packet in enumerate(packet for packet in old.demux(video=0) if packet.size):
            later = 3600 * 90000 if number >= 24 else 0  # the recorder was restarted
            packet.pts, packet.dts, packet.stream = packet.pts + later, packet.dts + later, stream
            new.mux(packet)
    assert all_frames(tmp_path / "leap.ts", list(range(FRAMES))).duration == pytest.approx(
        FRAMES / 24, abs=1e-3
    )


# names


NAMES = [
    "cam:01.mp4", "2024-01-01T12:30:00.mp4", "concat:x.mp4", "http:x.mp4", "file:x.mp4",
    "pipe:1.mp4", "%03d.mp4", "a?b#c.mp4", " with spaces .mp4", "-i.mp4", "two\nlines.mp4",
    "q'\"`$.mp4", "prise_é_日本.mp4", "a%20b|c.mp4", "~.mp4", "x" * 251 + ".mp4",
    os.fsdecode(b"caf\xe9.mp4"),
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_any_name_is_a_file(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    try:
        write_video(name, map(stamped, range(6)))
    except VideoError as error:
        if "Illegal byte sequence" in str(error):
            pytest.skip("this file system takes names in UTF-8 only")
        raise
    assert os.listdir() == [name]
    for decoder in ("pyav", *(["decord"] if find_spec("decord") else [])):
        assert stamps(read_frames(name, [1, 4], decoder=decoder)) == [1, 4]
    assert probe_video(name).path == name
    with pytest.raises(VideoError, match="no frame 6") as caught:
        read_frames(name, [6])
    assert str(caught.value).isprintable() and caught.value.path == name
    str(caught.value).encode()  # no half of a surrogate pair is left in it
    with pytest.raises(VideoError, match="cannot be written with nothing") as caught:
        write_video(name, map(stamped, range(2)), codec="nothing")
    assert str(caught.value).isprintable() and os.listdir() == [name]


@needs_decord
def test_a_folder_whose_name_is_not_utf_8(tmp_path):
    folder = tmp_path / os.fsdecode(b"\xe9t\xe9")
    try:
        folder.mkdir()
    except OSError:
        pytest.skip("this file system takes names in UTF-8 only")
    write_video(folder / "a.mp4", map(stamped, range(6)))
    assert stamps(read_frames(folder / "a.mp4", [1, 4], decoder="decord")) == [1, 4]
    with pytest.raises(VideoError, match="no such file"):
        probe_video(folder / "b.mp4")


# what surrounds the frames


def test_a_title_that_is_not_utf_8(tmp_path, clips):
    with av.open(str(clips["h264.avi"])) as old, av.open(str(tmp_path / "a.avi"), "w") as new:
        new.metadata["title"] = "Cafe im Sommer"
        stream = new.add_stream_from_template(old.streams.video[0])
        for packet in old.demux(video=0):
            if packet.size:
                packet.stream = stream
                new.mux(packet)
    data = (tmp_path / "a.avi").read_bytes()
    assert b"Cafe im" in data
    (tmp_path / "a.avi").write_bytes(data.replace(b"Cafe im", b"Caf\xe9 im"))
    assert stamps(read_frames(tmp_path / "a.avi", [3, 40])) == [3, 40]


def test_the_shared_title_in_latin_1(shared):
    assert len(read_clip(shared / "cases" / "avi_title_tag_in_latin1.avi")) == 16


@pytest.mark.parametrize(
    "error",
    [ValueError, UnicodeError, MemoryError, OSError, RuntimeError, av.error.ProtocolNotFoundError],
)
def test_whatever_a_decoder_raises_names_the_file(clips, monkeypatch, error):
    def broken(*_, **__):
        raise (
            error(1, "broken")
            if issubclass(error, OSError | av.error.FFmpegError)
            else error("broken")
        )

    monkeypatch.setattr(av, "open", broken)
    with pytest.raises(VideoError, match="h264.mp4: .*broken"):
        probe_video(clips["h264.mp4"])


@pytest.mark.parametrize("name", ["a\0b.mp4", "x" * 300 + ".mp4"])
def test_a_name_that_no_file_can_have(name):
    with pytest.raises(VideoError):
        probe_video(name)


# faults


def test_errors_name_the_file_and_the_cause(clips, tmp_path):
    with pytest.raises(VideoError, match="gone.mp4: no such file"):
        probe_video(tmp_path / "gone.mp4")
    with pytest.raises(VideoError, match="is a directory"):
        probe_video(tmp_path)
    (tmp_path / "empty.mp4").touch()
    with pytest.raises(VideoError, match="empty.mp4: the file is empty"):
        probe_video(tmp_path / "empty.mp4")
    with pytest.raises(ValueError, match="choose auto, pyav or decord"):
        read_frames(clips["h264.mp4"], [0], decoder="opencv")


@pytest.mark.parametrize("name", ["words.mp4", "words.txt", "noise.mp4"])
def test_other_files_are_not_videos(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(
        b"opening and closing\n" * 80 if "words" in name else np.random.default_rng(0).bytes(9000)
    )
    with pytest.raises(VideoError, match="not a video"):
        probe_video(path)


def test_sound_is_not_a_video(tmp_path):
    path = tmp_path / "sound.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16000)
        sound = av.AudioFrame.from_ndarray(
            np.zeros((1, 16000), np.float32), format="fltp", layout="mono"
        )
        sound.sample_rate = 16000
        container.mux(stream.encode(sound))
        container.mux(stream.encode(None))
    with pytest.raises(VideoError, match="no video stream, only audio"):
        probe_video(path)


@pytest.mark.parametrize("indices", [[60], [-1], [0, 1000], [0.5], [[0, 1]], ["0"]])
@pytest.mark.parametrize("decoder", ["auto", "pyav", DECORD])
def test_a_frame_that_is_not_there_is_an_error(clips, indices, decoder):
    with pytest.raises(VideoError, match="no frame|not a list of whole numbers"):
        read_frames(clips["h264.mp4"], indices, decoder=decoder)


@pytest.mark.parametrize(
    "name", ["h264.mp4", "h264.mkv", "vp8.webm", "vp9.webm", "av1.mp4", "h264.avi"]
)
@pytest.mark.parametrize("share", [0.3, 0.7])
def test_truncated_files_are_refused(clips, tmp_path, name, share):
    data = clips[name].read_bytes()
    path = tmp_path / name
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(VideoError, match="truncated"):
        read_clip(path)


def test_a_truncated_file_with_its_index_in_front_is_refused(clips, tmp_path):
    with av.open(str(clips["h264.mp4"])) as old:
        with av.open(str(tmp_path / "front.mp4"), "w", options={"movflags": "faststart"}) as new:
            stream = new.add_stream_from_template(old.streams.video[0])
            for packet in old.demux(video=0):
                if packet.size:
                    packet.stream = stream
                    new.mux(packet)
    assert probe_video(tmp_path / "front.mp4").frame_count == FRAMES
    data = (tmp_path / "front.mp4").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(data[: int(len(data) * 0.6)])
    with pytest.raises(VideoError, match="truncated: the file ends inside frame"):
        read_clip(tmp_path / "cut.mp4")


def test_damage_is_an_error_and_never_a_repeated_frame(clips, tmp_path):
    def blank(number: int, data: bytes) -> bytes:
        return bytes(len(data)) if number == 30 else data

    path = copy_packets(clips["short_groups.mp4"], tmp_path / "hole.mp4", blank)
    with pytest.raises(VideoError, match=r"hole.mp4: pyav: frame \d+ "):
        read_frames(path, range(FRAMES))
    if find_spec("decord"):
        with pytest.raises(VideoError, match="hole.mp4: decord: "):
            read_frames(path, range(FRAMES), decoder="decord")
    with VideoFile(path) as opened:
        assert stamps(opened.read([0, 5, 13])) == [0, 5, 13]  # the sound part stays readable
        with pytest.raises(VideoError, match="hole.mp4"):
            opened.read(range(28, 35))
        assert stamps(opened.read([55, 59])) == [55, 59]


def large_packet(path: Path, first: int) -> int:
    """Of the seven packets from `first` on, the largest."""
    with av.open(str(path)) as container:
        sizes = [packet.size for packet in container.demux(video=0)]
    return first + int(np.argmax(sizes[first : first + 7]))


def zeroed(source: Path, target: Path, packet: int, length: int | None = None) -> Path:
    """A copy with zeros in a packet: the whole of it, or `length` bytes of it."""

    def change(number: int, data: bytes) -> bytes:
        start = 0 if length is None else len(data) * 2 // 3
        end = len(data) if length is None else min(start + length, len(data))
        return data[:start] + bytes(end - start) + data[end:] if number == packet else data

    return copy_packets(source, target, change)


@pytest.mark.parametrize("name", ["h264.mp4", "h264.mkv", "short_groups.mp4", "hevc.mp4"])
@pytest.mark.parametrize("first, length", [(10, None), (30, 40), (45, 12)])
def test_the_nearest_undamaged_frame_stands_for_a_damaged_one(clips, tmp_path, name, first, length):
    clean = read_frames(clips[name], range(FRAMES))
    path = zeroed(clips[name], tmp_path / name, large_packet(clips[name], first), length)
    with VideoFile(path) as opened:
        with pytest.raises(VideoError, match="damaged|decoded"):
            opened.read_clip(FRAMES)
        shown = opened.read_clip(FRAMES, on_damage="nearest")
        numbers = stamps(shown)
        sound = {number for number in numbers if numbers[number] == number}
        assert opened.replaced == FRAMES - len(sound) > 0
        assert opened.replaced <= 16 or name != "short_groups.mp4"  # two groups of 7, and a little
        assert np.array_equal(shown, clean[numbers])  # none is blank or concealed
        for number in range(FRAMES):
            assert abs(numbers[number] - number) == min(abs(one - number) for one in sound)
        assert np.array_equal(opened.read_clip(2, 0, 0.1, "nearest"), clean[[0, 2]])
        assert opened.replaced == 0


def test_what_is_predicted_from_a_damaged_picture_is_damaged_too(clips, tmp_path, monkeypatch):
    """Decoders mark the first picture of a loss only, and the next ones are grey."""
    monkeypatch.setattr(decoding, "_hole", lambda *_: None)  # the decoder alone has to see it
    clean = read_frames(clips["h264.mp4"], range(FRAMES))
    path = zeroed(clips["h264.mp4"], tmp_path / "hole.mp4", 0, 100)
    for number in (*range(0, FRAMES, 9), FRAMES - 1):
        with pytest.raises(VideoError, match=f"frame {number} "):
            assert np.array_equal(read_frames(path, [number])[0], clean[number])


def test_a_clip_without_an_undamaged_frame_is_an_error_and_so_is_a_wrong_choice(clips, tmp_path):
    path = zeroed(clips["h264.mp4"], tmp_path / "hole.mp4", 0, 400)
    with pytest.raises(VideoError, match="no frame of 0 to 59 is undamaged|holds no frame"):
        read_clip(path, on_damage="nearest")
    with pytest.raises(InputError, match="on_damage is 'error' or 'nearest', got 'blank'"):
        read_clip(clips["h264.mp4"], on_damage="blank")
    with pytest.raises(InputError, match="decord does not say"):
        read_clip(clips["h264.mp4"], decoder="decord", on_damage="nearest")


def test_a_damaged_first_keyframe_costs_its_group_only(clips, tmp_path):
    path = zeroed(clips["short_groups.mp4"], tmp_path / "hole.mp4", 0)
    shown = stamps(read_clip(path, FRAMES, on_damage="nearest"))
    assert set(shown) == set(range(7, FRAMES)) and shown == sorted(shown)


def test_zeros_that_a_packet_may_hold_are_no_hole(clips, tmp_path):
    """Some encoders pad the end of a unit, and a vector of small pictures is full of zeros."""

    def pad(number: int, data: bytes) -> bytes:
        size = int.from_bytes(data[:4], "big")
        if number != 30 or size + 4 != len(data):
            return data
        return (size + 9).to_bytes(4, "big") + data[4:] + bytes(9)

    path = copy_packets(clips["h264.mp4"], tmp_path / "padded.mp4", pad)
    assert path.stat().st_size > clips["h264.mp4"].stat().st_size
    clean = read_frames(clips["h264.mp4"], range(FRAMES))
    assert np.array_equal(read_frames(path, range(FRAMES)), clean)


def test_packets_before_the_first_key_frame_are_no_frames(clips, tmp_path):
    path = copy_packets(
        clips["short_groups.mp4"], tmp_path / "late.mkv", lambda n, data: None if n == 0 else data
    )
    frames = read_frames(path, range(probe_video(path).frame_count))
    assert stamps(frames) == list(range(7, FRAMES))


@pytest.mark.parametrize("name", ["h264.mp4", "open_hevc.mp4", "short_groups.mp4"])
def test_frames_that_an_edit_list_cuts_off_are_no_frames(clips, tmp_path, name):
    options = {"avoid_negative_ts": "disabled", "use_editlist": "1"}
    with (
        av.open(str(clips[name])) as old,
        av.open(str(tmp_path / "cut.mp4"), "w", options=options) as new,
    ):
        stream = new.add_stream_from_template(old.streams.video[0])
        for packet in old.demux(video=0):
            if packet.size:
                packet.pts, packet.dts = packet.pts - 12288, packet.dts - 12288  # one second
                packet.stream = stream
                new.mux(packet)
    info = probe_video(tmp_path / "cut.mp4")
    assert info.frame_count == FRAMES - 24 and info.duration == pytest.approx(1.5)
    with VideoFile(tmp_path / "cut.mp4") as opened:
        assert stamps(opened.read(range(36))) == list(range(24, 60))
        assert stamps(opened.read([35, 0, 20])) == [59, 24, 44]


def test_without_decord_all_is_read_and_only_decord_is_refused(clips, monkeypatch):
    monkeypatch.setitem(sys.modules, "decord", None)  # importing it raises ImportError
    for name, path in clips.items():
        with VideoFile(path) as opened:
            assert stamps(opened.read([7, 8])) == [7, 8], name
    with pytest.raises(VideoError, match=r'decord: cannot be imported.*"lift\[decord\]"'):
        read_frames(clips["h264.mp4"], [7], decoder="decord")


@needs_decord
def test_decord_reads_where_it_is_asked_and_pyav_elsewhere(clips, monkeypatch):
    def broken(self, index, width, height):
        raise decoding.DecoderFault("is out of order")

    for decoder, reader in {"pyav": decoding.DecordReader, "decord": decoding.PyAVReader}.items():
        with monkeypatch.context() as patch:
            patch.setattr(reader, "__init__", broken)
            assert stamps(read_frames(clips["h264.mp4"], [7, 8], decoder=decoder)) == [7, 8]


def test_a_decoder_that_hangs_is_given_up():
    release = threading.Event()
    began = time.monotonic()
    with pytest.raises(decoding.DecoderFault, match="no answer"):
        decoding._ask_decord(0.1, release.wait)
    assert time.monotonic() - began < 5
    release.set()


def test_an_error_survives_the_way_from_a_worker():
    error = pickle.loads(pickle.dumps(VideoError("a.mp4", "is broken")))
    assert (error.path, error.cause, str(error)) == ("a.mp4", "is broken", "a.mp4: is broken")


# writing


@pytest.mark.parametrize("name", ["h264.mp4", "hevc.mp4", "vp9.webm", "h264.mkv"])
def test_the_same_frames_give_the_same_bytes(clips, tmp_path, name):
    again = write_video(
        tmp_path / f"again{Path(name).suffix}", map(stamped, range(FRAMES)), codec=FILES[name][0]
    )
    assert again.read_bytes() == clips[name].read_bytes()


def test_all_frames_can_be_key_frames(clips):
    with av.open(str(clips["intra.mp4"])) as container:
        assert all(packet.is_keyframe for packet in container.demux(video=0) if packet.size)


@pytest.mark.parametrize("rate", [24, 29.97, 30000 / 1001, 12.5])
def test_the_frame_rate_is_kept(tmp_path, rate):
    path = write_video(tmp_path / "rate.mp4", map(stamped, range(10)), frames_per_second=rate)
    assert probe_video(path).frames_per_second == pytest.approx(rate, rel=1e-4)


@pytest.mark.parametrize(
    ("frames", "options", "cause"),
    [
        ([], {}, "no frame to write"),
        (np.zeros((2, 95, 128, 3), np.uint8), {}, "even sizes, got 128 x 95"),
        (np.zeros((2, 96, 128, 3), np.float32), {}, "frame 0 is float32"),
        (np.zeros((2, 96, 128), np.uint8), {}, "frame 0 is uint8"),
        (
            [np.zeros((96, 128, 3), np.uint8), np.zeros((64, 128, 3), np.uint8)],
            {},
            "frame 1 is uint8 .*the first has the shape",
        ),
        (
            np.zeros((2, 96, 128, 3), np.uint8),
            {"codec": "no-such-codec"},
            "cannot be written with no-such-codec",
        ),
        (
            np.zeros((2, 96, 128, 3), np.uint8),
            {"frames_per_second": 0},
            "frames_per_second=0: choose",
        ),
    ],
)
def test_a_bad_video_is_not_written_and_leaves_nothing(tmp_path, frames, options, cause):
    with pytest.raises(VideoError, match=cause):
        write_video(tmp_path / "bad.mp4", frames, **options)
    assert list(tmp_path.iterdir()) == []


def test_a_killed_writer_leaves_the_old_video(clips, tmp_path):
    path = write_video(tmp_path / "kept.mp4", map(stamped, range(4)))
    before = path.read_bytes()

    def interrupted():
        yield stamped(0)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_video(path, interrupted())
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


# the rest


def test_importing_the_module_brings_no_decoder():
    heavy = {"av", "decord", "torch", "matplotlib"}
    code = f"import sys, lift.video; print(sorted({heavy} & set(sys.modules)))"
    command = [sys.executable, "-c", code]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert shown == "[]\n"


@needs_decord
def test_real_clips(shared):
    paths = sorted(
        path for path in (shared / "clips").iterdir() if path.suffix in (".mp4", ".webm")
    )
    assert paths
    for path in paths:
        info = probe_video(path)
        frames = read_clip(path, size=112, decoder="decord")
        assert frames.shape[0] == 16 and min(frames.shape[1:3]) == min(112, info.width, info.height)
        assert np.array_equal(frames, read_clip(path, size=112, decoder="pyav"))
        assert frames.std() > 5 and len({frame.tobytes() for frame in frames}) > 8
