"""Compile the Triton kernels of pyramid attention without a GPU and report what they need of one."""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from panet_plugin.ops.precision import PRODUCTS
from panet_plugin.ops.triton_backend import TILINGS, constants, has_small_tiles, padded

if TYPE_CHECKING:
    import triton

#: Images, whose type is that of the products; all other pointers are to float32, the table of levels apart.
IMAGES = ("query", "keys", "values", "grad")


class Need(NamedTuple):
    """What a kernel needs of a GPU: of a thread, of a program; and how many instructions do products in it."""

    registers: int
    spilled_bytes: int
    shared_bytes: int
    matrix_instructions: int
    fma_instructions: int


def main() -> None:
    """Compile every kernel for every architecture and precision."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--arch", type=int, nargs="+", default=[80, 90, 100], help="compute capabilities times 10")
    parser.add_argument(
        "--products", nargs="+", choices=PRODUCTS, default=list(PRODUCTS), help="precisions of the operands of products"
    )
    kernels = [*dict.fromkeys(name.removesuffix("_kernel") for name, _ in TILINGS), "mean", "fold", "level"]
    parser.add_argument("--kernels", nargs="+", choices=kernels, default=kernels, help="which")
    parser.add_argument("--channels", type=int, default=32, help="channels that are matched")
    parser.add_argument("--depth", type=int, default=64, help="channels that are pasted")
    parser.add_argument("--small", action="store_true", help="the tiles of small maps")
    options = parser.parse_args()
    from panet_plugin.ops import triton_kernels  # where there is no Triton, --help works all the same

    titles = ("registers", "spilled bytes", "shared bytes", "MMA", "FMA")
    print(f"{'kernel':16}{'products':10}{'target':8}" + "".join(f"{title:>15}" for title in titles))
    for arch in options.arch:
        for products in options.products:
            for name in [f"{kernel}_kernel" for kernel in options.kernels]:
                small = options.small or has_small_tiles(arch, products)
                fixed = constants(name, padded(options.channels), padded(options.depth), products, small)
                fixed["DIVISOR"] = 1
                need = measure(getattr(triton_kernels, name), fixed, products, arch)
                cells = "".join(f"{number:15}" for number in need)
                print(f"{name.removesuffix('_kernel'):16}{products:10}sm_{arch:<5}{cells}", flush=True)


def measure(kernel: triton.JITFunction, fixed: dict, products: str, arch: int) -> Need:
    """Compile a kernel with its constants and options."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from panet_plugin.ops.triton_kernels import SIZES

    images = "*bf16" if products == "bf16" else "*fp32"
    types = {
        name: "constexpr"
        if name in fixed
        else "i32"
        if name in SIZES
        else "*i32"
        if name == "levels"
        else images
        if name in IMAGES
        else "*fp32"
        for name in kernel.arg_names
    }
    values = {name: fixed[name] for name in types if name in fixed}
    compiled = triton.compile(
        ASTSource(kernel, types, values, alignment([i for i, kind in enumerate(types.values()) if kind[0] == "*"])),
        target=GPUTarget("cuda", arch, 32),
        options={name: fixed[name] for name in ("num_warps", "num_stages") if name in fixed},
    )
    ptx = compiled.asm["ptx"]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "kernel.ptx")
        path.write_text(ptx)
        target = re.search(r"\.target (sm_\w+)", ptx).group(1)
        command = [assembler(arch), "-v", f"-arch={target}", path, "-o", os.devnull]
        log = subprocess.run(command, check=True, capture_output=True, text=True).stderr
    registers, spills = (re.search(p, log).group(1) for p in (r"Used (\d+) registers", r"(\d+) bytes spill stores"))
    count = [len(re.findall(p, ptx)) for p in (r"\b(?:mma\.sync|wgmma\.mma_async|tcgen05\.mma)\b", r"\bfma\.rn\.f32")]
    return Need(int(registers), int(spills), compiled.metadata.shared, *count)


def alignment(pointers: list[int]) -> Any:
    """Return, as each Triton wants it, that some arguments are multiples of 16 bytes: torch allocates there."""
    import triton

    if hasattr(triton.compiler, "AttrsDescriptor"):  # 3.0, 3.1
        return triton.compiler.AttrsDescriptor(set(pointers), set())
    backend = triton.backends.compiler
    if hasattr(backend, "AttrsDescriptor"):  # 3.2
        return backend.AttrsDescriptor.from_hints(dict.fromkeys(pointers, 16))
    return {(i,): [["tt.divisibility", 16]] for i in pointers}


def assembler(arch: int) -> Path:
    """Return the path of the assembler that Triton brings for an architecture."""
    import triton

    folder = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
    newer = folder / "ptxas-blackwell"
    return newer if arch >= 100 and newer.exists() else folder / "ptxas"


if __name__ == "__main__":
    main()
