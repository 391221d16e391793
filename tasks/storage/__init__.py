"""Sources and outputs: naming, reading, atomic writing."""
