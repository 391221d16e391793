import struct

from darkroom.tasks.imaging.formats.isobmff import boxes, brands


def test_boxes_of_every_kind_of_length():
    long = struct.pack(">I4sQ", 1, b"long", 20) + b"1234"
    data = struct.pack(">I4s", 10, b"abcd") + b"xy" + long + struct.pack(">I4s", 0, b"last") + b"rest"
    assert [(box.kind, data[box.start : box.end]) for box in boxes(data)] == [
        (b"abcd", b"xy"),
        (b"long", b"1234"),
        (b"last", b"rest"),
    ]
    assert [box.kind for box in boxes(struct.pack(">I4s", 3, b"loop") + data)] == [b"loop"]


def test_brands_are_those_of_the_first_box():
    assert brands(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + b"avif") == {b"heic", b"mif1"}
    assert brands(b"\0\0\0\x18moovheic") == set()
