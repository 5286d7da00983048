from __future__ import annotations

import io

import numpy as np
import pytest

from onnxq.runtime.frames import read_frame, write_frame


def framed(tree):
    stream = io.BytesIO()
    write_frame(stream, tree)
    return stream.getvalue()


def test_messages_follow_one_another():
    stream = io.BytesIO(framed({"a": np.arange(3)}) + framed(["b", b"c"]))
    np.testing.assert_array_equal(read_frame(stream)["a"], [0, 1, 2])
    assert read_frame(stream) == ["b", b"c"]
    with pytest.raises(EOFError):
        read_frame(stream)


@pytest.mark.parametrize("kept", [3, 8, 20, -1])
def test_a_stream_that_ends_inside_a_message(kept):
    with pytest.raises(EOFError):
        read_frame(io.BytesIO(framed({"array": np.arange(5)})[:kept]))


def test_a_length_that_no_message_has():
    with pytest.raises(ValueError, match="bytes of text"):
        read_frame(io.BytesIO(b"\xff" * 8))


def test_arrays_arrive_writable_and_of_the_same_bytes():
    array = np.array([[1.5, np.nan], [np.inf, -0.0]], np.float32)
    found = read_frame(io.BytesIO(framed(array)))
    assert found.tobytes() == array.tobytes()
    found[0, 0] = 2


def test_arrays_start_where_those_of_the_runtime_do():
    arrays = [np.arange(count, dtype=np.float32) for count in (1, 3, 0, 17)]
    found = read_frame(io.BytesIO(framed([b"odd", *arrays])))[1:]
    assert all(array.ctypes.data % 64 == 0 for array in found if array.size)
    for array, other in zip(arrays, found, strict=True):
        np.testing.assert_array_equal(array, other)
