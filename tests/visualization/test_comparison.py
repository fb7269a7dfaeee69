import numpy as np
import pytest

from panet_plugin.data import read_image
from panet_plugin.visualization import save_comparison


def test_every_picture_and_method_is_there(tmp_path):
    red, blue = np.zeros((2, 8, 8, 3), np.uint8)
    red[..., 0], blue[..., 2] = 255, 255
    save_comparison(tmp_path / "figure.png", [{"red": red, "blue": blue}, {"gray": red[..., 0], "again": red}], "title")
    figure = read_image(tmp_path / "figure.png").astype(int)
    height, width = figure.shape[:2]
    assert height > width * 0.9
    assert (figure[: height // 2, : width // 2] == [255, 0, 0]).all(-1).any()
    assert (figure[: height // 2, width // 2 :] == [0, 0, 255]).all(-1).any()
    assert (figure[height // 2 :, width // 2 :] == [255, 0, 0]).all(-1).any()


@pytest.mark.parametrize("rows", [[], [{}], [{"a": np.zeros((2, 2))}, {}]])
def test_uneven_rows_are_refused(rows, tmp_path):
    with pytest.raises(ValueError, match="equal length"):
        save_comparison(tmp_path / "figure.png", rows)
