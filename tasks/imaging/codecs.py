"""Settings of the codec libraries that belong to the process, made once by each codec process."""

from __future__ import annotations

import ctypes
import logging
import warnings
from pathlib import Path

import cv2
import PIL
from PIL import AvifImagePlugin


def configure_codecs() -> None:
    """Keep codecs to one thread each and quiet.

    Codec processes are many already: codecs with threads of their own would only take turns. `transform` gives the
    same bytes without this.
    """
    cv2.setNumThreads(1)
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    # Its log repeats, without the file's name, what the exceptions say.
    logging.getLogger("PIL").setLevel(logging.CRITICAL)
    warnings.simplefilter("ignore")
    AvifImagePlugin.DEFAULT_MAX_THREADS = 1
    _silence_libtiff()


def _silence_libtiff() -> None:
    """Keep libtiff from printing what Pillow raises; a system's own libtiff stays as it is."""
    pillow = Path(PIL.__file__).parent
    for folder in (pillow.parent / "pillow.libs", pillow / ".dylibs"):
        for library in folder.glob("libtiff*"):
            ctypes.CDLL(str(library)).TIFFSetErrorHandler(None)
