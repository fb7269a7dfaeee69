"""The public function: arguments, precision, autograd, tracing, distribution."""

import math

import pytest
import torch
import torch.distributed as dist
from attention_cases import gradients, leaves, make_inputs

from panet_plugin.ops import IMPLEMENTATIONS, build_pyramid, custom_op, fused, pyramid_attention
from panet_plugin.ops.backends import DIRECT
from panet_plugin.ops.pyramid import key_scale, ladder, level_size, overlap_divisor

needs_bfloat16 = pytest.mark.skipif(not fused.has_bfloat16(), reason="the processor does not multiply bfloat16")

CPU_IMPLEMENTATIONS = [
    pytest.param(name, marks=pytest.mark.skipif(name == "fused" and not fused.is_available(), reason="no C++ compiler"))
    for name in IMPLEMENTATIONS
    if name != "triton"
]


@pytest.mark.parametrize("name", CPU_IMPLEMENTATIONS)
def test_float32_agrees_with_float64_dense(name):
    inputs = make_inputs((21, 18), 5, batch=2, channels=8, depth=16)
    oracle = pyramid_attention(*inputs, softmax_scale=3.0, implementation="dense")
    single = make_inputs((21, 18), 5, batch=2, channels=8, depth=16, dtype=torch.float32)
    output = pyramid_attention(*single, softmax_scale=3.0, implementation=name)
    pairs = [
        (output, oracle),
        *zip(gradients(output, leaves(*single)), gradients(oracle, leaves(*inputs)), strict=True),
    ]
    for mine, theirs in pairs:
        assert (mine.double() - theirs).abs().max() <= 1e-4 * theirs.abs().max()


