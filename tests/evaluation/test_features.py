"""What FID and KID are measured on: the network that ships, others' weights in their own layouts, and refusals."""

import json

import pytest
import torch
from any2all.errors import Any2allError
from any2all.evaluation.degradations import alias, blur, degrade
from any2all.evaluation.distribution import fid
from any2all.evaluation.feature_network import DEGRADATIONS, FEATURES, FeatureNetwork
from any2all.evaluation.features import KINDS, OWN, load_features, save_own
from any2all.evaluation.train_features import TISSUE_GROUPS, Lessons, draw_batch, examine, train
from any2all.stack import load_stack
from monai.networks.nets import resnet50

STACK = load_stack()


def lessons(heads=4):
    """Slices of rings: every channel another contrast, the height known, white matter counted."""
    h, w = torch.meshgrid(torch.linspace(-1, 1, 32), torch.linspace(-1, 1, 32), indexing="ij")
    radius = torch.linspace(0.4, 1.0, 12).repeat(heads)[:, None, None]
    rings = torch.hypot(h, 1.2 * w)[None] / radius
    labels = sum((rings < edge).long() for edge in (0.95, 0.85, 0.8, 0.5, 0.3))  # 0 air, 1 skin, … 5 fluid
    contrasts = torch.linspace(0.15, 0.9, 7)
    channels = [contrasts[torch.randperm(7, generator=torch.Generator().manual_seed(m))] for m in range(6)]
    images = torch.stack([c.index_fill(0, torch.tensor(0), 0.0)[labels.long()] for c in channels], dim=1)
    share = (labels == 3).float().mean(dim=(1, 2)).sqrt()
    tissues = torch.zeros(len(labels), len(TISSUE_GROUPS))
    tissues[:, 0] = share
    height = torch.linspace(-1, 1, 12).repeat(heads)
    return Lessons(images.half(), torch.ones(images.shape[:2], dtype=torch.bool), height, tissues)


def blobs(count=60, size=32, seed=0):
    """Smooth images (N, H, W) in u."""
    noise = torch.randn(count, size, size, generator=torch.Generator().manual_seed(seed))
    smooth = blur(noise, torch.full((count,), 1.5))
    return (0.5 + 0.2 * smooth / smooth.std()).clamp(0, 1)


def test_the_network_that_ships_is_small_and_notices_every_degradation_the_more_the_worse():
    assert OWN.stat().st_size <= 2**20
    features, u = load_features(), blobs()
    clean = features(u)
    assert clean.shape == (60, FEATURES) and features.name.startswith("any2all-features")
    assert features.name in str(features) and features.sha256[:8] in str(features)
    generator = torch.Generator().manual_seed(1)
    for number in range(1, len(DEGRADATIONS)):
        kinds = torch.full((60,), number)
        found = [fid(clean, features(degrade(u, kinds, torch.full((60,), s), generator))).value for s in (0.2, 0.5, 1)]
        assert found == sorted(found) and found[0] > 0
    assert fid(clean, features((0.8 * u).numpy())).value > found[0] * 0.01  # brightness is seen


def test_its_card_says_how_it_was_trained_and_tells_degradations_apart():
    card = json.loads(OWN.with_suffix(".json").read_text())
    assert card["modalities"] == list(STACK.names) and card["training"]["heads"] == 15
    assert card["validation"]["modality"] > 0.9 and card["validation"]["degradation"] > 0.9


def test_training_learns_what_it_is_asked():
    few = lessons()
    network = train(few, STACK, 80, seed=3)
    found = examine(network, few, STACK, batches=2)
    assert found["modality"] > 0.6 and found["degradation"] > 0.55 and found["tissue_share"] < 0.05
    again, same = (train(few, STACK, 2, seed=3) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(again.state_dict().values(), same.state_dict().values()))


def test_a_batch_asks_of_absent_modalities_nothing():
    some = lessons(1)
    present = some.present.clone()
    present[:, [1, 4]] = False
    batch = draw_batch(Lessons(some.images, present, some.height, some.tissues), STACK, 200, torch.Generator())
    assert set(batch.modality.tolist()) == {0, 2, 3, 5}
    clean = batch.degradation == 0
    assert (batch.strength[clean] == 0).all() and (batch.strength[~clean] >= 0.1).all()
    assert 0.35 < clean.float().mean() < 0.65


