"""What an administrator sets, and what is refused before a port is opened."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import fields, replace
from pathlib import Path

import pytest
from any2all.errors import Any2allError
from lib.replies import OTHER_STATUS, STATUS
from lib.service import Service
from lib.settings import BUNDLE, Limits, ServerSettings
from server_builders import study

TOKEN = "a-token-of-enough-letters"


def read(conf=None, environment=None):
    return ServerSettings.read(conf or {}, environment or {}, 8000)


def refusal(conf=None, environment=None):
    with pytest.raises(Any2allError) as refused:
        read(conf, environment)
    assert refused.value.code == "invalid_setting"
    return refused.value


def test_without_settings_it_is_the_released_prior_loopback_and_a_folder_for_each_port(tmp_path):
    settings = read(environment={"XDG_CACHE_HOME": str(tmp_path)})
    assert settings.model_file == BUNDLE / "models" / "model.pt" and settings.model_file.is_file()
    assert settings.token is None and settings.cors_origins == () and settings.limits == Limits()
    assert settings.work_dir == tmp_path / "any2all" / "server-8000"


def test_conf_wins_over_the_environment():
    environment = {
        "ANY2ALL_QUEUE": "3",
        "ANY2ALL_STEPS": "50",
        "ANY2ALL_CORS_ORIGINS": "https://a.example, https://b.example/",
    }
    settings = read({"queue": "7", "batch_size": 4, "work_dir": "/w"}, environment)
    assert (settings.limits.queue, settings.limits.steps, settings.batch_size) == (7, 50, 4)
    assert settings.cors_origins == ("https://a.example", "https://b.example") and settings.work_dir == Path("/w")


@pytest.mark.parametrize("value", ["0", "-1", "1.5", "many", "", "٣"])
def test_a_number_that_is_none_is_refused(value):
    assert refusal({"queue": value}).key == "conf.queue"


def test_an_unknown_setting_is_refused_with_what_there_is():
    error = refusal({"model_filename": "x"})
    assert error.key == "conf.model_filename" and "model_file" in error.allowed
    assert refusal({"token": TOKEN}).key == "conf.token", "a token on the command line could be read by every user"
    assert refusal({"cors_origins": "*"}).key == "conf.cors_origins"


def test_a_token_comes_from_the_environment_or_a_file(tmp_path):
    file = tmp_path / "token"
    file.write_text(TOKEN + "\n")
    assert read(environment={"ANY2ALL_TOKEN": TOKEN}).token == TOKEN
    assert read(environment={"ANY2ALL_TOKEN_FILE": str(file)}).token == TOKEN
    assert TOKEN not in repr(read(environment={"ANY2ALL_TOKEN": TOKEN}))


@pytest.mark.parametrize("content", ["", "\n", "short", "has blanks in the middle of it", "ünïcödé-is-no-token-either"])
def test_a_token_that_protects_nothing_is_refused(tmp_path, content):
    (tmp_path / "token").write_text(content)
    assert refusal(environment={"ANY2ALL_TOKEN_FILE": str(tmp_path / "token")}).key == "ANY2ALL_TOKEN_FILE"
    assert refusal(environment={"ANY2ALL_TOKEN": content}).key == "ANY2ALL_TOKEN"


def test_two_tokens_and_a_missing_file_are_refused(tmp_path):
    refusal(environment={"ANY2ALL_TOKEN": TOKEN, "ANY2ALL_TOKEN_FILE": str(tmp_path)})
    refusal(environment={"ANY2ALL_TOKEN_FILE": str(tmp_path / "none")})


def test_the_documentation_names_every_setting():
    text = (BUNDLE.parent / "monai_app" / "README.md").read_text()
    known = {f.name for f in fields(Limits)} | {"work_dir", "model_file", "device", "batch_size", "cors_origins"}
    assert {name for name in known if f"`{name}`" not in text} == set()


def test_the_deployment_templates_name_settings_that_exist():
    folder = BUNDLE.parent / "monai_app" / "deploy"
    text = "".join(file.read_text() for file in folder.iterdir())
    known = {f.name for f in fields(Limits)} | {"work_dir", "model_file", "device", "batch_size", "token", "token_file"}
    named = set(re.findall(r"ANY2ALL_([A-Z_]+)\b", text))
    assert named and {name for name in named if name.lower() not in known} == set()


def test_cdm_is_the_file_beside_the_prior_where_it_is_there(tmp_path):
    (tmp_path / "model.pt").touch()
    assert read({"model_file": tmp_path / "model.pt"}).cdm_file is None
    (tmp_path / "cdm.pt").touch()
    assert read({"model_file": tmp_path / "model.pt"}).cdm_file == tmp_path / "cdm.pt"
    error = refusal({"cdm_file": tmp_path / "other.pt"})
    assert error.key == "conf.cdm_file" and error.value.endswith("other.pt")


def test_a_server_without_cdm_does_not_list_it_and_refuses_it_in_words(tmp_path, tiny_model_file, phantom_files):
    service = Service(ServerSettings(work_dir=tmp_path / "work", model_file=tiny_model_file), tmp_path)
    assert set(service.info()["samplers"]) == {"mcs", "mds", "mps"}
    with pytest.raises(Any2allError, match="there is no trained CDM here") as refused:
        service.checked(study(sampler={"name": "cdm"}), phantom_files)
    error = refused.value
    assert (error.key, error.value, error.code) == ("sampler.name", "cdm", "cdm_unavailable")
    assert error.allowed == ("mcs", "mds", "mps") and STATUS.get(error.code, OTHER_STATUS) == 422


def test_a_cdm_of_another_grid_beside_the_prior_is_left_out_and_a_named_one_refused(
    tmp_path, tiny_model_file, tiny_cdm_file
):
    for file in (tiny_model_file, tiny_model_file.with_name("prior.json")):
        shutil.copy(file, tmp_path / file.name)
    for file in (tiny_cdm_file, tiny_cdm_file.with_suffix(".json")):
        shutil.copy(file, tmp_path / f"cdm{file.suffix}")
    card = json.loads((tmp_path / "cdm.json").read_text())
    card["spacing_mm"] = [1.0, 1.0, 1.0]
    (tmp_path / "cdm.json").write_text(json.dumps(card))
    (tmp_path / "other").mkdir()
    for name in ("cdm.pt", "cdm.json"):
        shutil.copy(tmp_path / name, tmp_path / "other" / name)
    settings = ServerSettings(
        work_dir=tmp_path / "work", model_file=tmp_path / tiny_model_file.name, cdm_file=tmp_path / "cdm.pt"
    )
    service = Service(settings, tmp_path)
    assert "cdm" not in service.info()["samplers"] and service.dispatcher.settings.cdm_file is None
    with pytest.raises(Any2allError, match="another spacing_mm"):
        Service(replace(settings, work_dir=tmp_path / "w", cdm_file=tmp_path / "other" / "cdm.pt"), tmp_path)
