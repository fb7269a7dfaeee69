"""What is fuzzed: readers of files from strangers, small files to begin with, and what must hold for any input.

``test_fuzz.py`` tries what hypothesis makes of the seeds, ``guided.py`` what atheris finds.
"""

import argparse
import contextlib
import functools
import io
import json
import os
import pickle
import struct
import sys
import tarfile
import tempfile
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from mmengine.config import Config
from mmengine.logging import HistoryBuffer
from PIL import Image

from panet_plugin.archs import PAEDSR
from panet_plugin.command_line import Overrides
from panet_plugin.data import BadImageError, CleanImages
from panet_plugin.data.archives import LARGEST_RATIO, BadArchiveError, extract, is_archive
from panet_plugin.data.image_reader import read_head
from panet_plugin.data.images import decode_image, encode_image
from panet_plugin.data.lmdb_writer import EncodedImage, append_to_lmdb, write_meta_info
from panet_plugin.frameworks.configs import ConfigError, override, read_plain
from panet_plugin.memory import high_water_mark, reset_high_water_mark
from panet_plugin.tasks import SuperResolution
from panet_plugin.weights import CheckpointError, load_official, read_mmengine_config, read_patch, read_task
from panet_plugin.weights import write_checkpoint as write

#: Bytes of memory that no file of the size of the seeds may need, where images have less than so many pixels.
MEMORY, PIXELS = 256 << 20, 1 << 20


class Target(NamedTuple):
    """A reader.

    Attributes:
        read: Reads a content, in a folder that it may write into.
        good: Contents that it reads without an error.
        bad: Contents that it refuses.
        errors: What it may raise.
    """

    read: Callable[[bytes, Path], Any]
    good: Callable[[], list[bytes]]
    bad: Callable[[], list[bytes]]
    errors: tuple[type[BaseException], ...]


class Forbidden(BaseException):
    """What a reader must not do; no reader catches it."""


def check(target: Target, content: bytes) -> bool:
    """Let a reader read, and return whether it did so without an error.

    Raises:
        Forbidden: If it runs something, writes elsewhere or takes too much memory.
        Exception: Whatever else it raises than its errors.
    """
    with tempfile.TemporaryDirectory() as place, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        before = _memory()
        try:
            with _confined_to(Path(place).resolve()):
                target.read(content, Path(place))
            return True
        except target.errors:
            return False
        finally:
            if (taken := high_water_mark() - before) > MEMORY:
                raise Forbidden(f"{taken} bytes of memory for a file of {len(content)}")


def _memory() -> int:
    reset_high_water_mark()
    return high_water_mark()


# Confinement

_RUNNING = (
    "subprocess.Popen",
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "os.fork",
    "socket.connect",
    "pickle.find_class",
)
_CHANGING = ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "os.symlink", "os.truncate", "os.chmod")
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_folder: Path | None = None


@contextlib.contextmanager
def _confined_to(folder: Path) -> Iterator[None]:
    global _folder
    _watch()
    _folder = folder
    try:
        yield
    finally:
        _folder = None


@functools.cache
def _watch() -> None:
    sys.addaudithook(_note)  # for good: Python takes none away


def _note(event: str, arguments: tuple) -> None:
    if _folder is None:
        return
    if event in _RUNNING:
        raise Forbidden(f"{event}: {arguments}")
    writes = event in _CHANGING or (event == "open" and arguments[2] & _WRITING)
    within = event in ("os.mkdir", "os.remove", "os.rmdir") and arguments[-1] != -1  # a folder that was opened before
    if writes and not within and not isinstance(arguments[0], int):
        # As it is told, in the folder or on the way to it: links are forbidden.
        path = Path(os.path.abspath(os.fsdecode(arguments[0])))  # noqa: PTH100 - resolve() would look at the disk
        if path != Path(os.devnull) and not path.is_relative_to(_folder):
            raise Forbidden(f"{event}: {arguments}")


# Checkpoints


class Bomb:
    def __reduce__(self):
        return (open, ("/tmp/executed", "w"))