def test_degradations_are_what_they_say():
    u = blobs(4)
    zero, one = torch.zeros(4), torch.ones(4)
    for number in range(4):
        unchanged = degrade(u, torch.full((4,), number), zero, torch.Generator())
        assert torch.allclose(unchanged, u, atol=1e-5)
    folded = (u + u.roll(8, -1) + u.roll(16, -1) + u.roll(24, -1)) / 4  # R = 4 folds four copies
    assert torch.allclose(alias(u, one), folded, atol=1e-5)
    point = torch.zeros(1, 33, 33)
    point[0, 16, 16] = 1.0
    spread = blur(point, torch.ones(1))[0]
    at = torch.arange(33) - 16.0
    assert float((spread.sum(0) * at**2).sum()) == pytest.approx(4.0, rel=1e-3)  # variance of 2 pixels
    noisy = degrade(
        torch.full((4, 64, 64), 0.5), torch.ones(4, dtype=torch.long), one, torch.Generator().manual_seed(0)
    )
    assert float(noisy.std()) == pytest.approx(0.12, rel=0.05)


def test_a_saved_network_comes_back_and_a_changed_one_is_refused(tmp_path):
    network = FeatureNetwork(6, len(TISSUE_GROUPS)).eval()
    card = {"version": "x", "modalities": list(STACK.names), "tissues": dict(TISSUE_GROUPS)}
    file = tmp_path / "features.pt"
    save_own(network, card, file)
    u = blobs(5)
    expected = network.features(u[:, None]).detach().numpy()
    assert load_features("any2all", file)(u) == pytest.approx(expected, abs=5e-3)  # half precision
    file.write_bytes(file.read_bytes() + b" ")
    with pytest.raises(Any2allError, match="sha256"):
        load_features("any2all", file)


def radimagenet_file(folder, network):
    """The layout of the published PyTorch weights: the children of a ResNet50 by number."""
    numbers = {name: number for number, (name, _) in enumerate(network.named_children())}
    state = {}
    for key, value in network.state_dict().items():
        name, rest = key.split(".", 1)
        state[f"backbone.{numbers[name]}.{rest}"] = value
    file = folder / "ResNet50.pt"
    torch.save(state, file)
    return file


def test_radimagenets_resnet_is_read_in_its_own_layout(tmp_path):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = resnet50(spatial_dims=2, n_input_channels=3, feed_forward=False, bias_downsample=False).eval()
    features = load_features("radimagenet_resnet50", radimagenet_file(tmp_path, network))
    # the aspect is kept: 80 × 60 becomes 224 × 168, with air on both sides
    u = blobs(1, 80)[:, :, :60]
    large = torch.nn.functional.interpolate(u[:, None], (224, 168), mode="bilinear", antialias=True)
    square = torch.zeros(1, 1, 224, 224)
    square[..., 28:196] = large
    with torch.no_grad():
        expected = network((2 * square - 1).expand(-1, 3, -1, -1)).numpy()
    found = features(u)
    assert found.shape == (1, 2048) and found == pytest.approx(expected, rel=1e-4, abs=1e-5)
    assert "RadImageNet" in features.name


def test_inception_is_read_where_torchvision_is(tmp_path):
    try:
        from torchvision.models import inception_v3
    except (ImportError, RuntimeError) as error:
        pytest.skip(f"torchvision cannot be imported: {error}")
    network = inception_v3(weights=None, aux_logits=True, init_weights=False).eval()
    file = tmp_path / "inception.pth"
    torch.save(network.state_dict(), file)
    for kind in ("inception", "radimagenet_inception"):
        assert load_features(kind, file)(blobs(1)).shape == (1, 2048)


def test_without_torchvision_inception_says_so(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "torchvision.models", None)
    (tmp_path / "inception.pth").write_bytes(b"x")
    with pytest.raises(Any2allError, match="torchvision cannot be imported"):
        load_features("inception", tmp_path / "inception.pth")


@pytest.mark.parametrize("kind", sorted(set(KINDS) - {"any2all"}))
def test_weights_that_are_not_there_are_named(kind, tmp_path):
    with pytest.raises(Any2allError) as caught:
        load_features(kind)
    assert caught.value.key == "features.file" and "features.file" in str(caught.value)
    with pytest.raises(Any2allError, match="weights not found"):
        load_features(kind, tmp_path / "absent.pt")
    with pytest.raises(Any2allError, match="no such features"):
        load_features("vgg")


def test_other_weights_are_refused_in_words(tmp_path):
    file = tmp_path / "w.pt"
    torch.save({"conv1.weight": torch.zeros(3)}, file)
    with pytest.raises(Any2allError, match="weights of another network"):
        load_features("radimagenet_resnet50", file)
    torch.save({"fc.weight": torch.zeros(1008, 2048)}, file)
    with pytest.raises(Any2allError, match="pytorch-fid"):
        load_features("radimagenet_resnet50", file)
    torch.save([1, 2], file)
    with pytest.raises(Any2allError, match="no state dict"):
        load_features("radimagenet_resnet50", file)
    file.write_bytes(b"nothing of the kind")
    with pytest.raises(Any2allError, match="cannot be read"):
        load_features("radimagenet_resnet50", file)
