"""Process the images of a shard: read ahead, decode and encode in a codec process, write behind.

This package exports nothing, so that a codec process loads neither Arrow nor Prefect: import from the modules.
"""
