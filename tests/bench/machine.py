# SPDX-License-Identifier: Apache-2.0
"""What the benches say about the machine that they ran on."""

import os
import platform
import re


def machine(temp_root):
    """The processor, the cores that may be used, the kernel, and the file system of a folder."""
    model = "unknown"
    with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as cpuinfo:
        found = re.search(r"^model name\s*:\s*(.*)$", cpuinfo.read(), re.MULTILINE)
        if found:
            model = found.group(1)
    device = os.stat(temp_root).st_dev
    filesystem = "unknown"
    with open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as mounts:
        for line in mounts:
            fields = line.split()
            if fields[2] == f"{os.major(device)}:{os.minor(device)}":
                filesystem = fields[fields.index("-") + 1]
    return {
        "cpu": model,
        "cores": len(os.sched_getaffinity(0)),
        "kernel": platform.release(),
        "filesystem": filesystem,
    }
