import pytest

from panet_plugin.inference import JobError, find_jobs


@pytest.fixture
def there(tmp_path, monkeypatch):
    """Files in the current folder."""
    for name in ("a.png", "b.JPG", "notes.txt", "set/a.png", "set/deep/c.tiff", "set/.cache/d.png", "old/e.ppm"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def pairs(there, *inputs, out="out", **options):
    jobs, failures = find_jobs(inputs, there / out, **options)
    names = [(job.source.resolve(), job.target.resolve()) for job in jobs]
    return [(str(a.relative_to(there)), str(b.relative_to(there))) for a, b in names], failures


def test_files_folders_patterns_and_lines(there):
    assert pairs(there, "a.png", "b.JPG") == ([("a.png", "out/a.png"), ("b.JPG", "out/b.JPG")], [])
    expected = [("set/a.png", "out/a.png"), ("set/deep/c.tiff", "out/deep/c.tiff")]
    assert pairs(there, "set") == (expected, [])
    assert pairs(there, "set/**/*.tiff") == ([("set/deep/c.tiff", "out/c.tiff")], [])
    assert pairs(there, str(there / "*.png")) == ([("a.png", "out/a.png")], [])
    lines = ["a.png\n", "\n", "set/deep\r\n"]
    assert pairs(there, "-", lines=lines) == ([("a.png", "out/a.png"), ("set/deep/c.tiff", "out/c.tiff")], [])


def test_a_image_that_is_named_twice_is_restored_once(there):
    assert pairs(there, "a.png", "./a.png", "*.png") == ([("a.png", "out/a.png")], [])


def test_the_format_of_the_results(there):
    expected = [("b.JPG", "out/b.webp"), ("old/e.ppm", "out/e.webp")]
    assert pairs(there, "b.JPG", "old", suffix=".webp") == (expected, [])
    assert pairs(there, "old") == ([("old/e.ppm", "out/e.png")], [])
    assert pairs(there, "b.JPG", out="new/result.png") == ([("b.JPG", "new/result.png")], [])
    # A folder may have any name.
    (there / "folder.png").mkdir()
    assert pairs(there, "b.JPG", out="folder.png") == ([("b.JPG", "folder.png/b.JPG")], [])


def test_results_are_no_images_to_restore(there):
    (there / "set/out").mkdir()
    (there / "set/out/a.png").write_bytes(b"")
    expected = [("set/a.png", "set/out/a.png"), ("set/deep/c.tiff", "set/out/deep/c.tiff")]
    assert pairs(there, "set", out="set/out") == (expected, [])


def test_inputs_without_images_do_not_stop_the_others(there):
    (there / "empty").mkdir()
    jobs, failures = pairs(there, "none.png", "a.png", "*.gif", "empty")
    assert jobs == [("a.png", "out/a.png")]
    assert [(name, reason.split(" (")[0]) for name, reason in failures] == [
        ("none.png", "no such file or folder"),
        ("*.gif", "no file matches this pattern"),
        ("empty", "no images in this folder"),
    ]


@pytest.mark.parametrize(
    ("inputs", "out", "suffix", "message"),
    [
        (("a.png", "set/a.png"), "out", None, r"a\.png and .*a\.png would both be written to .*out/a\.png"),
        (("a.png", "b.JPG"), "out.png", None, "expected a folder for several images"),
        (("old",), "out.png", None, "expected a folder for several images"),
        (("a.png",), ".", None, r"the result of a\.png would replace an image"),
        (("a.png", "b.JPG"), "set/..", ".png", "would replace an image"),
        (("b.JPG", "set"), "set", None, "would replace an image"),
        (("b.JPG",), "a.png", ".webp", r"expected a name that ends in \.webp"),
    ],
)
def test_what_would_destroy_files_is_refused(there, inputs, out, suffix, message):
    with pytest.raises(JobError, match=message):
        find_jobs(inputs, there / out, suffix)


@pytest.mark.parametrize(("name", "suffix"), [("c.PNG", ".png"), ("c.jpg", ".jpeg"), ("c.jpeg", ".jpg")])
def test_a_suffix_may_be_spelled_otherwise(there, name, suffix):
    (job,), _ = find_jobs(["a.png"], there / name, suffix)
    assert job.target == there / name


def test_a_link_to_an_image_is_that_image(there):
    (there / "link.png").symlink_to(there / "a.png")
    with pytest.raises(JobError, match="would replace an image"):
        find_jobs(["a.png"], there / "link.png")
