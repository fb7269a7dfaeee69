"""BasicSR's model with our checkpoints, without a training."""

import torch

from panet_plugin.frameworks.basicsr.models import RestorationModel
from panet_plugin.weights import read_state_dict


def test_networks_are_written_one_by_one_or_in_a_list(tmp_path):
    network = {"type": "PANet", "mid_channels": 4, "num_blocks": 1}
    options = {"num_gpu": 0, "is_train": False, "dist": False, "network_g": network, "path": {"models": tmp_path}}
    model = RestorationModel(options)
    model.save_network(model.net_g, "alone", 4)
    model.save_network([model.net_g], "list", 4)
    model.save_network([model.net_g, model.net_g], "both", 4, ["params", "params_ema"])
    for name in ("alone_4.pth", "list_4.pth", "both_4.pth"):
        found, expected = read_state_dict(tmp_path / name), model.net_g.state_dict()
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[key], expected[key]) for key in expected)
