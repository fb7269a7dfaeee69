"""Compile the Triton kernels of pyramid attention without a GPU and report what they need of one."""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import triton

#: The published block: embeddings of 32 and 64 channels.
BLOCKS = {"C": 32, "C_BLOCK": 32, "D": 64, "D_BLOCK": 64}


def main() -> None:
    """Compile every kernel for every architecture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--arch", type=int, nargs="+", default=[80, 90], help="compute capabilities times 10")
    options = parser.parse_args()
    from panet_plugin.ops import triton_kernels as kernels  # where there is no Triton, --help works all the same

    print(f"{'kernel':16}{'target':8}{'registers':>11}{'spilled bytes':>15}{'shared bytes':>14}")
    for arch in options.arch:
        for name in sorted(name for name in vars(kernels) if name.endswith("_kernel")):
            registers, spills, shared = measure(getattr(kernels, name), arch)
            print(f"{name.strip('_'):16}sm_{arch:<5}{registers:11}{spills:15}{shared:14}")


def measure(kernel: triton.JITFunction, arch: int) -> tuple[int, int, int]:
    """Compile a kernel and return its registers per thread, spilled bytes and bytes of shared memory."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    types = {name: argument_type(name) for name in kernel.arg_names}
    constants = {(i,): BLOCKS[name] for i, name in enumerate(types) if name in BLOCKS}
    # torch allocates at multiples of 16 bytes, which Triton makes use of.
    aligned = {(i,): [["tt.divisibility", 16]] for i, kind in enumerate(types.values()) if kind.startswith("*")}
    compiled = triton.compile(ASTSource(kernel, types, constants, aligned), target=GPUTarget("cuda", arch, 32))
    ptx = compiled.asm["ptx"]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "kernel.ptx")
        path.write_text(ptx)
        target = re.search(r"\.target (sm_\w+)", ptx).group(1)
        command = [triton.knobs.nvidia.ptxas.path, "-v", f"-arch={target}", path, "-o", os.devnull]
        log = subprocess.run(command, check=True, capture_output=True, text=True).stderr
    registers, spills = (re.search(p, log).group(1) for p in (r"Used (\d+) registers", r"(\d+) bytes spill stores"))
    return int(registers), int(spills), compiled.metadata.shared


def argument_type(name: str) -> str:
    """Return the type of a kernel's argument, which its name tells."""
    if name in BLOCKS:
        return "constexpr"
    from panet_plugin.ops.triton_kernels import SIZES

    if name in SIZES:
        return "i32"
    return "*i32" if name == "levels" or name.endswith(("_first", "_stop", "_from", "_to")) else "*fp32"


if __name__ == "__main__":
    main()
