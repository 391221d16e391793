"""How one shard is worked: read ahead, have a codec process decode and encode, write behind.

Import from the modules: codec processes load only `codec_server`, and neither Arrow nor Prefect with it.
"""
