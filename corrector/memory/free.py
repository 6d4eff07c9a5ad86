"""How much memory a device has free now: a GPU by its driver, this machine by its kernel and its container's limit."""

from __future__ import annotations

import os
from pathlib import Path

import torch

PROC = Path("/proc")
CGROUPS = Path("/sys/fs/cgroup")


def free(device: str | torch.device) -> int:
    """Bytes that can still be allocated on a device.

    On the CPU: what the kernel calls available (free, and caches that it would give up), and no more than the limits
    of the control groups that this process is in leave.
    """
    at = torch.device(device)
    if at.type == "cuda":
        return int(torch.cuda.mem_get_info(at)[0])
    return min([_available(PROC), *_left_by_groups(PROC, CGROUPS)])


def _available(proc: Path) -> int:
    try:
        for line in (proc / "meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:  # no Linux
        pass
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _left_by_groups(proc: Path, groups: Path) -> list[int]:
    """Limit less use of every control group with a limit, this process's own and those above it, of version 2 or 1."""
    left: list[int] = []
    for folder, limit, use, idle in _folders(proc, groups):
        try:
            most = int((folder / limit).read_text())
            used = int((folder / use).read_text())
            stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        except (OSError, ValueError):  # no such group, or `max`: no limit
            continue
        left.append(max(0, most - used + int(stat.get(idle, 0))))
    return left


def _folders(proc: Path, groups: Path) -> list[tuple[Path, str, str, str]]:
    """Folders of this process's groups, with the names of limit, use, and of file pages that can be given up."""
    try:
        lines = [line.split(":", 2) for line in (proc / "self" / "cgroup").read_text().splitlines()]
    except OSError:
        return []
    found: list[tuple[Path, str, str, str]] = []
    for _, controllers, name in lines:
        if not controllers:
            top, files = groups, ("memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            top = groups / "memory"
            files = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        else:
            continue
        own = top / name.lstrip("/")
        # a container sees its own group at the top, under another name than its own
        for folder in (own, *own.parents):
            if folder.is_relative_to(top):
                found.append((folder, files[0], files[1], files[2]))
    return found


def gigabytes(n: int) -> str:
    """Bytes as text, in GiB (2³⁰) or MiB (2²⁰)."""
    return f"{n / 2**30:.1f} GiB" if n >= 2**30 else f"{n / 2**20:.1f} MiB"
