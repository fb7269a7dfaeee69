import copy
import io
import re
import warnings

import pytest
import torch
from torch import nn

from panet_plugin.archs import PANet, insert_pyramid_attention, list_insertion_points

SMALL = (1, 3, 12, 10)


@pytest.fixture
def network():
    torch.manual_seed(0)
    return PANet(mid_channels=4, num_blocks=2, attention={"levels": 1})


@pytest.fixture
def images():
    return torch.rand(2, 3, 9, 8, generator=torch.Generator().manual_seed(1))


def randomise(network):
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(torch.rand(parameter.shape, generator=generator) - 0.5)
    return network


@pytest.mark.parametrize("where", ["after", "before", "replace"])
def test_every_listed_place_starts_as_the_identity_and_is_trained(where, network, images):
    points = list_insertion_points(network, SMALL, where)
    assert {"body", "body.blocks", "body.blocks.0", "body.blocks.0.conv1"} <= {point.path for point in points}
    expected = network(images)
    for point in points:
        changed = insert_pyramid_attention(
            copy.deepcopy(network), point.path, where, input_shape=SMALL, residual_init="zero", levels=1
        )
        output = changed(images)
        if where != "replace":
            assert torch.equal(output, expected), point
        output.square().sum().backward()
        block = changed.get_submodule(f"{point.path}.pyramid_attention")
        assert block.gain.shape == (point.channels, 1, 1)
        assert block.gain.grad.abs().max() > 0, point
        randomise(block)
        assert not torch.equal(changed(images), output), point


def test_after_before_and_replace(network, images):
    features = network.body(network.head(images))
    for where, at in (("after", "tail"), ("before", "tail"), ("replace", "body")):
        changed = insert_pyramid_attention(copy.deepcopy(network), at, where, levels=1)
        block = randomise(changed.get_submodule(f"{at}.pyramid_attention"))
        expected = {
            "after": lambda block=block: block(network.tail(features)),
            "before": lambda block=block: network.tail(block(features)),
            "replace": lambda block=block: network.tail(block(network.head(images))),
        }[where]()
        torch.testing.assert_close(changed(images), expected)


def test_names_of_weights(network):
    before = dict(network.named_parameters(remove_duplicate=False))
    same = insert_pyramid_attention(network, ["body.blocks.0", "body"], levels=2)
    assert same is network
    assert type(network) is PANet
    added = set(network.state_dict()) - set(before)
    assert {key.rpartition(".pyramid_attention.")[0] for key in added} == {"body.blocks.0", "body"}
    for name, parameter in network.named_parameters(remove_duplicate=False):
        assert name in added or parameter is before[name]
    assert list(network.state_dict()) == [name for name, _ in network.named_parameters(remove_duplicate=False)]


