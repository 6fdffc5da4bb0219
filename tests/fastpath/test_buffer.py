"""`Buffer` of both parts against a plain model: the same operations, the same results."""

from __future__ import annotations

import random

import pytest


class Model:
    """A buffer that is nothing but bytes."""

    def __init__(self):
        self.data = b""

    def __len__(self):
        return len(self.data)

    def append(self, data):
        self.data += bytes(data)

    def line_end(self):
        return self.data.find(b"\n") + 1

    def peek(self, size):
        if size < 0:
            raise ValueError
        return self.data[:size]

    def advance(self, size):
        if not 0 <= size <= len(self.data):
            raise ValueError
        self.data = self.data[size:]

    def take(self, size):
        taken = self.peek(size)
        self.advance(size)
        return taken

    def clear(self):
        self.data = b""


def operation(chance, size):
    """A random operation on a buffer of `size` bytes: (method, arguments)."""
    kind = chance.choice(
        ["append"] * 4 + ["line_end"] * 3 + ["take"] * 3 + ["advance", "peek", "clear"]
    )
    if kind == "append":
        length = chance.choice([0, 1, 2, 10, 100, 5000])
        text = bytes(chance.choices(b"ab\0\xff\r\n" if length < 50 else b"ab", k=length))
        return kind, (chance.choice([bytes, bytearray, memoryview])(text),)
    if kind in ("take", "advance", "peek"):
        return kind, (chance.choice([0, 1, size // 2, size - 1, size, size + 1, -1]),)
    if kind == "clear" and chance.random() < 0.9:
        return "line_end", ()
    return kind, ()


def apply(buffer, method, arguments):
    try:
        return getattr(buffer, method)(*arguments)
    except ValueError:
        return ValueError


@pytest.mark.parametrize("seed", range(20))
def test_random_operations(parts, seed):
    chance = random.Random(seed)
    buffer, model = parts.Buffer(), Model()
    for number in range(2000):
        step = operation(chance, len(model))
        result, expected = apply(buffer, *step), apply(model, *step)
        assert (result, len(buffer)) == (expected, len(model)), (seed, number, step)
    assert buffer.take(len(model)) == model.data


def test_lines_one_after_another(parts):
    buffer = parts.Buffer()
    buffer.append(b"one\n\ntwo\nthr")
    taken = []
    while end := buffer.line_end():
        taken.append(buffer.take(end))
    assert taken == [b"one\n", b"\n", b"two\n"]
    assert buffer.line_end() == 0
    buffer.append(b"ee\n")
    assert buffer.take(buffer.line_end()) == b"three\n"


def test_what_is_taken_is_bytes_and_stays(parts):
    buffer = parts.Buffer()
    source = bytearray(b"abc\n")
    buffer.append(source)
    source[:] = b"xyz\n"
    taken = buffer.take(2)
    assert type(taken) is bytes
    buffer.append(b"q" * 100_000)
    assert taken == b"ab"


def test_a_search_begins_where_the_last_one_ended(parts):
    """Time in proportion to the bytes: a line in small pieces is not searched anew each time."""
    buffer = parts.Buffer()
    for _ in range(300_000):
        buffer.append(b"x" * 100)
        assert buffer.line_end() == 0
    buffer.append(b"\n")
    assert buffer.line_end() == 30_000_001


def test_taking_from_the_front_does_not_move_the_rest(parts):
    buffer = parts.Buffer()
    buffer.append(b"x\n" * 4_000_000)
    for _ in range(400_000):
        assert buffer.take(buffer.line_end()) == b"x\n"
    assert len(buffer) == 7_200_000


def test_what_is_no_buffer_of_bytes(parts):
    buffer = parts.Buffer()
    for wrong in ("text", None, 5.0):
        with pytest.raises(TypeError):
            buffer.append(wrong)
    assert len(buffer) == 0
