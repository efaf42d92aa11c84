"""Maps of every method: equal to pytorch-grad-cam's, in the picture's orientation, leaving no hook behind."""

from __future__ import annotations

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from pytorch_grad_cam import (
    AblationCAM,
    EigenCAM,
    EigenGradCAM,
    FinerCAM,
    GradCAM,
    GradCAMPlusPlus,
    HiResCAM,
    LayerCAM,
    ScoreCAM,
    XGradCAM,
)
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from pytorch_grad_cam.utils.svd_on_activations import get_2d_projection_with_sign_correction
from torch import nn

from tests.making import LABELS, draw_cell
from zoo.attribution import METHODS, PREDICTED, ExplanationError, explain_batch, method_of, steps, stepwise
from zoo.attribution.concepts import classify_parts, factorise
from zoo.attribution.features import capture, find_layer, layers_of

# the smallest of each family, and its last layer where pytorch-grad-cam must be told
FAMILIES = {
    "test_resnet": "layer4",
    "test_efficientnet": "bn2",
    "mobilenetv3_small_050": "blocks.5",
    "test_convnext": "norm_pre",
    "densenet121": "features.norm5",
    "vgg11_bn": "features.28",
    "inception_v3": "Mixed_7c",
    "legacy_xception": "act4",
    "regnetx_002": "s4",
    "test_vit": "blocks.-1.norm1",
    "deit_tiny_patch16_224": "blocks.-1.norm1",
    "swin_tiny_patch4_window7_224": "norm",
    "test_maxvit": "norm",
    "test_mambaout": "stages.3",
    "eva02_tiny_patch14_224": "blocks.-1.norm1",
}
LIBRARY = {
    "grad-cam": GradCAM,
    "grad-cam++": GradCAMPlusPlus,
    "hires-cam": HiResCAM,
    "layer-cam": LayerCAM,
    "x-grad-cam": XGradCAM,
    "eigen-cam": EigenCAM,
    "eigen-grad-cam": EigenGradCAM,
    "finer-cam": FinerCAM,
    "score-cam": ScoreCAM,
    "ablation-cam": AblationCAM,
}
QUICK = [name for name, method in METHODS.items() if method.quick]
SLOW = [name for name, method in METHODS.items() if not method.quick]


def network(name: str) -> nn.Module:
    torch.manual_seed(3)
    model = timm.create_model(name, num_classes=len(LABELS)).eval()
    head = model.get_classifier()
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                # as in a trained network: channels differ, and are often silent
                module.weight.uniform_(0.5, 1.5)
                module.bias.normal_(-0.2, 0.5)
        # of each pair of classes one is against what the other is for: one of their maps is never empty
        first, second = torch.randn(2, head.weight.shape[1])
        head.weight.copy_(torch.stack([first, -first, second, -second]))
    return model.requires_grad_(False)


@pytest.fixture(scope="module", params=FAMILIES)
def family(request) -> tuple[str, nn.Module]:
    return request.param, network(request.param)


@pytest.fixture(scope="module")
def small() -> nn.Module:
    return network("test_efficientnet")


def pictures(model: nn.Module, count: int = 3) -> torch.Tensor:
    size = model.pretrained_cfg["input_size"][1:]
    drawn = [draw_cell(LABELS[n % 4], n, size[::-1]) for n in range(count)]
    return torch.stack([torch.from_numpy(np.array(image)).permute(2, 0, 1) for image in drawn]).float() / 127.5 - 1


def run(model: nn.Module, picture: torch.Tensor, target: int, method: str, layer: str | None = None) -> torch.Tensor:
    going, shares = steps(model, picture, target, method, layer), []
    while True:
        try:
            shares.append(next(going))
        except StopIteration as end:
            assert shares == sorted(shares)
            assert shares[-1] == 1
            return end.value


def maps(model: nn.Module, batch: torch.Tensor, targets: list[int], method: str) -> np.ndarray:
    if METHODS[method].quick:
        return explain_batch(model, batch, torch.tensor(targets), method).maps.numpy()
    found = [run(model, one[None], target, method) for one, target in zip(batch, targets, strict=True)]
    return torch.stack(found).numpy()


def alike(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.corrcoef(one.ravel(), other.ravel())[0, 1])


def clean(model: nn.Module) -> bool:
    untouched = all(parameter.grad is None and not parameter.requires_grad for parameter in model.parameters())
    return untouched and not any(m._forward_hooks or m._backward_hooks for m in model.modules())


def test_maps_differ_between_classes_and_pictures_in_every_family(family):
    """Not flat, another for another class, another for another picture; none leaves a trace."""
    _, model = family
    batch = pictures(model)
    of = [explain_batch(model, batch, torch.full((3,), label)).maps.numpy() for label in range(4)]
    one, two = of[0] + of[1], of[2] + of[3]
    for found in (one, two):
        assert (found.std((1, 2)) > 1e-4 * found.max()).all()
    assert alike(one, two) < 0.999
    assert np.abs(one[0] - one[1]).max() > 1e-3 * one.std()
    assert clean(model)
    assert torch.is_grad_enabled()