def _network() -> PAEDSR:
    network = PAEDSR(2, mid_channels=2, num_blocks=1, attention={"levels": 1, "reduction": 1})
    network.trained_patch = 12
    return network.eval()


def _written(suffix: str) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        write(_network(), path := Path(folder, f"net{suffix}"), SuperResolution(2))
        return path.read_bytes()


def _saved(content: Any, **options: Any) -> bytes:
    torch.save(content, stream := io.BytesIO(), **options)
    return stream.getvalue()


def _good_checkpoints() -> list[bytes]:
    state = _network().state_dict()
    generator = {f"generator.{key}": value for key, value in state.items()}
    log = {"loss": HistoryBuffer([1.0], [1])}
    mmengine = {"meta": {"cfg": "model = dict()", "iter": 2}, "state_dict": generator, "message_hub": log}
    return [
        _written(".pth"),
        _saved({"params": state, "params_ema": {f"module.{key}": value.half() for key, value in state.items()}}),
        _saved(mmengine),
        _saved(state, _use_new_zipfile_serialization=False),
    ]


def _bad_checkpoints() -> list[bytes]:
    state = _network().state_dict()
    odd = [
        torch.zeros(1, dtype=torch.half).expand(1 << 28),
        torch.zeros(2, 2).to_sparse(),
        torch.zeros(2, device="meta"),
        torch.zeros(2, dtype=torch.complex64),
        torch.zeros(()),
    ]
    large = io.BytesIO(_saved({"params": {"head.weight": torch.zeros(1 << 27, dtype=torch.half)}}))
    bomb = io.BytesIO()
    with zipfile.ZipFile(large) as file, zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as packed:
        for name in file.namelist():
            packed.writestr(name, file.read(name))
    many = {f"body.{number}.weight": torch.zeros(1 << 12, dtype=torch.half)[:] for number in range(2)}
    return [
        *(_saved({"params": {**state, "head.weight": value}}) for value in odd),
        *(_saved(Bomb(), _use_new_zipfile_serialization=new) for new in (True, False)),
        pickle.dumps(Bomb()),
        bomb.getvalue(),
        _saved(many),
        _saved({"params": state, "panet_plugin": json.dumps({"attention": [], "mid_channels": {}})}),
    ]


def _read_checkpoint(suffix: str) -> Callable[[bytes, Path], None]:
    def read(content: bytes, folder: Path) -> None:
        path = folder / f"net{suffix}"
        path.write_bytes(content)
        for function in (read_mmengine_config, read_task, read_patch):
            with contextlib.suppress(CheckpointError):
                function(path)
        load_official(path)

    return read


# Images


def _good_images() -> list[bytes]:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (6, 5, 3), np.uint8)
    rgb = Image.fromarray(pixels)
    exif = Image.Exif()
    exif[274], exif[271] = 6, "maker"

    def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
        image.save(stream := io.BytesIO(), kind, **options)
        return stream.getvalue()

    deep = (pixels.astype(np.uint16) * 257)[..., :3]
    return [
        saved(rgb, "PNG", exif=exif, icc_profile=b"profile", dpi=(72, 72)),
        *(saved(rgb.convert(mode), "PNG") for mode in ("1", "L", "LA", "P", "RGBA")),
        saved(rgb.convert("P"), "PNG", transparency=3),
        *(saved(rgb.convert(mode), "JPEG", exif=exif) for mode in ("L", "RGB", "CMYK")),
        saved(rgb, "JPEG", progressive=True),
        *(saved(rgb, "WEBP", lossless=lossless, exif=exif) for lossless in (True, False)),
        *(saved(rgb, "TIFF", compression=name) for name in ("raw", "tiff_lzw", "tiff_deflate", "packbits", "jpeg")),
        *(saved(rgb, kind) for kind in ("BMP", "PPM", "GIF", "JPEG2000")),
        *(encode_image(image, suffix) for image in (deep, deep[..., 0]) for suffix in (".png", ".tif")),
        b"P6 5 6 65535\n" + deep.astype(">u2").tobytes(),
        b"P5 5 6 65535\n" + deep[..., 0].astype(">u2").tobytes(),
        b"P2\n# a comment\n2 2\n1000\n0 1 2 1000\n",
    ]


