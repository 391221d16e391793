"""Settings of the codec libraries that belong to the process, made once by each worker."""

from __future__ import annotations

import logging

import cv2
from PIL import AvifImagePlugin


def configure_codecs() -> None:
    """Keep codecs to one thread each and quiet; workers call it once, before their first image.

    Workers are many already: codecs with threads of their own would only take turns. `transform` gives the
    same bytes without this.
    """
    cv2.setNumThreads(1)
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    # Its log repeats, without the file's name, what the exceptions say.
    logging.getLogger("PIL").setLevel(logging.CRITICAL)
    AvifImagePlugin.DEFAULT_MAX_THREADS = 1
