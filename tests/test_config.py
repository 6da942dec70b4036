"""The configuration: sections, the seed, types, and what is refused."""

import pytest

from lift.config import as_type, read_config, read_section


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "tiny.yaml"
    path.write_text(
        "seed: 3\nmodel: {depth: 2}\nlevels: {hard: {features: {frames: 8, seed: 1}}}\nname: x\n"
    )
    return path


def test_a_section_has_the_seed_of_the_file_unless_it_has_its_own(file):
    assert read_section(file, "model") == {"seed": 3, "depth": 2}
    assert read_section(file, "levels.hard.features") == {"seed": 1, "frames": 8}
    assert read_section(file) == read_config(file)


@pytest.mark.parametrize(
    "section", ["modle", "model.depth", "name", "levels.easy", "levels.hard.features.frames"]
)
def test_a_section_that_is_not_there_is_named(file, section):
    with pytest.raises(ValueError, match=f"tiny.yaml: there is no section '{section}'"):
        read_section(file, section)


@pytest.mark.parametrize(
    "text, words",
    [("a: [", "not YAML"), ("- 1\n- 2", "expected lines"), ("word", "expected lines")],
)
def test_a_file_without_fields_is_named(tmp_path, text, words):
    (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(ValueError, match=f"x.yaml: .*{words}"):
        read_config(tmp_path / "x.yaml")
    with pytest.raises(FileNotFoundError):
        read_config(tmp_path / "y.yaml")


@pytest.mark.parametrize(
    "value, default, expected",
    [("5e-4", 0.1, 5e-4), (1, 0.5, 1.0), (3, 4, 3), ("a", "b", "a"), (True, False, True)],
)
def test_values_take_the_type_of_their_field(value, default, expected):
    result = as_type("field", value, default)
    assert result == expected and type(result) is type(default)


@pytest.mark.parametrize(
    "value, default", [("x", 0.1), (1.5, 4), (True, 4), (True, 0.5), (1, True), (None, 3), ([1], 1)]
)
def test_another_type_is_refused(value, default):
    with pytest.raises(ValueError, match="depth takes a value such as"):
        as_type("depth", value, default)
