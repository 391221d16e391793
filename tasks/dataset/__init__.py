"""The contents of a destination: layout, manifest, journal, lease, and SQL over them."""