def test_maps_have_the_pictures_orientation_in_every_family(family):
    """A change in one corner of the picture changes the features most in that corner of the map."""
    name, model = family
    whole = pictures(model, 1)
    height, width = whole.shape[2:]
    plain = capture(model, whole, None).features
    for top, left in ((0, 0), (0, 1), (1, 0)):
        changed = whole.clone()
        changed[:, :, top * height // 2 :, left * width // 2 :][:, :, : height // 2, : width // 2] = 0.9
        moved = (capture(model, changed, None).features - plain).abs().mean((0, 1))
        rows, columns = moved.shape
        corners = {
            (a, b): moved[a * (rows - rows // 2) :, b * (columns - columns // 2) :][: rows // 2, : columns // 2].mean()
            for a in (0, 1)
            for b in (0, 1)
        }
        assert max(corners, key=corners.get) == (top, left), name


def test_grad_cam_equals_the_librarys_in_every_family(family):
    name, model = family
    assert_agrees(model, pictures(model), "grad-cam", FAMILIES[name])


# where features may be negative, the library ablates by -1e7 and not, as the paper, by 0; and Grad-CAM++ finds nothing
POSITIVE_ONLY = ("ablation-cam", "grad-cam++")


@pytest.mark.parametrize(
    ("name", "method"),
    [("test_resnet", method) for method in LIBRARY]
    + [("test_efficientnet", method) for method in LIBRARY if method not in POSITIVE_ONLY],
)
def test_every_method_equals_the_librarys(name, method):
    model = network(name)
    assert_agrees(model, pictures(model, 2), method, FAMILIES[name])


def assert_agrees(model: nn.Module, batch: torch.Tensor, method: str, layer: str) -> None:
    """Of two opposite classes, one at least has a map, and it is the library's."""
    assert sum(agreeing(model, batch, label, method, layer) for label in (0, 1))


def agreeing(model: nn.Module, batch: torch.Tensor, label: int, method: str, layer: str) -> int:
    """Number of pictures with a map; all are compared."""
    ours = maps(model, batch, [label] * len(batch), method)
    library = network_like(model)
    tokens = hasattr(model, "patch_embed") and capture(model, batch[:1], None).native.ndim == 3

    def reshape(values: torch.Tensor) -> torch.Tensor:
        if values.ndim == 3:
            values = values[:, model.num_prefix_tokens :].unflatten(1, model.patch_embed.grid_size)
        return values.permute(0, 3, 1, 2)

    native = capture(model, batch[:1], None).native
    turned = tokens or native.shape[1:] != capture(model, batch[:1], None).features.shape[1:]
    cam = LIBRARY[method](library, [find_layer(library, layer)], reshape_transform=reshape if turned else None)
    if method == "finer-cam":
        theirs = cam(batch, None, target_idx=label)
    else:
        theirs = cam(batch, [ClassifierOutputTarget(label)] * len(batch))
    if method.startswith("eigen"):
        # the library leaves the sign of a component to chance
        seen = capture(model, batch, lambda logits: logits[:, label])
        values = seen.features * (seen.gradient if "grad" in method else 1)
        theirs = np.maximum(get_2d_projection_with_sign_correction(values.numpy()), 0)
    compared = 0
    scores = capture(model, batch, None).logits[:, label]
    for mine, other, score in zip(ours, theirs, scores, strict=True):
        if method == "ablation-cam" and score < 0:
            continue  # the library divides by the score: below 0, what speaks for the class speaks against it
        large = np.asarray(Image.fromarray(mine).resize(other.shape[::-1], Image.Resampling.BILINEAR))
        # a class nothing speaks for has an empty map in both
        assert (large.std() > 1e-6 * max(ours.max(), 1e-9)) == (other.std() > 1e-6)
        if other.std() > 1e-6:
            assert alike(large, other) > 0.99
            compared += 1
    return compared


def network_like(model: nn.Module) -> nn.Module:
    """A copy for the library, which leaves hooks and gradients behind."""
    name = model.pretrained_cfg["architecture"]
    made = timm.create_model(name, num_classes=len(LABELS)).eval()
    made.load_state_dict(model.state_dict())
    return made


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "test_mambaout"])
def test_every_method_gives_a_map_on_every_layout(name, method):
    model = network(name)
    batch = pictures(model, 2)
    found = maps(model, batch, [PREDICTED, PREDICTED], method)
    assert found.shape[0] == 2
    assert min(found.shape[1:]) > 1
    assert np.isfinite(found).all()
    assert (found >= 0).all()
    assert (found.std((1, 2)) > 0).any()
    assert clean(model)


@pytest.mark.parametrize("method", SLOW)
def test_a_slow_method_can_be_dropped_at_any_step(small, method):
    picture = pictures(small, 1)
    before = torch.is_grad_enabled()
    for count in (1, 3):
        going = steps(small, picture, 0, method)
        for _ in range(count):
            assert 0 < next(going) <= 1
            assert torch.is_grad_enabled() == before  # nothing is set while others work
            assert clean(small)
        going.close()
        assert clean(small)


@pytest.mark.parametrize("method", METHODS)
def test_a_failure_leaves_no_hook_and_no_gradient(small, method):
    picture = pictures(small, 1)
    if METHODS[method].by_class:
        with pytest.raises((RuntimeError, IndexError)):
            maps(small, picture, [99], method)
    if METHODS[method].gradient and method not in ("occlusion", "integrated-gradients"):
        with pytest.raises(ExplanationError, match="no layer nowhere"):
            if METHODS[method].quick:
                explain_batch(small, picture, torch.tensor([0]), method, "nowhere")
            else:
                run(small, picture, 0, method, "nowhere")
    assert clean(small)
    assert torch.is_grad_enabled()


def test_contrast_is_the_gradient_of_the_difference(small):
    """The contrast of two classes is the gradient of their difference; with the roles changed it is another map."""
    batch = pictures(small)
    targets, against = torch.tensor([0, 0, 0]), torch.tensor([1, 1, 1])
    there = explain_batch(small, batch, targets, against=against).maps
    back = explain_batch(small, batch, against, against=targets).maps
    seen = capture(small, batch, lambda logits: logits[:, 0] - logits[:, 1])
    signed = (seen.gradient.mean((2, 3), keepdim=True) * seen.features).sum(1)
    assert torch.allclose(there - back, signed, atol=1e-5)
    assert not torch.allclose(there, back)
    for method in ("eigen-cam", "finer-cam"):
        with pytest.raises(ExplanationError, match="choose Grad-CAM"):
            explain_batch(small, batch, targets, method, against=against)


def test_layers_to_choose_from(family):
    name, model = family
    size = model.pretrained_cfg["input_size"]
    names = layers_of(model, size)
    assert len(names) >= 2, name
    # an early layer sees more places than the last
    batch = pictures(model, 1)
    first, last = (capture(model, batch, lambda logits: logits[:, 0], path).features for path in (names[0], names[-1]))
    assert first[0, 0].numel() >= last[0, 0].numel()
    assert clean(model)


def test_occlusion_and_integrated_gradients_find_the_decisive_part():
    """A model that looks at one corner only: what does not need a feature map finds the corner."""

    class Corner(nn.Module):
        def forward(self, batch: torch.Tensor) -> torch.Tensor:
            bright = batch[:, :, :24, :24].mean((1, 2, 3))
            return torch.stack([3 * bright, -3 * bright], 1)

    picture = torch.full((1, 3, 96, 128), -1.0)
    picture[:, :, 4:20, 4:20] = 1.0
    for method in ("occlusion", "integrated-gradients"):
        found = run(Corner(), picture, 0, method).numpy()
        rows, columns = found.shape
        inside = found[: round(rows * 28 / 96), : round(columns * 28 / 128)].sum()
        assert inside > 0.9 * found.sum() > 0, method
        assert found.shape[1] > found.shape[0]  # as the picture


def test_refuses_gradients_of_a_model_without_them():
    class Steplike(nn.Module):
        def forward(self, batch: torch.Tensor) -> torch.Tensor:
            return torch.from_numpy(np.float32([[1, 0]] * len(batch)))

    with pytest.raises(ExplanationError, match="choose occlusion"):
        run(Steplike(), torch.zeros(1, 3, 32, 32), 0, "integrated-gradients")


def test_concepts_divide_a_picture(small):
    last, early = (capture(small, pictures(small, 1), None, layer) for layer in (None, "blocks.2"))
    maps, vectors = factorise(last.features)
    assert maps.shape == (4, *last.features.shape[2:])
    assert maps.min() >= 0
    assert maps.max() == 1
    # the parts add up to what the network saw, but for its smallest values
    offset = last.features[0].flatten(1).amin(1)
    assert vectors.shape == (4, len(offset))
    shares = classify_parts(small, last.native, vectors, None)
    assert np.allclose(shares.sum(1), 1, atol=1e-4)
    assert shares.shape == (4, len(LABELS))
    assert classify_parts(small, early.native, factorise(early.features)[1], "blocks.2").shape == (4, 0)
    assert clean(small)


def test_refuses_an_unknown_method():
    with pytest.raises(ExplanationError, match="grad-cam"):
        method_of("magic")


def test_every_step_is_one_forward_pass(small):
    """Progress is true: every step is one pass of at most `batch` pictures."""
    seen: list[int] = []
    handle = small.register_forward_hook(lambda _, inputs, __: seen.append(len(inputs[0])))
    shares = list(stepwise.occlusion(small, pictures(small, 1), 0, None, batch=5))
    handle.remove()
    assert max(seen) <= 5
    assert len(shares) == len(seen) - 1  # the first pass is of the whole picture
    assert shares == sorted(shares) and shares[-1] == 1