@pytest.mark.parametrize("name", CPU_IMPLEMENTATIONS)
@pytest.mark.parametrize("size", [(1, 1), (1, 9), (9, 1), (5, 13)])
def test_small_and_odd_sizes(name, size):
    inputs = make_inputs(size, 1, dtype=torch.float32)
    output = pyramid_attention(*inputs, implementation=name)
    expected = pyramid_attention(*make_inputs(size, 1), implementation="dense")
    torch.testing.assert_close(output.double(), expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", CPU_IMPLEMENTATIONS)
def test_zeros_have_finite_gradients(name):
    zero = torch.zeros(1, 3, 8, 8, requires_grad=True)
    pyramid = build_pyramid(zero, ladder(3))
    output = pyramid_attention(zero, pyramid, pyramid, implementation=name)
    output.sum().backward()
    assert torch.equal(output, torch.zeros_like(output)) and zero.grad.isfinite().all()


@pytest.mark.parametrize("name", CPU_IMPLEMENTATIONS)
@pytest.mark.parametrize("which", [[0], [1], [2], [3], [0, 4], [1, 3]])
def test_gradients_of_any_subset(name, which):
    inputs = make_inputs((8, 9), 2, dtype=torch.float32)
    full = gradients(pyramid_attention(*inputs, implementation="dense"), leaves(*inputs))
    for i, leaf in enumerate(leaves(*inputs)):
        leaf.requires_grad_(i in which)
    output = pyramid_attention(*inputs, implementation=name)
    wanted = [leaves(*inputs)[i] for i in which]
    for i, grad in zip(which, gradients(output, wanted), strict=True):
        torch.testing.assert_close(grad, full[i], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", CPU_IMPLEMENTATIONS)
def test_memory_layout_and_repetition_do_not_matter(name):
    query, keys, values = make_inputs((10, 12), 2, batch=2, dtype=torch.float32)
    with torch.no_grad():
        output = pyramid_attention(query, keys, values, implementation=name)
        again = pyramid_attention(query, keys, values, implementation=name)
        strange = [x.to(memory_format=torch.channels_last) for x in keys]
        wide = torch.stack([query, query], -1)[..., 0]
        other = pyramid_attention(wide, strange, [v.mT.contiguous().mT for v in values], implementation=name)
    assert torch.equal(output, again) and output.is_contiguous()
    torch.testing.assert_close(other, output, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", CPU_IMPLEMENTATIONS)
def test_backward_is_deterministic(name):
    inputs = make_inputs((14, 15), 3, batch=2, dtype=torch.float32)
    first, second = (gradients(pyramid_attention(*inputs, implementation=name), leaves(*inputs)) for _ in range(2))
    assert all(map(torch.equal, first, second))


@pytest.mark.parametrize("name", CPU_IMPLEMENTATIONS)
def test_softmax_scale_zero_averages_and_a_large_one_stays_finite(name):
    query, keys, values = make_inputs((6, 7), 1, dtype=torch.float32)
    with torch.no_grad():
        mean = pyramid_attention(
            query, keys, [torch.ones_like(v) for v in values], softmax_scale=0.0, implementation=name
        )
        expected = pyramid_attention(
            query, keys, [torch.ones_like(v) for v in values], softmax_scale=0.0, implementation="dense"
        )
    torch.testing.assert_close(mean, expected)
    output = pyramid_attention(query, keys, values, softmax_scale=1e6, implementation=name)
    assert output.isfinite().all() and all(g.isfinite().all() for g in gradients(output, leaves(query, keys, values)))


@pytest.mark.parametrize("name", CPU_IMPLEMENTATIONS)
def test_not_a_number_propagates(name):
    query, keys, values = make_inputs((8, 8), 2, dtype=torch.float32)
    with torch.no_grad():
        keys[1][0, 0, 2, 2] = math.nan
        assert pyramid_attention(query, keys, values, implementation=name).isnan().all()


@pytest.mark.parametrize("name", ["dense", "stream", "auto"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_single(name, dtype):
    inputs = make_inputs((8, 9), 2, dtype=dtype)
    output = pyramid_attention(*inputs, implementation=name)
    single = [inputs[0].float(), *([x.float() for x in level] for level in inputs[1:])]
    assert output.dtype == dtype
    assert torch.equal(output, pyramid_attention(*single, implementation=name).to(dtype))


@pytest.mark.parametrize("name", CPU_IMPLEMENTATIONS)
def test_autocast_does_not_reach_inside(name):
    inputs = make_inputs((8, 9), 2, dtype=torch.float32)
    plain = pyramid_attention(*inputs, implementation=name)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = pyramid_attention(*inputs, implementation=name)
        assert torch.equal(cast, plain)
        if name not in DIRECT:  # whose backward passes are autograd's business
            inside = gradients(cast, leaves(*inputs))
            assert all(map(torch.equal, inside, gradients(plain, leaves(*inputs))))


@needs_bfloat16
def test_bfloat16_products_are_off_unless_pytorch_allows_them(set_matmul_precision):
    inputs = [t.detach() for t in leaves(*make_inputs((8, 9), 1, dtype=torch.float32))]

    def run():
        return pyramid_attention(inputs[0], inputs[1:2], inputs[2:], implementation="fused")

    default = run()
    set_matmul_precision("high")
    assert torch.equal(run(), default)
    set_matmul_precision("medium")
    reduced = run()
    assert not torch.equal(reduced, default)
    set_matmul_precision("highest")
    assert torch.equal(run(), default)
    if hasattr(torch.backends.mkldnn, "matmul"):
        torch.backends.mkldnn.matmul.fp32_precision = "bf16"
        assert torch.equal(run(), reduced)


@needs_bfloat16
@pytest.mark.parametrize("compiled", [False, True])
def test_the_gradients_products_are_as_precise_as_the_outputs(compiled, set_matmul_precision):
    query, keys, values = make_inputs((8, 9), 2, dtype=torch.float32)

    def function(query, keys, values):
        return pyramid_attention(query, keys, values, implementation="fused")

    if compiled:
        function = torch.compile(function, fullgraph=True, backend="aot_eager")

    def run(forward, backward):
        set_matmul_precision(forward)
        output = function(query, keys, values)
        set_matmul_precision(backward)
        return gradients(output, leaves(query, keys, values))

    exact, reduced = run("highest", "highest"), run("medium", "medium")
    assert not any(map(torch.equal, exact, reduced))
    assert all(map(torch.equal, exact, run("highest", "medium")))
    assert all(map(torch.equal, reduced, run("medium", "highest")))


@pytest.mark.parametrize("hard", [False, True])
def test_operator_is_registered_properly(hard):
    query, keys, values = make_inputs((5, 6), 2)
    scales = [key_scale(key, 2.0, 3).detach().requires_grad_() for key in keys]
    arguments = (query, keys, scales, values, 3, hard, "stream", 0, ())
    torch.library.opcheck(custom_op.recomputing_pyramid_attention, arguments)


def test_compiles_without_graph_breaks():
    query, keys, values = make_inputs((8, 9), 2, dtype=torch.float32)

    def function(query, keys, values):
        return pyramid_attention(query * 2, keys, values) + 1

    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    output, expected = compiled(query, keys, values), function(query, keys, values)
    torch.testing.assert_close(output, expected)
    inputs = leaves(query, keys, values)
    for mine, theirs in zip(gradients(output, inputs), gradients(expected, inputs), strict=True):
        torch.testing.assert_close(mine, theirs)


def test_exported_program_keeps_the_choice_for_later():
    class Module(torch.nn.Module):
        def forward(self, x):
            return pyramid_attention(x, [x], [x])

    program = torch.export.export(Module(), (torch.randn(1, 2, 5, 5),))
    (node,) = [node for node in program.graph.nodes if "pyramid_attention" in str(node.target)]
    assert node.args[6] == "auto"


def test_shapes_without_data():
    query, keys, values = (torch.empty(2, 3, 6, 5, device="meta"), *([torch.empty(2, 3, 4, 4, device="meta")],) * 2)
    assert pyramid_attention(query, keys, values).shape == (2, 3, 6, 5)


def test_second_derivatives_are_refused():
    inputs = leaves(*make_inputs((4, 4), 1))
    output = pyramid_attention(inputs[0], inputs[1:2], inputs[2:], implementation="stream")
    (slope,) = torch.autograd.grad(output.square().sum(), inputs[:1], create_graph=True)
    with pytest.raises(RuntimeError, match="dense"):
        slope.sum().backward()


def _train(rank: int, path: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{path}", rank=rank, world_size=2)
    torch.set_num_threads(1)

    class Block(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = torch.nn.Conv2d(3, 4, 1)

        def forward(self, x):
            x = self.embed(x)
            return pyramid_attention(x, [x], [x], implementation="stream")

    torch.manual_seed(0)
    block = Block()
    images = torch.randn(2, 3, 6, 6)
    parallel = torch.nn.parallel.DistributedDataParallel(block)
    parallel(images[rank : rank + 1]).mean().backward()
    mine = block.embed.weight.grad.clone()
    block.zero_grad()
    block(images).mean().backward()
    torch.testing.assert_close(mine, block.embed.weight.grad)
    dist.destroy_process_group()


def test_distributed_data_parallel(tmp_path):
    torch.multiprocessing.spawn(_train, (str(tmp_path / "store"),), nprocs=2)


def test_overlap_divisor_of_the_published_patch():
    assert [overlap_divisor(k) for k in (1, 3, 5, 7)] == [1, 4, 9, 16]


def test_a_level_without_pixels_is_an_error():
    assert level_size(10, 20, 0.1) == (1, 2)
    with pytest.raises(ValueError, match="no pixel"):
        build_pyramid(torch.zeros(1, 1, 4, 40), ladder(9))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"implementation": "fast"}, "implementation must be one of"),
        ({"ksize": 2}, "ksize must be odd"),
        ({"keys": []}, "one value per key"),
        ({"query": torch.zeros(3, 4, 4)}, "query must be"),
        ({"keys": [torch.zeros(1, 2, 4, 4)]}, "key 0 must be"),
        ({"values": [torch.zeros(1, 3, 4, 5)]}, "value 0 must be"),
    ],
)
def test_wrong_arguments(change, message):
    arguments = {
        "query": torch.zeros(1, 3, 4, 4),
        "keys": [torch.zeros(1, 3, 4, 4)],
        "values": [torch.zeros(1, 3, 4, 4)],
    }
    with pytest.raises(ValueError, match=message):
        pyramid_attention(**(arguments | change))


def test_kernels_refuse_what_they_cannot_do():
    with pytest.raises(ValueError, match="use 'auto' or 'stream'"):
        pyramid_attention(*make_inputs((4, 4), 1), implementation="fused")
    with pytest.raises(ValueError, match="use 'auto' or 'stream'"):
        pyramid_attention(*make_inputs((4, 4), 1, dtype=torch.float32), ksize=5, implementation="fused")


@pytest.mark.parametrize("window", [None, 4])
@pytest.mark.parametrize("name", CPU_IMPLEMENTATIONS)
def test_an_empty_batch(name, window):
    query, keys, values = make_inputs((9, 8), 3, batch=1, channels=4, depth=6, dtype=torch.float32)
    query, *levels = (tensor[:0].detach().requires_grad_() for tensor in (query, *keys, *values))
    output = pyramid_attention(query, levels[:3], levels[3:], implementation=name, window=window)
    assert output.shape == (0, 6, 9, 8)
    output.sum().backward()
    assert [tensor.grad.shape for tensor in (query, *levels)] == [tensor.shape for tensor in (query, *levels)]
