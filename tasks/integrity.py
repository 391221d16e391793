"""Find damage in the Parquet files of a destination before anything is built on them.

Every page that Darkroom writes carries a checksum. DuckDB does not look at it, and most flipped bits decompress to
other values without any error; so what a run is based on is first read through pyarrow, which does.
"""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

_BATCH_ROWS = 65_536


def damage(file: Path) -> str | None:
    """Say what is wrong with a Parquet file, reading all of it in bounded memory; None if it is whole."""
    try:
        with pq.ParquetFile(file, page_checksum_verification=True) as parquet:
            rows = 0
            for batch in parquet.iter_batches(_BATCH_ROWS):
                # What a page's header says of it is not covered by its checksum.
                batch.validate(full=True)
                rows += batch.num_rows
            if rows != parquet.metadata.num_rows:
                return f"{rows:,} of {parquet.metadata.num_rows:,} rows can be read"
    except (pa.ArrowException, OSError) as error:
        return str(error)
    return None