def _bad_images() -> list[bytes]:
    huge = bytearray(_good_images()[0])
    huge[16:24] = struct.pack(">II", 30_000, 30_000)
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 5 5\n%%EndComments\n(/tmp/executed) (w) file\n%%EOF\n"
    return [bytes(huge), eps, b"P6 40000 40000 255\n", b"P5 4 4 70000\n", b"GIF89a", b""]


def _read_image(content: bytes, folder: Path) -> None:
    path = folder / "image.png"
    path.write_bytes(content)
    before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, PIXELS
    try:
        with contextlib.suppress(BadImageError):
            read_head(path)
        decode_image(content, path, gray=True)
    finally:
        Image.MAX_IMAGE_PIXELS = before


# Archives

_FILES = {"set/a.png": b"content" * 9, "set/deep/b.txt": b"text", "set/.hidden": b""}


def _zip(files: dict[str, bytes], kind: int = zipfile.ZIP_DEFLATED) -> bytes:
    with zipfile.ZipFile(stream := io.BytesIO(), "w", kind) as file:
        for name, content in files.items():
            file.writestr(name, content)
    return stream.getvalue()


def _tar(files: dict[str, bytes], compression: str = "", *extra: tarfile.TarInfo) -> bytes:
    with tarfile.open(fileobj=(stream := io.BytesIO()), mode=f"w:{compression}") as file:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))
        for info in extra:
            file.addfile(info)
    return stream.getvalue()


def _good_archives() -> list[bytes]:
    long = {f"set/{'long' * 40}/c": b"c"}
    return [
        *(_zip(_FILES, kind) for kind in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)),
        *(_zip(_FILES, kind) for kind in (zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)),
        *(_tar(_FILES | long, compression) for compression in ("", "gz", "bz2", "xz")),
    ]


def _bad_archives() -> list[bytes]:
    link = tarfile.TarInfo("set/link")
    link.type, link.linkname = tarfile.SYMTYPE, "/tmp"
    outside = {"../outside": b"x"}
    return [
        _zip(outside),
        _tar(outside),
        _tar({"/tmp/outside": b"x"}),
        _tar(_FILES, "", link),
        _zip({"a": bytes(1 << 20)}),
        _zip({"?": b""}).replace(b"?", b"\0"),  # a name that ends before it begins
        _zip({"é": b""}).replace("é".encode(), b"\x90\x90"),  # a name that is no UTF-8
    ]


def _read_archive(content: bytes, folder: Path) -> None:
    path = folder / "archive.zip"
    path.write_bytes(content)
    is_archive(path)
    try:
        with contextlib.redirect_stderr(io.StringIO()):  # of the progress bar
            extract(path, folder / "unpacked")
    finally:
        files = [file for file in folder.rglob("*") if file.is_file() and file != path]
        if sum(file.stat().st_size for file in files) > LARGEST_RATIO * len(content):
            raise Forbidden("files larger than the archive may hold")


# LMDBs

_KEYS = [f"image{number}" for number in range(3)]


def _good_lmdbs() -> list[bytes]:
    rng = np.random.default_rng(0)
    found = []
    for side in (4, 40):  # within a page, and beyond
        images = [rng.integers(0, 256, (side, side, 3), np.uint8) for _ in _KEYS]
        encoded = [
            EncodedImage(key, encode_image(image), image.shape) for key, image in zip(_KEYS, images, strict=True)
        ]
        with tempfile.TemporaryDirectory() as folder:
            append_to_lmdb(folder, encoded)
            found.append(Path(folder, "data.mdb").read_bytes())
    return found


def _bad_lmdbs() -> list[bytes]:
    whole = _good_lmdbs()[1]
    return [b"", whole[:4096], whole[:9000], whole[:-8192], bytes(8192)]


def _read_lmdb(content: bytes, folder: Path) -> None:
    root = folder / "set.lmdb"
    root.mkdir()
    (root / "data.mdb").write_bytes(content)
    write_meta_info(root, [(key, (4, 4, 3)) for key in _KEYS])
    images = CleanImages(root)
    for key in images.names:
        images.read(key)


