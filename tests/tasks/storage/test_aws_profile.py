import pytest

from darkroom.tasks.storage.aws_profile import profile_config


@pytest.fixture
def variables(tmp_path):
    (tmp_path / "credentials").write_text(
        "[default]\naws_access_key_id = A\naws_secret_access_key = a%(x)s\n[other]\naws_access_key_id = B\n"
        "aws_secret_access_key = b\naws_session_token = t\n"
    )
    (tmp_path / "config").write_text(
        "[default]\nregion = eu-west-1\n[profile other]\nregion = us-east-2\nendpoint_url = http://x:1\noutput = json\n"
    )
    return {
        "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "credentials"),
        "AWS_CONFIG_FILE": str(tmp_path / "config"),
    }


def test_a_profile_has_keys_region_and_endpoint(variables):
    assert profile_config(variables) == {"access_key_id": "A", "secret_access_key": "a%(x)s", "region": "eu-west-1"}
    assert profile_config(variables | {"AWS_PROFILE": "other"}) == {
        "access_key_id": "B",
        "secret_access_key": "b",
        "session_token": "t",
        "region": "us-east-2",
        "endpoint": "http://x:1",
    }


def test_the_environment_takes_precedence(variables):
    environment = {"AWS_ACCESS_KEY_ID": "E", "AWS_SECRET_ACCESS_KEY": "e", "AWS_REGION": "r", "AWS_PROFILE": "other"}
    assert profile_config(variables | environment) == {"endpoint": "http://x:1"}


@pytest.mark.parametrize("text", [None, b"no section", b"\xff"])
def test_missing_and_malformed_files_are_ignored(variables, tmp_path, text):
    for name in ("credentials", "config"):
        (tmp_path / name).unlink()
        if text:
            (tmp_path / name).write_bytes(text)
    assert profile_config(variables) == {}
