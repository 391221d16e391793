"""Settings of the codec libraries that belong to the process, made once by each codec process."""

from __future__ import annotations

import warnings

import cv2
from PIL import AvifImagePlugin


def configure_codecs() -> None:
    """Keep codecs to one thread each, and Pillow from warning of what becomes a row's warning or nothing.

    Codec processes are many already: codecs with threads of their own would only take turns. `transform` gives the
    same bytes without this.
    """
    cv2.setNumThreads(1)
    AvifImagePlugin.DEFAULT_MAX_THREADS = 1
    warnings.simplefilter("ignore")
