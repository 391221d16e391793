"""Make ICC profiles from coding-independent code points (CICP, ITU-T H.273), the numbers of standard colour spaces."""

from __future__ import annotations

import struct

import numpy as np
import numpy.typing as npt

Vector = npt.NDArray[np.float64]

D65 = (0.3127, 0.3290)
BT601_525 = (0.630, 0.340, 0.310, 0.595, 0.155, 0.070, *D65)

PRIMARIES = {
    1: (0.640, 0.330, 0.300, 0.600, 0.150, 0.060, *D65),  # BT.709, sRGB
    4: (0.670, 0.330, 0.210, 0.710, 0.140, 0.080, 0.310, 0.316),  # BT.470 M
    5: (0.640, 0.330, 0.290, 0.600, 0.150, 0.060, *D65),  # BT.601 625
    6: BT601_525,
    7: BT601_525,
    9: (0.708, 0.292, 0.170, 0.797, 0.131, 0.046, *D65),  # BT.2020
    11: (0.680, 0.320, 0.265, 0.690, 0.150, 0.060, 0.314, 0.351),  # DCI-P3
    12: (0.680, 0.320, 0.265, 0.690, 0.150, 0.060, *D65),  # Display P3
    22: (0.630, 0.340, 0.295, 0.605, 0.155, 0.077, *D65),  # EBU 3213
}
"""Chromaticities x, y of red, green, blue and white."""

BT709_CURVE = (1 / 0.45, 1 / 1.099, 0.099 / 1.099, 1 / 4.5, 0.081)

TRANSFER_CURVES = {
    1: BT709_CURVE,
    4: (2.2, 1.0, 0.0, 0.0, 0.0),
    5: (2.8, 1.0, 0.0, 0.0, 0.0),
    6: BT709_CURVE,
    8: (1.0, 1.0, 0.0, 0.0, 0.0),
    13: (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045),  # sRGB
    14: BT709_CURVE,
    15: BT709_CURVE,
}
"""Parameters g, a, b, c, d of ICC's parametric curve: (a·x + b)^g from d on, else c·x. PQ and HLG have none."""

D50 = np.array([0.9642, 1.0, 0.8249])
BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])


def profile_of(primaries: int, transfer: int) -> bytes | None:
    """Return an ICC profile for RGB of these code points; None if they are unknown, or no profile can describe them."""
    if primaries not in PRIMARIES or transfer not in TRANSFER_CURVES:
        return None
    curve = b"para" + bytes(4) + struct.pack(">HH", 3, 0) + _fixed(*TRANSFER_CURVES[transfer])
    colorants = _colorants(PRIMARIES[primaries]).T
    tags = {b"wtpt": _xyz(D50)}
    for name, colorant in zip((b"r", b"g", b"b"), colorants, strict=True):
        tags |= {name + b"XYZ": _xyz(colorant), name + b"TRC": curve}
    table, body, start = b"", b"", 132 + 12 * len(tags)
    for tag, content in tags.items():
        table += tag + struct.pack(">II", start + len(body), len(content))
        body += content
    header = struct.pack(">II", start + len(body), 0) + b"\x04\0\0\0mntrRGB XYZ " + bytes(12) + b"acsp"
    header += bytes(28) + _fixed(*D50) + bytes(48)
    return header + struct.pack(">I", len(tags)) + table + body


def _colorants(chromaticities: tuple[float, ...]) -> Vector:
    """Return (3, 3): red, green and blue as columns of XYZ, adapted to D50."""
    x, y = np.array(chromaticities).reshape(4, 2).T
    directions = np.array([x / y, np.ones(4), (1 - x - y) / y])
    white = directions[:, 3]
    columns = directions[:, :3] * np.linalg.solve(directions[:, :3], white)
    adaptation = np.linalg.inv(BRADFORD) @ np.diag((BRADFORD @ D50) / (BRADFORD @ white)) @ BRADFORD
    return np.asarray(adaptation @ columns)


def _xyz(values: Vector) -> bytes:
    return b"XYZ " + bytes(4) + _fixed(*values)


def _fixed(*numbers: float) -> bytes:
    return struct.pack(f">{len(numbers)}i", *(round(number * 65536) for number in numbers))