# Overrides and configs


def _good_overrides() -> list[bytes]:
    return [b"a=1", b"a.b=[1,(2,x),None]\nc=true", b"d.0.e=1e-4\nf='text'", b"a={x:1}", b"d=[]", b"a=(1", b"g.items=["]


def _bad_overrides() -> list[bytes]:
    deep = b"a=" + b"[" * 500 + b"]" * 500
    return [b"a", b"=", b"a=(1,", b"c.d.e=1", b"d.x=1", b"d.9.e=1", b"a..b=1", deep, b"f.x=1"]


def _read_overrides(content: bytes, folder: Path) -> None:
    # The command line holds no NUL, and what is no UTF-8 comes in as surrogates.
    words = [os.fsdecode(word) for word in content.replace(b"\0", b"").split(b"\n")]
    parser = argparse.ArgumentParser()
    parser.add_argument("--cfg-options", nargs="+", action=Overrides)
    with contextlib.redirect_stderr(io.StringIO()):
        options = parser.parse_args(["--cfg-options", *words]).cfg_options
    override(Config({"a": {"b": {"c": 1}}, "c": 2, "d": [{"e": 1}], "f": "text"}), options, "x.py")


def _good_configs() -> list[bytes]:
    return [
        b"# py\nx = 1\nmodel = dict(generator=dict(type='PAEDSR'), mean=[0.0] )\n'''text'''\ny = (x, {'a': None})",
        b"_base_ = ['base.py']\na = dict(_delete_=True, b=[1, 2])\n",
        b"# yml\nnetwork_g: {type: PAEDSR, scale: 2}\nval: &v [1, 2.5, null, 'x']\nother: *v\nt: !!python/tuple [1]\n",
        b"# yml\n_base_: base.yml\nx: '{{$HOME:there}}'\ny: {{ fileBasename }}\n",
    ]


def _bad_configs() -> list[bytes]:
    laughs = [f"l{n}: &l{n} [{', '.join([f'*l{n - 1}' if n else 'lol'] * 9)}]" for n in range(9)]
    names = [f"l{n} = [{', '.join([f'l{n - 1}' if n else '1'] * 9)}]" for n in range(9)]
    return [
        "\n".join(["# yml", *laughs]).encode(),
        "\n".join(["# py", *names]).encode(),
        b"# yml\na: !!python/object/apply:os.mknod [/tmp/executed]\n",
        b"# py\n__import__('os').mknod('/tmp/executed')\n",
        b"# yml\na: " + b"[" * 60_000,
        b"# py\na = " + b"-" * 100_000 + b"1",
        b"# py\na = \x00",
        b"# yml\n? [a, b]\n: 1\n",
        b"# yml\na: &a [*a]\n",
        b"# yml\n_base_: [x]\n",
        b"# yml\n- 1\n",
    ]


def _read_config(content: bytes, folder: Path) -> None:
    suffix = ".yml" if content.startswith(b"# yml") else ".py"
    (folder / "base.py").write_text("a = dict(c=1)\n")
    (folder / "base.yml").write_text("a: {c: 1}\n")
    (path := folder / f"config{suffix}").write_bytes(content)
    read_plain(path)


TARGETS = {
    "checkpoint": Target(_read_checkpoint(".pth"), _good_checkpoints, _bad_checkpoints, (CheckpointError,)),
    "safetensors": Target(
        _read_checkpoint(".safetensors"), lambda: [_written(".safetensors")], lambda: [bytes(9)], (CheckpointError,)
    ),
    "image": Target(_read_image, _good_images, _bad_images, (BadImageError,)),
    "archive": Target(_read_archive, _good_archives, _bad_archives, (BadArchiveError, OSError)),
    "lmdb": Target(_read_lmdb, _good_lmdbs, _bad_lmdbs, (BadImageError,)),
    "overrides": Target(_read_overrides, _good_overrides, _bad_overrides, (ConfigError, SystemExit)),
    "config": Target(_read_config, _good_configs, _bad_configs, (ConfigError,)),
}
