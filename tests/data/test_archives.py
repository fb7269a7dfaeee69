"""Honest archives are unpacked; hostile and damaged ones leave nothing."""

import bz2
import io
import lzma
import random
import stat
import tarfile
import zipfile
from collections import namedtuple

import pytest

from panet_plugin.data import archives
from panet_plugin.data.archives import BadArchiveError, extract, unpack

FILES = {
    "set/X2/0001x2.png": random.Random(0).randbytes(5000),
    "set/0001.png": random.Random(1).randbytes(9000),
    "set/.DS_Store": b"left out",
    "__MACOSX/set/0001.png": b"left out",
}


def write_zip(path, members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for member, content in members:
            file.writestr(member, content)


def write_tar(path, members):
    with tarfile.open(path, "w:gz" if path.name.endswith("gz") else "w") as file:
        for member, content in members:
            if isinstance(member, str):
                member = tarfile.TarInfo(member)
            member.size = len(content)
            file.addfile(member, io.BytesIO(content))


WRITERS = {"a.zip": write_zip, "a.tar": write_tar, "a.tar.gz": write_tar}


def contents(folder):
    """Contents of files by path, locks aside."""
    paths = [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock"]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


@pytest.mark.parametrize("name", WRITERS)
def test_honest(tmp_path, name):
    WRITERS[name](tmp_path / name, FILES.items())
    extract(tmp_path / name, tmp_path / "out/folder")
    assert contents(tmp_path / "out") == {
        f"folder/{path}": content for path, content in FILES.items() if content != b"left out"
    }


def special_tar(kind, target=""):
    info = tarfile.TarInfo("set/link")
    info.type, info.linkname = kind, target
    return info


def special_zip(mode):
    info = zipfile.ZipInfo("set/link")
    info.external_attr = mode << 16
    return info


HOSTILE = {
    "absolute": ("a.zip", "/tmp/evil.png", b"x", "leads out"),
    "absolute tar": ("a.tar", "/tmp/evil.png", b"x", "leads out"),
    "parent": ("a.zip", "set/../../evil.png", b"x", "leads out"),
    "parent tar": ("a.tar", "../evil.png", b"x", "leads out"),
    "parent folder": ("a.zip", "../evil/", b"", "leads out"),
    "backslash": ("a.tar", "..\\evil.png", b"x", "leads out"),
    "drive": ("a.zip", "C:evil.png", b"x", "leads out"),
    "symlink": ("a.zip", special_zip(stat.S_IFLNK | 0o777), b"/etc/passwd", "link or device"),
    "symlink tar": ("a.tar", special_tar(tarfile.SYMTYPE, "/etc"), b"", "link or device"),
    "hard link": ("a.tar", special_tar(tarfile.LNKTYPE, "../../evil"), b"", "link or device"),
    "device": ("a.tar", special_tar(tarfile.CHRTYPE), b"", "link or device"),
    "fifo": ("a.tar.gz", special_tar(tarfile.FIFOTYPE), b"", "link or device"),
    "bomb": ("a.zip", "set/bomb.png", bytes(30_000_000), "times its own size"),
    "bomb tar": ("a.tar.gz", "set/bomb.png", bytes(30_000_000), "times its own size"),
    "twice": ("a.tar", "set/0001.png", b"x", "twice"),
    "twice but for case": ("a.zip", "set/0001.PNG", b"x", "twice"),
    "header that fills the memory": ("a.tar.gz", special_tar(tarfile.XHDTYPE), bytes(2_000_000), "a header of 2000000"),
    "file and folder": ("a.tar", "set", b"x", "'set' is both a file and a folder"),
    "twice by another way": ("a.zip", "set/./0001.png", b"x", "twice"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile(tmp_path, case):
    name, member, content, message = HOSTILE[case]
    WRITERS[name](tmp_path / name, [*FILES.items(), (member, content)])
    with pytest.raises(BadArchiveError, match=message) as error:
        extract(tmp_path / name, tmp_path / "out/folder")
    assert str(tmp_path / name) in str(error.value)
    # Nothing was written, neither there nor elsewhere.
    assert contents(tmp_path).keys() == {name}
    assert not [*(tmp_path / "out").iterdir()]


@pytest.mark.parametrize("name", ["{}.png", "folder{}/"])
def test_too_many_members(tmp_path, monkeypatch, name):
    monkeypatch.setattr(archives, "MOST_MEMBERS", 3)
    write_zip(tmp_path / "a.zip", [(name.format(number), b"") for number in range(4)])
    with pytest.raises(BadArchiveError, match="more than 3 files"):
        extract(tmp_path / "a.zip", tmp_path / "folder")


def test_zip_that_lies_about_sizes(tmp_path):
    """The directory says 10 bytes, the data go on for megabytes."""
    write_zip(tmp_path / "a.zip", [("a.png", bytes(5_000_000))])
    content = (tmp_path / "a.zip").read_bytes()
    (tmp_path / "a.zip").write_bytes(content.replace((5_000_000).to_bytes(4, "little"), (10).to_bytes(4, "little")))
    with pytest.raises(BadArchiveError, match=r"a\.zip"):
        extract(tmp_path / "a.zip", tmp_path / "folder")
    assert not (tmp_path / "folder").exists()
    assert sum(path.stat().st_size for path in tmp_path.rglob("*.png")) <= 10


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty", "text"])
def test_damaged(tmp_path, name, damage):
    path = tmp_path / name
    WRITERS[name](path, FILES.items())
    content = bytearray(path.read_bytes())
    if damage == "flipped":
        if name == "a.tar":
            pytest.skip("a plain tar file has checksums of its headers only")
        content[2000] ^= 255
    path.write_bytes({"truncated": content[:9000], "flipped": content, "empty": b"", "text": b"no archive"}[damage])
    with pytest.raises(BadArchiveError, match=name):
        extract(path, tmp_path / "folder")
    assert not (tmp_path / "folder").exists()


@pytest.mark.parametrize("compression", [bz2, lzma])
def test_other_compressions_damaged(tmp_path, compression):
    write_tar(tmp_path / "a.tar", FILES.items())
    content = bytearray(compression.compress((tmp_path / "a.tar").read_bytes()))
    content[len(content) // 2] ^= 255
    (tmp_path / "a.tar.x").write_bytes(content)
    with pytest.raises(BadArchiveError, match=r"a\.tar\.x"):
        extract(tmp_path / "a.tar.x", tmp_path / "folder")


def test_zip_with_a_damaged_table(tmp_path):
    write_zip(tmp_path / "a.zip", FILES.items())
    content = bytearray((tmp_path / "a.zip").read_bytes())
    # The offset of the first member, by which the reader would go to before the beginning.
    start = content.index(b"PK\x01\x02") + 42
    content[start : start + 4] = b"\xff" * 4
    content[-6:-2] = (int.from_bytes(content[-6:-2], "little") + 1000).to_bytes(4, "little")
    (tmp_path / "a.zip").write_bytes(content)
    with pytest.raises(BadArchiveError, match=r"a\.zip"):
        extract(tmp_path / "a.zip", tmp_path / "folder")


def test_tar_that_ends_in_a_zip_is_a_tar(tmp_path):
    write_zip(tmp_path / "b.zip", FILES.items())
    write_tar(tmp_path / "a.tar", [("0001.png", b"x"), ("b.zip", (tmp_path / "b.zip").read_bytes())])
    extract(tmp_path / "a.tar", tmp_path / "folder")
    assert contents(tmp_path / "folder").keys() == {"0001.png", "b.zip"}


def test_encrypted(tmp_path):
    write_zip(tmp_path / "a.zip", [("a.png", b"x")])
    content = bytearray((tmp_path / "a.zip").read_bytes())
    content[content.index(b"PK\x01\x02") + 8] |= 1
    (tmp_path / "a.zip").write_bytes(content)
    with pytest.raises(BadArchiveError, match=r"'a\.png' is encrypted"):
        extract(tmp_path / "a.zip", tmp_path / "folder")


def test_disk_with_too_little_space(tmp_path, monkeypatch):
    write_zip(tmp_path / "a.zip", FILES.items())
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(archives.shutil, "disk_usage", lambda path: usage(10**6, 10**6 - 1000, 1000))
    with pytest.raises(OSError, match="free on the disk") as error:
        extract(tmp_path / "a.zip", tmp_path / "folder")
    assert error.value.errno == 28
    assert not (tmp_path / "folder").exists()


def test_what_a_killed_run_left_is_thrown_away(tmp_path):
    write_zip(tmp_path / "a.zip", FILES.items())
    (tmp_path / ".folder.partial").mkdir()
    (tmp_path / ".folder.partial/half.png").write_bytes(b"x")
    extract(tmp_path / "a.zip", tmp_path / "folder")
    assert "half.png" not in str(contents(tmp_path))


def test_unpacked_is_what_is_in_these_archives_and_nothing_else(tmp_path):
    one, two = tmp_path / "one/set.v1.zip", tmp_path / "two/set.v1.zip"
    for number, path in enumerate((one, two)):
        path.parent.mkdir()
        write_zip(path, [("0001.png", bytes([number]))])
    assert contents(unpack([one], tmp_path / "root")) == {"set.v1/0001.png": b"\0"}
    assert contents(unpack([two], tmp_path / "root")) == {"set.v1/0001.png": b"\1"}
    other = one.rename(one.with_name("set.v2.zip"))
    both = unpack([other, two], tmp_path / "root")
    assert contents(both) == {"set.v1/0001.png": b"\1", "set.v2/0001.png": b"\0"}
    (both / "set.v1/0001.png").unlink()
    assert unpack([two, other], tmp_path / "root") == both
    assert contents(both).keys() == {"set.v2/0001.png"}


def test_archives_of_one_name(tmp_path):
    write_zip(tmp_path / "set.zip", FILES.items())
    write_tar(tmp_path / "set.tar.gz", FILES.items())
    with pytest.raises(ValueError, match=r"set.* another archive with this name"):
        unpack([tmp_path / "set.zip", tmp_path / "set.tar.gz"], tmp_path / "root")
    assert not (tmp_path / "root").exists()
