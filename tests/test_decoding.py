"""Refusals of the index and the decoders that no file at hand provokes; those of files are in test_video."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from lift import decoding
from lift.decoding import DecoderFault, PyAVReader, VideoError, _breaks, _counted, index_video
from lift.video import write_video


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    """The index of a file of six frames."""
    path = tmp_path_factory.mktemp("video") / "clip.mp4"
    write_video(path, np.zeros((6, 32, 32, 3), np.uint8))
    return index_video(path)


def test_a_range_of_which_nothing_is_left_is_refused(index):
    damaged = replace(index, damaged=np.arange(2, 6))
    assert damaged.sound(range(0, 4)).tolist() == [0, 1]
    with pytest.raises(VideoError, match="data of frames 2 to 5 were lost"):
        damaged.sound(range(2, 6))


def test_a_picture_without_a_stamp_is_no_frame(index, monkeypatch):
    by_packet = decoding._by_packet

    def unstamped(*arguments):
        for picture in by_packet(*arguments):
            picture.pts = None if picture.pts == 3 else picture.pts
            yield picture

    reader, lost = PyAVReader(index, 32, 32), int(index.frames[3])
    monkeypatch.setattr(decoding, "_by_packet", unstamped)
    assert len(reader.read(np.array([4]))) == 1
    with pytest.raises(DecoderFault, match=f"frame {lost} is missing"):
        PyAVReader(index, 32, 32).read(np.array([lost]))
    reader.close()


def test_frames_that_are_lacking_before_a_keyframe_are_no_guess():
    keys, packets = np.array([0, 4]), np.array([0, 4])
    pictures = [SimpleNamespace(pts=pts) for pts in (0, 1, 2, 3, 4, None)]
    assert [number for number, _ in _counted(pictures, keys, packets)] == [0, 1, 2, 3, 4, 5]
    with pytest.raises(DecoderFault, match="frames before 4 are missing"):
        list(_counted(pictures[:2] + pictures[4:], keys, packets))


def test_a_clock_of_three_stamps_does_not_begin_anew():
    assert _breaks([100, 0, 1], 10) == []
    assert _breaks([100, 101, 0, 1, 2], 10) == [2]