@pytest.mark.parametrize("where", ["after", "before", "replace"])
def test_the_networks_own_state_dict_loads_strictly(where, network, images):
    base = copy.deepcopy(network)
    insert_pyramid_attention(network, "body.blocks.0", where, levels=1)
    block = copy.deepcopy(network.get_submodule("body.blocks.0.pyramid_attention").state_dict())
    state = randomise(base).state_dict()
    with pytest.warns(UserWarning, match=re.escape("no weights body.blocks.0.pyramid_attention.*")):
        network.load_state_dict(state, strict=True)
    for name, value in network.state_dict().items():
        head, _, tail = name.rpartition("body.blocks.0.pyramid_attention.")
        torch.testing.assert_close(value, block[tail] if tail in block and not head else state[name], rtol=0, atol=0)
    incomplete = {name: value for name, value in state.items() if name != "body.blocks.2.conv1.weight"}
    for wrong, message in (
        (incomplete, "Missing key.*body.blocks.2.conv1.weight"),
        ({**state, "body.blocks.0.other": torch.zeros(1)}, "Unexpected key.*body.blocks.0.other"),
        ({**state, "body.blocks.0.pyramid_attention.gain": torch.zeros(1)}, "Missing key.*pyramid_attention.query"),
    ):
        with pytest.raises(RuntimeError, match=f"(?s){message}"):
            network.load_state_dict(wrong, strict=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        network.load_state_dict(randomise(network).state_dict())
    with pytest.raises(RuntimeError, match=r"Unexpected key.*pyramid_attention"):
        base.load_state_dict(network.state_dict())


@pytest.mark.parametrize("where", ["after", "before", "replace"])
@pytest.mark.parametrize("at", ["body.blocks", "body.blocks.0"])
def test_copies_and_pickles(at, where, network, images):
    randomise(insert_pyramid_attention(network, at, where, levels=1))
    file = io.BytesIO()
    torch.save(network, file)
    file.seek(0)
    for copied in (copy.deepcopy(network), torch.load(file, weights_only=False)):
        assert torch.equal(copied(images), network(images))
        randomise(copied).tail.bias.data.add_(1)
        assert not torch.equal(copied(images), network(images))
        assert type(copied.get_submodule(at)) is type(network.get_submodule(at))


def test_compiles_without_graph_breaks(network, images):
    randomise(insert_pyramid_attention(network, ["body.blocks", "body.blocks.0.conv1"], levels=1))
    compiled = torch.compile(network, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(images), network(images))


class Shared(nn.Module):
    """One convolution under two paths, called three times."""

    def __init__(self):
        super().__init__()
        self.first = self.second = nn.Conv2d(3, 3, 1)

    def forward(self, x):
        return self.second(self.second(self.first(x)))


@pytest.mark.parametrize("where", ["after", "replace"])
@pytest.mark.parametrize("at", ["first", "second"])
def test_a_shared_module_has_one_block_in_every_call(at, where, images):
    network = insert_pyramid_attention(Shared(), at, where, levels=1)
    assert network.first is network.second
    calls = []
    network.first.pyramid_attention.register_forward_hook(lambda *_: calls.append(1))
    network(images)
    assert len(calls) == 3
    with pytest.raises(ValueError, match="distinct paths"):
        insert_pyramid_attention(Shared(), ["first", "second"])


def test_a_sequence_keeps_its_steps():
    network = nn.Sequential(nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU()), nn.Conv2d(4, 3, 1))
    steps = list(network[0])
    insert_pyramid_attention(network, "0", levels=1)
    sequence = network[0]
    assert list(sequence) == steps
    assert len(sequence) == 2
    assert sequence[-1] is steps[-1]
    assert list(sequence[:1]) == steps[:1]
    images = torch.rand(1, 3, 6, 6)
    expected = network[1](sequence.pyramid_attention(steps[1](steps[0](images))))
    torch.testing.assert_close(network(images), expected)


class Tokens(nn.Module):
    """Tokens as in SwinIR: from an image, through layers that know the grid and one that does not, to an image."""

    def __init__(self):
        super().__init__()
        self.to_tokens = ToTokens()
        self.layer = Layer()
        self.blind = nn.Linear(4, 4)
        self.end = nn.Conv2d(4, 3, 1)

    def forward(self, x):
        height, width = x.shape[2:]
        tokens = self.blind(self.layer(self.to_tokens(x), x_size=(height, width)))
        return self.end(tokens.transpose(1, 2).reshape(-1, 4, height, width))


class ToTokens(nn.Conv2d):
    def __init__(self):
        super().__init__(3, 4, 1)

    def forward(self, x):
        return super().forward(x).flatten(2).transpose(1, 2)


class Layer(nn.Linear):
    def __init__(self):
        super().__init__(4, 4)

    def forward(self, x, x_size):
        return super().forward(x)


@pytest.mark.parametrize("at", ["to_tokens", "layer"])
def test_tokens_of_a_known_grid(at, images):
    network = Tokens()
    assert [point.path for point in list_insertion_points(network, SMALL)] == ["to_tokens", "layer", "end"]
    with pytest.raises(ValueError, match=r"blind: its output has shape \(1, 120, 4\).*: to_tokens, layer, end$"):
        insert_pyramid_attention(network, "blind", input_shape=SMALL)
    arguments = (images,) if at == "to_tokens" else (network.to_tokens(images), images.shape[2:])
    module = network.get_submodule(at)
    before = module(*arguments).transpose(1, 2).reshape(2, 4, 9, 8)
    insert_pyramid_attention(network, at, input_shape=SMALL, levels=1)
    after = module(*arguments).transpose(1, 2).reshape(2, 4, 9, 8)
    torch.testing.assert_close(after, module.pyramid_attention(before))
    assert network(images).shape == images.shape
    if at == "layer":
        with pytest.raises(ValueError, match="tokens with a known grid"):
            module(arguments[0], (9, 9))


