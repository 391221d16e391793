import pytest

from darkroom.tasks.imaging import bands
from tests.fuzz.samples import samples
from tests.tasks.imaging.reference import run


@pytest.mark.parametrize(
    "name", ["png/rgba", "png/palette alpha", "jpeg/cmyk", "png/profile", "tiff/deep rgb", "gif/transparent"]
)
def test_the_size_of_bands_changes_no_output(name, monkeypatch):
    recipes = [
        {"width": 90, "height": 70, "filter": "lanczos", "format": "png"},
        {"width": 31, "height": 70, "fit": "cover", "format": "png"},
        {"width": 31, "height": 20, "background": "#123456"},
        {"width": 61, "height": 43, "format": "webp", "color": "gray"},
    ]
    whole = [run(samples()[name], **recipe).data for recipe in recipes]
    for pixels in (1, 150, 1000):
        monkeypatch.setattr(bands, "BAND_PIXELS", pixels)
        assert [run(samples()[name], **recipe).data for recipe in recipes] == whole
