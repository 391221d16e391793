"""What a destination holds: layout, manifest, journal, lease, and SQL over them."""
