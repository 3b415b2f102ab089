"""What can be known of a machine's GPUs without torch."""

from __future__ import annotations

import ctypes
import os


def count_gpus() -> int | None:
    """GPUs that the driver shows, None where it can't be asked without torch."""
    if os.path.exists("/dev/kfd"):  # AMD's are called cuda, too
        return None
    try:
        driver = ctypes.CDLL("nvcuda.dll" if os.name == "nt" else "libcuda.so.1")
    except OSError:
        return 0
    count = ctypes.c_int()
    if driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count)):
        return 0
    return count.value
