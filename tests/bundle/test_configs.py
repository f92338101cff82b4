"""The bundle by MONAI's own checks, and that what its files say is true."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from any2all import __version__
from any2all.diffusion.prior import build_network, load_prior
from any2all.stack import load_stack
from monai.bundle import ConfigWorkflow, ckpt_export, verify_net_in_out

REPOSITORY = Path(__file__).parents[2]
BUNDLE = REPOSITORY / "bundle"
CONFIGS = BUNDLE / "configs"
METADATA = json.loads((CONFIGS / "metadata.json").read_text())


@pytest.mark.parametrize("study", [None, "given"])
def test_inference_has_every_property_that_monai_wants(tiny_model_file, small_study, study):
    overrides = {"study": str(small_study / "study.json")} if study else {}
    workflow = ConfigWorkflow(
        str(CONFIGS / "inference.json"), workflow_type="infer", model_file=str(tiny_model_file), **overrides
    )
    workflow.initialize()
    assert workflow.check_properties() == []
    assert workflow.bundle_root == str(BUNDLE) and len(workflow.dataset) == (1 if study else 0)
    assert workflow.version == __version__


def test_network_takes_and_gives_what_the_metadata_says(tiny_model_file):
    common = {"meta_file": str(CONFIGS / "metadata.json"), "config_file": str(CONFIGS / "inference.json")}
    verify_net_in_out("network_def", device="cpu", model_file=str(tiny_model_file), **common)
    with pytest.raises(ValueError, match="output channel number"):
        wrong = {"_meta_#network_data_format#outputs#pred#num_channels": 5}
        verify_net_in_out("network_def", device="cpu", model_file=str(tiny_model_file), **common, **wrong)


def test_the_network_is_exported_by_trace(tiny_model_file, tmp_path):
    file = tmp_path / "model.ts"
    ckpt_export(
        "network_def",
        filepath=str(file),
        ckpt_file=str(tiny_model_file),
        meta_file=str(CONFIGS / "metadata.json"),
        config_file=str(CONFIGS / "inference.json"),
        use_trace=True,
        model_file=str(tiny_model_file),
    )
    exported, network = torch.jit.load(str(file)), load_prior(tiny_model_file).network
    x = torch.randn(1, 6, *METADATA["network_data_format"]["inputs"]["image"]["spatial_shape"])
    with torch.no_grad():
        assert torch.allclose(exported(x), network(x), atol=1e-4)  # level 1000, the default


REQUIRED: dict[str, Any] = {
    "schema": str,
    "version": str,
    "monai_version": str,
    "pytorch_version": str,
    "numpy_version": str,
    "required_packages_version": dict,
    "task": str,
    "description": str,
    "authors": str,
    "copyright": str,
    "data_source": str,
    "data_type": str,
    "image_classes": str,
    "pred_classes": str,
    "intended_use": str,
    "references": list,
    "network_data_format": dict,
}


def test_metadata_is_complete():
    """The schema is downloaded by ``verify_metadata``; what it requires is checked here without a network."""
    for key, kind in REQUIRED.items():
        assert isinstance(METADATA[key], kind) and METADATA[key], key
    for key in ("version", "monai_version", "pytorch_version", "numpy_version"):
        assert re.fullmatch(r"\d+\.\d+\.\d+", METADATA[key])
    assert "not a medical device" in METADATA["intended_use"] and METADATA["version"] in METADATA["changelog"]
    for side, name in (("inputs", "image"), ("outputs", "pred")):
        entry = METADATA["network_data_format"][side][name]
        assert {"type", "format", "num_channels", "spatial_shape", "dtype", "value_range", "is_patch_data"} <= set(
            entry
        )
        assert tuple(entry["channel_def"].values()) == load_stack().names
        assert entry["num_channels"] == len(load_stack())


def test_metadata_agrees_with_the_package():
    assert METADATA["version"] == __version__
    assert f'version = "{__version__}"' in (REPOSITORY / "pyproject.toml").read_text()
    train = json.loads((CONFIGS / "train.json").read_text())
    assert METADATA["network_data_format"]["inputs"]["image"]["spatial_shape"] == train["matrix"]


def test_the_prior_for_a_gpu_fits_its_release():
    """24 MiB in half precision, on a grid that its network can divide."""
    settings = json.loads((CONFIGS / "train_gpu.json").read_text())
    network = build_network(load_stack(), settings["network"])
    assert 2 * sum(weight.numel() for weight in network.state_dict().values()) <= 24 * 2**20
    assert all(size % network.multiple == 0 for size in settings["matrix"])


def test_the_released_prior_is_what_the_configs_say():
    model = BUNDLE / "models" / "model.pt"
    if not model.is_file():
        pytest.skip("no released prior in bundle/models: nothing to check")
    prior = load_prior(model)
    assert list(prior.card.matrix) == METADATA["network_data_format"]["inputs"]["image"]["spatial_shape"]
    assert prior.stack.names == load_stack().names and prior.noise_levels == "per_modality"
    assert prior.card.calibration is not None and model.stat().st_size <= 12 * 2**20
    assert prior.contrast is not None and prior.mean_network is not None


@pytest.mark.parametrize("config", sorted(path.name for path in CONFIGS.glob("*.json") if path.name != "stack.json"))
def test_every_key_is_explained(config):
    """``docs/README.md`` names each top-level key of each configuration."""
    if config == "metadata.json":
        return
    text = (BUNDLE / "docs" / "README.md").read_text()
    sections = {title: body for title, _, body in (part.partition("\n") for part in text.split("\n### "))}
    assert f"`{config}`" in sections, f"no section for {config}"
    words = sections[f"`{config}`"] + sections["Every configuration"]
    document = json.loads((CONFIGS / config).read_text())
    if isinstance(document, list):
        document = document[0]
    keys = [key.lstrip("+") for key in document]
    missing = [key for key in keys if f"`{key}`" not in words]
    assert not missing, f"{config}: unexplained keys {missing}"


def test_no_config_knows_a_machine():
    for path in [*CONFIGS.iterdir(), REPOSITORY / "Makefile", REPOSITORY / "pyproject.toml"]:
        assert not re.search(r"/(work|home|root|tmp|mnt)/", path.read_text()), path.name


def test_every_source_of_the_data_has_its_licence():
    text = (BUNDLE / "docs" / "data_license.txt").read_text()
    for words in ("SynthSeg", "Apache-2.0", "open_ms_data", "CC-BY", "Lesjak", "VolumeRenderingData", "MIT"):
        assert words in text
    for words in ("sigpy-mri-tutorial", "BSD-3-Clause", "subject16", "Billot"):
        assert words in text
