import io

import pytest
from PIL import Image

from darkroom.tasks.imaging.formats.registry import PILLOW_NAMES
from darkroom.tasks.imaging.formats.sniff import SNIFFED_BYTES, is_image


@pytest.mark.parametrize("name", ["AVIF", "BMP", "GIF", "ICO", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP"])
def test_the_first_bytes_of_every_format_are_recognised(name):
    assert name in PILLOW_NAMES
    file = io.BytesIO()
    Image.effect_noise((256, 256), 50).convert("RGB").save(file, name)
    assert is_image(file.getvalue()[:SNIFFED_BYTES])


@pytest.mark.parametrize("head", [b"8BPS\0\1", b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg">'])
def test_images_of_unsupported_formats_are_recognised(head):
    assert is_image(head)


@pytest.mark.parametrize(
    "head",
    [b"", b"text", b"%PDF-1.7\n", b"\x1f\x8b\x08\0", b"\0" * 4096, b"<!DOCTYPE html><html>", b"\0\0\0\x18ftypmp42"],
)
def test_other_files_are_not_images(head):
    assert not is_image(head)