class Awkward(nn.Module):
    """A network that a careless trial would change, with places of every kind that will not do."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(3)
        self.frozen = nn.BatchNorm2d(3).eval()
        self.register_buffer("calls", torch.zeros(()))
        self.register_buffer("last", torch.zeros(()))
        self.pool = nn.MaxPool2d(2, return_indices=True)
        self.pair = nn.Identity()
        self.unused = nn.Conv2d(3, 3, 1)
        self.windows = nn.Identity()
        self.up = nn.PixelShuffle(1)
        self.grow = nn.Conv2d(3, 5, 1)

    def forward(self, x):
        self.calls += 1
        self.last = x.mean()
        x = self.frozen(self.norm(x + torch.rand_like(x)))
        self.pool(x)
        self.pair((x, x))
        self.windows(x.repeat(4, 1, 1, 1))
        return self.grow(input=self.up(x))


def test_the_trial_changes_nothing():
    network = Awkward()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    modes = [module.training for module in network.modules()]
    random = torch.get_rng_state()
    list_insertion_points(network, SMALL)
    assert torch.equal(torch.get_rng_state(), random)
    assert [module.training for module in network.modules()] == modes
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert not any(module._forward_hooks for module in network.modules())
    insert_pyramid_attention(network, "up", input_shape=SMALL)
    assert network.up.pyramid_attention.training
    insert_pyramid_attention(network, "frozen", input_shape=SMALL)
    assert not network.frozen.pyramid_attention.training


@pytest.mark.parametrize(
    ("at", "where", "message"),
    [
        ("nothing", "after", "Awkward has no module 'nothing'"),
        ("", "after", "inside Awkward"),
        ([], "after", "at must be"),
        (["up", "up"], "after", "at must be"),
        ("up", "around", "where must be one of after, before, replace, got 'around'"),
        ("unused", "after", "unused: it is never called. Possible places: "),
        ("pool", "after", "pool: its output is a tuple, expected a tensor. Possible places: norm, frozen, up, grow"),
        ("pair", "before", "pair: its input is a tuple, expected a tensor. Possible places: norm, frozen, pool, up"),
        ("windows", "after", r"windows: its output has shape (4, 3, 12, 10): expected the batch size 1"),
        ("grow", "before", "grow: its input is not a positional argument"),
        ("pool", "replace", "pool: its output is a tuple"),
        (["up", "unused"], "after", "unused: it is never called"),
    ],
)
def test_other_places_are_refused_and_nothing_is_changed(at, where, message):
    network = Awkward()
    classes = [type(module) for module in network.modules()]
    with pytest.raises(ValueError, match=re.escape(message)):
        insert_pyramid_attention(network, at, where, input_shape=SMALL)
    assert [type(module) for module in network.modules()] == classes


def test_shapes_must_agree_for_a_replacement(network):
    with pytest.raises(ValueError, match=r"tail: its output of shape \(1, 3, 12, 10\) differs from its input"):
        insert_pyramid_attention(network, "tail", "replace", input_shape=SMALL)
    with pytest.raises(ValueError, match=r"body\.blocks: inside another module"):
        insert_pyramid_attention(network, ["body", "body.blocks"], "replace", input_shape=SMALL)


def test_one_block_per_module_and_none_within_a_block(network):
    insert_pyramid_attention(network, "tail", input_shape=SMALL)
    for at, message in (("tail", "already"), ("tail.pyramid_attention.query", "part of a pyramid attention")):
        with pytest.raises(ValueError, match=message):
            insert_pyramid_attention(network, at, input_shape=SMALL)
    paths = [point.path for point in list_insertion_points(network, SMALL)]
    assert "tail.pyramid_attention" in paths
    assert not [path for path in paths if path == "tail" or ".query" in path]


def test_errors_name_the_input(network):
    with pytest.raises(
        ValueError, match=r"PANet does not accept an input of shape \(1, 1, 8, 8\) \(RuntimeError.*input_"
    ):
        insert_pyramid_attention(network, "body", input_shape=(1, 1, 8, 8))
    with pytest.raises(TypeError, match="level"):
        insert_pyramid_attention(network, "body", level=3)
    with pytest.raises(TypeError, match="channels"):
        insert_pyramid_attention(network, "body", channels=4)
    assert not [name for name, _ in network.named_modules() if "pyramid_attention" in name]


def test_device_and_dtype_are_those_of_the_network(images):
    network = PANet(mid_channels=4, num_blocks=0).double()
    insert_pyramid_attention(network, "tail", input_shape=SMALL, levels=1)
    assert network(images.double()).dtype == torch.float64
    with torch.device("meta"):
        insert_pyramid_attention(network := PANet(mid_channels=4, num_blocks=0), "tail")
    assert network.tail.pyramid_attention.query[0].weight.is_meta


def test_the_list_prints_path_type_and_shape(network):
    points = list_insertion_points(network, (2, 3, 12, 10))
    lines = str(points).splitlines()
    assert len(lines) == len(points)
    assert re.fullmatch(r"body\.blocks\.0\.conv1 +Conv2d +\(2, 4, 12, 10\)", lines[4])
    assert repr(points) == str(points)
    assert str(list_insertion_points(nn.Identity())) == ""
