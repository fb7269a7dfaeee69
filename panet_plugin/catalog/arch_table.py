"""The table in the documentation of all registered archs, with pyramid attention inserted."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from panet_plugin.archs import insert_pyramid_attention, list_insertion_points
from panet_plugin.frameworks.bridges import BRIDGES

#: Bridges by the titles of their frameworks.
TITLED = {bridge.title: bridge for bridge in BRIDGES.values()}


@dataclass(frozen=True)
class Example:
    """A minimal instance of an arch, and a place for a block.

    Attributes:
        framework: A key of :data:`TITLED`.
        arch: Its registered name.
        at: Path of a module in the middle of the network.
        arguments: Arguments of the constructor.
        shape: Shape of its input: ``(N, C, H, W)``, or ``(N, T, C, H, W)`` for a video.
        slow: Whether even a minimal instance takes more than a second.
    """

    framework: str
    arch: str
    at: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    shape: Sequence[int] = (1, 3, 16, 16)
    slow: bool = False

    def build(self) -> nn.Module:
        """Build the network."""
        return build(self.framework, {"type": self.arch, **self.arguments})


_SWINIR = {
    **{"embed_dim": 4, "depths": [1, 1], "num_heads": [2, 2], "window_size": 4, "img_size": 16},
    **{"upscale": 2, "upsampler": "pixelshuffledirect"},
}
_NAF = {"mid_channels": 4, "enc_blk_nums": [1], "dec_blk_nums": [1]}
_VIDEO = (1, 2, 3, 64, 64)

#: Archs that map images or videos to images.
EXAMPLES = (
    Example("BasicSR", "ECBSR", "backbone.1", {
        **{"num_in_ch": 3, "num_out_ch": 3, "num_block": 2, "num_channel": 4},
        **{"with_idt": False, "act_type": "prelu", "scale": 2},
    }),
    Example("BasicSR", "EDSR", "body.0", {"num_in_ch": 3, "num_out_ch": 3, "num_feat": 4, "num_block": 2}),
    Example("BasicSR", "HiFaceGAN", "g_middle_0", {"num_feat": 2, "crop_size": 64, "is_train": False}, (1, 3, 64, 64)),
    Example("BasicSR", "MSRResNet", "body.0", {"num_feat": 4, "num_block": 2}),
    Example("BasicSR", "RCAN", "body.0", {
        **{"num_in_ch": 3, "num_out_ch": 3, "num_feat": 4, "num_group": 2, "num_block": 1, "squeeze_factor": 2},
    }),
    Example("BasicSR", "RIDNet", "body.0", {
        "in_channels": 3, "mid_channels": 16, "out_channels": 3, "num_block": 2,
    }),
    Example("BasicSR", "RRDBNet", "body.0", {
        "num_in_ch": 3, "num_out_ch": 3, "num_feat": 4, "num_block": 2, "num_grow_ch": 2,
    }),
    Example("BasicSR", "SRVGGNetCompact_basicsr", "body.3", {"num_feat": 4, "num_conv": 2}),
    Example("BasicSR", "SwinIR", "layers.0", _SWINIR),
    Example("BasicSR", "BasicVSR", "forward_trunk", {"num_feat": 4, "num_block": 1}, _VIDEO, slow=True),
    Example("BasicSR", "BasicVSRPlusPlus", "feat_extract", {"mid_channels": 4, "num_blocks": 1}, _VIDEO, slow=True),
    Example("BasicSR", "EDVR", "fusion", {
        **{"num_feat": 4, "num_frame": 3, "deformable_groups": 2, "num_extract_block": 1, "num_reconstruct_block": 1},
    }, (1, 3, 3, 16, 16)),
    Example("BasicSR", "IconVSR", "forward_trunk", {
        "num_feat": 8, "num_block": 1, "keyframe_stride": 2,
    }, (1, 5, 3, 64, 64), slow=True),
    Example("BasicSR", "TOFlow", "conv_1", {}, (1, 7, 3, 32, 32), slow=True),
    Example("MMagic", "AOTEncoderDecoder", "dilation_neck", {
        "encoder": {"type": "AOTEncoder", "mid_channels": 4, "out_channels": 16},
        "decoder": {"type": "AOTDecoder", "in_channels": 16, "mid_channels": 8},
        "dilation_neck": {"type": "AOTBlockNeck", "in_channels": 16, "num_aotblock": 1},
    }, (1, 4, 64, 64)),
    Example("MMagic", "DICNet", "conv_first", {
        **{"in_channels": 3, "out_channels": 3, "mid_channels": 4, "num_blocks": 1, "hg_mid_channels": 4},
        **{"num_steps": 1, "num_fusion_blocks": 1},
    }),
    Example("MMagic", "DeblurGanV2Generator", "head4", {
        "backbone": "FPNMobileNet", "norm_layer": "instance",
    }, (1, 3, 32, 32)),
    Example("MMagic", "DeepFillEncoderDecoder", "stage1.dilation_neck", {}, (1, 5, 64, 64)),
    Example("MMagic", "EDSRNet", "body.0", {
        "in_channels": 3, "out_channels": 3, "mid_channels": 4, "num_blocks": 2,
    }),
    Example("MMagic", "GLEANStyleGANv2", "encoder.0", {
        "in_size": 16, "out_size": 32, "rrdb_channels": 4, "num_rrdbs": 1, "style_channels": 8,
    }, slow=True),
    Example("MMagic", "GLEncoderDecoder", "dilation_neck", {}, (1, 4, 32, 32)),
    Example("MMagic", "MSRResNet", "trunk_net.0", {
        "in_channels": 3, "out_channels": 3, "mid_channels": 4, "num_blocks": 2,
    }),
    Example("MMagic", "NAFBaseline", "middle_blks", _NAF),
    Example("MMagic", "NAFBaselineLocal", "middle_blks", {**_NAF, "train_size": (1, 3, 16, 16)}),
    Example("MMagic", "NAFNet", "middle_blks", _NAF),
    Example("MMagic", "NAFNetLocal", "middle_blks", {**_NAF, "train_size": (1, 3, 16, 16)}),
    Example("MMagic", "RDNNet", "rdbs.0", {
        **{"in_channels": 3, "out_channels": 3, "mid_channels": 4, "num_blocks": 2, "num_layers": 2},
        **{"channel_growth": 2, "upscale_factor": 2},
    }),
    Example("MMagic", "RRDBNet", "body.0", {
        "in_channels": 3, "out_channels": 3, "mid_channels": 4, "num_blocks": 2, "growth_channels": 2,
    }),
    Example("MMagic", "ResnetGenerator", "model.5", {
        "in_channels": 3, "out_channels": 3, "base_channels": 4, "num_blocks": 1,
    }),
    Example("MMagic", "Restormer", "latent", {
        "dim": 4, "num_blocks": [1, 1, 1, 1], "num_refinement_blocks": 1, "heads": [1, 1, 1, 1],
    }),
    Example("MMagic", "SRCNNNet", "conv2", {"channels": (3, 8, 4, 3)}),
    Example("MMagic", "SimpleEncoderDecoder", "decoder.deconv3_1", {
        "encoder": {"type": "VGG16", "in_channels": 4}, "decoder": {"type": "PlainDecoder", "in_channels": 512},
    }, (1, 4, 32, 32)),
    Example("MMagic", "SwinIRNet", "layers.0", _SWINIR),
    Example("MMagic", "UnetGenerator", "model.model.1", {
        "in_channels": 3, "out_channels": 3, "base_channels": 4, "num_down": 5,
    }, (1, 3, 32, 32)),
    Example("MMagic", "BasicVSRNet", "forward_resblocks", {"mid_channels": 4, "num_blocks": 1}, _VIDEO, slow=True),
    Example("MMagic", "CAINNet", "body", {
        "num_block_groups": 1, "num_block_layers": 1, "depth": 1, "reduction": 2,
    }, (1, 2, 3, 16, 16)),
    Example("MMagic", "FLAVRNet", "feature_fuse", {
        **{"num_input_frames": 4, "num_output_frames": 1},
        **{"mid_channels_list": [16, 8, 8, 4], "encoder_layers_list": [1, 1, 1, 1]},
    }, (1, 4, 3, 32, 32)),
    Example("MMagic", "RealBasicVSRNet", "basicvsr.forward_resblocks", {
        "mid_channels": 4, "num_propagation_blocks": 1, "num_cleaning_blocks": 1,
    }, _VIDEO, slow=True),
    Example("MMagic", "TOFlowVFINet", "resnet.res_block", {}, (1, 2, 3, 32, 32)),
    Example("MMagic", "TOFlowVSRNet", "conv1", {}, (1, 7, 3, 32, 32), slow=True),
)  # fmt: skip


#: Reasons why the other archs are not among the examples.
REASONS: Mapping[str, Mapping[str, Sequence[str]]] = {
    "BasicSR": {
        "its features are `(N, C, T, H, W)`": ["DUF"],
        "its output is not an image: a discriminator, an optical flow or a feature extractor": [
            *("HiFaceGANDiscriminator", "SpyNet", "StyleGAN2Discriminator", "UNetDiscriminatorSN_basicsr"),
            *("VGGFeatureExtractor", "VGGStyleDiscriminator"),
        ],
        "it requires files: a dictionary of faces": ["DFDNet"],
        "its input is not an image: it generates images from style codes": ["StyleGAN2Generator"],
    },
    "MMagic": {
        "it requires mmcv's compiled operators": ["BasicVSRPlusPlusNet", "EDVRNet", "IconVSRNet", "TDANNet"],
        "it takes several images, masks, flows or coordinates": [
            *("ColorizationNet", "FusionNet", "LIIFEDSRNet", "LIIFRDNNet", "PConvEncoderDecoder", "PlainRefiner"),
            *("DeepFillRefiner", "TTSRNet"),
        ],
        "a diffusion network: it also takes the time step, or requires another package": [
            *("ClipWrapper", "DenoisingUnet", "DiscoDiffusion", "EditAutoencoderKL", "EncoderUNetModel"),
            *("SecondaryDiffusionImageNet2", "UNet3DConditionMotionModel", "dd", "disco"),
        ],
        "its input is not an image: it generates images from noise, styles or cameras": [
            *("BigGANDeepGenerator", "BigGANGenerator", "DCGANGenerator", "EG3DGenerator", "LSGANGenerator"),
            *("MSStyleGANv2Generator", "PGGANGenerator", "SAGANGenerator", "SNGANGenerator", "SinGANMSGeneratorPE"),
            *("SinGANMultiScaleGenerator", "StyleGAN1Generator", "StyleGAN2Generator", "StyleGAN3Generator"),
            *("StyleGANv1Generator", "StyleGANv2Generator", "StyleGANv3Generator", "TriplaneGenerator"),
            "WGANGPGenerator",
        ],
        "its output is not an image: a discriminator or a feature extractor": [
            *("ADAStyleGAN2Discriminator", "ArcFace", "BigGANDeepDiscriminator", "BigGANDiscriminator"),
            *("DCGANDiscriminator", "DeblurGanV2Discriminator", "DeepFillv1Discriminators", "DualDiscriminator"),
            *("EG3DDiscriminator", "GLDiscs", "LSGANDiscriminator", "LTE", "LightCNN", "MSStyleGAN2Discriminator"),
            *("ModifiedVGG", "MultiLayerDiscriminator", "PGGANDiscriminator", "PatchDiscriminator"),
            *("ProjDiscriminator", "SAGANDiscriminator", "SinGANMultiScaleDiscriminator"),
            *("SoftMaskPatchDiscriminator", "StyleGAN1Discriminator", "StyleGAN2Discriminator"),
            *("StyleGANv1Discriminator", "StyleGANv2Discriminator", "TTSRDiscriminator"),
            *("UNetDiscriminatorWithSpectralNorm", "VGG16", "WGANGPDiscriminator"),
        ],
        "a part of other networks: insert the block into the whole network": [
            *("ADAAug", "AOTBlockNeck", "AOTDecoder", "AOTEncoder", "BigGANConditionBN", "BigGANDeepDiscResBlock"),
            *("BigGANDeepGenResBlock", "BigGANDiscResBlock", "BigGANGenResBlock", "CSG", "CSG2d", "CatersianGrid"),
            *("ContextualAttentionNeck", "ConvLNModule", "DeepFillDecoder", "DeepFillEncoder", "DenoisingDownsample"),
            *("DenoisingResBlock", "DenoisingUpsample", "EqualizedLRConvDownModule", "EqualizedLRConvModule"),
            *("EqualizedLRConvUpModule", "EqualizedLRLinearModule", "FBADecoder", "FBAResnetDilated"),
            *("FeedbackHourglass", "GLDecoder", "GLDilationNeck", "GLEncoder", "GN32", "GaussianCamera"),
            *("IndexNetDecoder", "IndexNetEncoder", "MLPRefiner", "MappingNetwork", "MiniBatchStddevLayer"),
            *("MultiHeadAttention", "MultiHeadAttentionBlock", "NormWithEmbedding", "PConv", "PConvDecoder"),
            *("PConvEncoder", "PGGANNoiseTo2DFeat", "PixelNorm", "PlainDecoder", "QKVAttention", "QKVAttentionLegacy"),
            *("ResGCADecoder", "ResGCAEncoder", "ResNetDec", "ResNetEnc", "ResShortcutDec", "ResShortcutEnc"),
            *("SNConditionNorm", "SNGANDiscHeadResBlock", "SNGANDiscResBlock", "SNGANGenResBlock", "SPE", "SPE2d"),
            *("SearchTransformer", "SelfAttentionBlock", "SiLU", "SynthesisNetwork", "TimeEmbedding", "UniformCamera"),
            *("WGANNoiseTo2DFeat", "WeightLayer"),
        ],
    },
}


def build(framework: str, arch: Mapping[str, Any]) -> nn.Module:
    """Build an arch of a framework of :data:`TITLED` from ``{"type": name, **arguments}``."""
    return TITLED[framework].load("archs").build_arch(arch)


def table() -> str:
    """Return the table of all archs in Markdown."""
    lines = ["| framework | arch | input | a place for `at` |", "|---|---|---|---|"]
    for example in EXAMPLES:
        kind = "image" if len(example.shape) == 4 else "video"
        channels = "" if example.shape[-3] == 3 else f" and mask, {example.shape[-3]} channels"
        lines.append(f"| {example.framework} | `{example.arch}` | {kind}{channels} | `{example.at}` |")
    lines += ["", "| framework | reason for omission | archs |", "|---|---|---|"]
    for framework, reasons in REASONS.items():
        for reason, names in reasons.items():
            lines.append(f"| {framework} | {reason} | {', '.join(f'`{name}`' for name in names)} |")
    return "\n".join(lines) + "\n"


def check(example: Example) -> int:
    """Insert a block, check that the output does not change, and train for one step.

    Returns:
        Number of modules after which a block could be inserted.

    Raises:
        RuntimeError: If the output changes, or no gradient reaches the block.
        ValueError: If the place is not suitable.
    """
    torch.manual_seed(0)
    network = example.build().eval().requires_grad_(False)
    images = torch.rand(*example.shape)
    places = len(list_insertion_points(network, example.shape))
    before = _run(network, images)
    insert_pyramid_attention(network, example.at, input_shape=example.shape, residual_init="zero", levels=1)
    after = _run(network, images)
    if not torch.equal(before, after):
        raise RuntimeError(f"{example.framework} {example.arch}: inserting at {example.at} changed the output")
    (after - 0.5).square().mean().backward()
    block: Any = network.get_submodule(f"{example.at}.pyramid_attention")
    gradient = block.gain.grad
    if not gradient.isfinite().all() or not gradient.any():
        raise RuntimeError(f"{example.framework} {example.arch}: no gradient reaches the block at {example.at}")
    return places


def _run(network: nn.Module, images: Tensor) -> Tensor:
    torch.manual_seed(1)  # some archs draw noise
    output = network(images.clone())  # some archs change their input
    while not isinstance(output, Tensor):
        output = output[0]
    return output
