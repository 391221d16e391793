"""How one shard is worked: read ahead, decode and encode in a codec process, write behind.

Import from the modules: a codec process loads only what it needs, and neither Arrow nor Prefect.
"""
