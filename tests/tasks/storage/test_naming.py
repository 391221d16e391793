import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from darkroom.tasks.storage.naming import (
    MAX_NAME_BYTES,
    OUTPUT_SUFFIXES,
    is_image_name,
    output_name,
    path_to_text,
    suffix_of,
    text_to_path,
)

FORMATS = tuple(OUTPUT_SUFFIXES)
formats = st.sampled_from(FORMATS)

raw_paths = st.lists(
    st.one_of(
        st.binary(min_size=1, max_size=12).filter(lambda raw: b"/" not in raw and b"\0" not in raw),
        st.text(st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1, max_size=6).map(str.encode),
        # The characters that stand for bytes, and pieces of them.
        st.text(st.characters(min_codepoint=0xEF00, max_codepoint=0xEFFF), min_size=1, max_size=3).map(str.encode),
        st.sampled_from([b"\xee\xbe", b"\xee", b"\x80", b"\xed\xb2\x80", b"\xf0\x9f\x98", b"\xff"]),
    ),
    min_size=1,
    max_size=4,
).map(b"/".join)

stems = st.sampled_from(
    ["a", "b", "A", "é", "~as", "a~as", "~0123456789abcdef", "x" * 240, "x" * 251, "é" * 125, "\uef80\uefff" * 40]
)
endings = st.lists(
    st.sampled_from(["jpg", "JPG", "jpeg", "png", "PNG", "webp", "gif", "d", "txt", "heic", "jpg~as"]), max_size=4
)
names = st.builds(lambda stem, ending: ".".join([stem, *ending]), stems, endings).filter(
    lambda name: len(text_to_path(name)) <= MAX_NAME_BYTES
)


def folder_output(folder, output_format):
    return output_name(f"{folder}/x.{OUTPUT_SUFFIXES[output_format][0]}", output_format).split("/")[0]


@st.composite
def sources(draw):
    """Draw a format, and paths that can lie together in a source; some are named like the outputs of others."""
    output_format = draw(formats)
    some = draw(st.lists(names, min_size=1, max_size=4))
    for _ in range(2):
        some += [output_name(name, output_format) for name in some]
        some += [folder_output(name, output_format) for name in some]
    name = st.sampled_from(some)
    path = st.builds(lambda folders, last: "/".join([*folders, last]), st.lists(name, max_size=2), name)
    paths = draw(st.sets(path, min_size=1, max_size=12))
    folders = {folder for each in paths for folder in folders_of(each)}
    return output_format, paths - folders


def folders_of(path):
    parts = path.split("/")
    return {"/".join(parts[:depth]) for depth in range(1, len(parts))}


@given(raw_paths)
@example(b"")
@example("\uef80".encode())
@example(b"\xee\xbe\x80\x80")
def test_the_text_of_a_path_is_utf8_and_turns_back_into_its_bytes(raw):
    text = path_to_text(raw)
    assert text.encode().decode() == text
    assert text_to_path(text) == raw


@given(raw_paths, raw_paths)
def test_no_two_paths_share_a_text(one, other):
    assert (path_to_text(one) == path_to_text(other)) == (one == other)


@given(st.text(st.characters(codec="utf-8", exclude_characters="\0", max_codepoint=0xEEFF)))
def test_utf8_stays_as_it_is(text):
    assert path_to_text(text.encode()) == text


@given(raw_paths)
def test_the_text_of_a_path_keeps_its_parts(raw):
    assert [text_to_path(part) for part in path_to_text(raw).split("/")] == raw.split(b"/")


@pytest.mark.parametrize(
    ("name", "suffix"),
    [("a.jpg", "jpg"), ("a.b.PNG", "png"), (".jpg", ""), ("jpg", ""), ("a.", ""), ("", ""), ("a.jpg ", "jpg ")],
)
def test_a_suffix_is_what_follows_the_last_dot(name, suffix):
    assert suffix_of(name) == suffix


@pytest.mark.parametrize("name", ["a.jpg", "a.JPEG", "a.tiff", "a.png.webp", "\n.gif", "a..png"])
def test_image_names(name):
    assert is_image_name(name)


@pytest.mark.parametrize("name", [".jpg", "jpg", "a.jpg~", "a.jpg.txt", "a.mp4", "a.svg", "a.heic ", ""])
def test_other_names(name):
    assert not is_image_name(name)


@pytest.mark.parametrize(
    ("source", "output"),
    [
        ("a/b.jpg", "a/b.jpg"),
        ("a/b.png", "a/b.png.jpg"),
        ("b.png.jpg", "b.png.jpg.jpg"),
        ("b.png.jpg.jpg", "b.png.jpg.jpg.jpg"),
        ("b.png.jpg/c.jpg", "b.png.jpg.d/c.jpg"),
        ("b.png.jpg.d/c.jpg", "b.png.jpg.d.d/c.jpg"),
        ("b.png.jpg/d.png", "b.png.jpg.d/d.png.jpg"),
        ("A.JPG", "A.JPG"),
        ("a.jpg", "a.jpg"),
        ("a.jpeg", "a.jpeg"),
        ("a.jpeg.jpg", "a.jpeg.jpg"),
        ("x.y.jpg", "x.y.jpg"),
        ("v1.2/a.jpg", "v1.2/a.jpg"),
        ("photo", "photo~as.jpg"),
        ("photo~as.jpg", "photo~as.jpg.jpg"),
        ("photo~as.jpg/a.jpg", "photo~as.jpg.d/a.jpg"),
        ("IMG_1.HEIC", "IMG_1.HEIC~as.jpg"),
        ("IMG_1.heic.jpg", "IMG_1.heic.jpg"),
        ("pic.jpg_large", "pic.jpg_large~as.jpg"),
        ("x.jpg.1", "x.jpg.1~as.jpg"),
        ("a.jpg/b.jpg", "a.jpg/b.jpg"),
        ("a.png/b.jpg", "a.png/b.jpg"),
    ],
)
def test_documented_examples(source, output):
    assert output_name(source, "jpeg") == output


@pytest.mark.parametrize(("output_format", "suffix"), [("jpeg", "jpg"), ("png", "png"), ("webp", "webp")])
def test_a_suffix_that_does_not_fit_gets_the_formats_own(output_format, suffix):
    assert output_name("a.gif", output_format) == f"a.gif.{suffix}"
    assert output_name(f"a.{suffix.upper()}", output_format) == f"a.{suffix.upper()}"


@given(sources())
@example(("jpeg", {"b.png", "b.png.jpg", "b.png.jpg.jpg"}))
@example(("jpeg", {"b.png", "b.png.jpg/a.jpg", "b.png.jpg.d/a.jpg"}))
@example(
    ("jpeg", {"a", "a.jpg", "a~as.jpg", "a~as", "a~as.jpg.jpg", "a~as.jpeg", "a.heic", "a.heic.jpg", "a.heic~as.jpg"})
)
@example(("jpeg", {"x" * 255, "x" * 254, "x" * 251 + ".jpg", "x" * 248 + "~as.jpg"}))
@example(("png", {"a.jpg", "a.jpg.png", "a.jpeg.png/a.jpg", "a.jpeg"}))
def test_no_two_sources_share_an_output_and_no_output_is_a_folder_of_another(given_sources):
    output_format, paths = given_sources
    outputs = [output_name(path, output_format) for path in paths]
    assert len(set(outputs)) == len(paths)
    assert not set(outputs) & {folder for output in outputs for folder in folders_of(output)}


@given(
    st.sets(
        st.tuples(
            st.lists(st.sampled_from(["a", "a.jpg", "a.jpg.d", "a.png.jpg", "", ".", "..", ".d", "..d"]), max_size=3),
            st.sampled_from(["a", "a.jpg", "a.png", "a.jpg.d", "a.png.jpg", "a.JPG"]),
        ).map(lambda key: "/".join([*key[0], key[1]]))
    ),
    formats,
)
def test_a_key_that_is_also_a_prefix_has_its_own_output(keys, output_format):
    outputs = {key: output_name(key, output_format, in_bucket=True) for key in keys}
    assert len(set(outputs.values())) == len(keys)
    assert not {"", ".", ".."} & {segment for output in outputs.values() for segment in output.split("/")}
    assert not set(outputs.values()) & {folder for output in outputs.values() for folder in folders_of(output)}


@pytest.mark.parametrize("output_format", FORMATS)
def test_a_source_named_like_the_cut_output_of_another_gets_another_output(output_format):
    long = "é" * 125 + ".gif"
    taken = output_name(long, output_format)
    assert len(text_to_path(long + ".webp")) > MAX_NAME_BYTES
    assert is_image_name(taken)
    assert output_name(taken, output_format) != taken
    assert folder_output(taken, output_format) != taken


def test_a_folder_named_like_the_cut_output_of_another_gets_another_name():
    long = "x" * 243 + ".png.jpg.jpg"
    taken = folder_output(long, "jpeg")
    assert taken.endswith(".d")
    assert len(taken) == MAX_NAME_BYTES
    assert folder_output(taken, "jpeg") not in {taken, long}


@given(st.one_of(raw_paths, names.map(text_to_path)), st.sampled_from(["", ".png", ".jpg", ".png.jpg"]), formats)
def test_output_names_fit_file_systems(raw, ending, output_format):
    parts = [part[: MAX_NAME_BYTES - len(ending)] for part in raw.split(b"/")]
    source = path_to_text(b"/".join(part + ending.encode() for part in parts))
    output = output_name(source, output_format)
    raw_output = text_to_path(output)
    assert path_to_text(raw_output) == output
    assert all(0 < len(part) <= MAX_NAME_BYTES for part in raw_output.split(b"/"))
    assert len(raw_output.split(b"/")) == len(parts)


def test_names_of_sources_that_are_no_folders_are_cut_too():
    for source in ("x" * 300 + ".jpg", "x" * 300 + "/a.jpg", "é" * 150 + ".jpg"):
        output = output_name(source, "jpeg")
        assert all(len(part.encode()) <= MAX_NAME_BYTES for part in output.split("/"))
        assert output != output_name(output, "jpeg")
        assert output_name(source, "jpeg", in_bucket=True) == source


def test_a_name_is_cut_between_characters():
    output = output_name("é" * 125 + ".png", "jpeg")
    assert output.startswith("é" * 100)
    assert "\ufffd" not in output
    assert text_to_path(output).decode() == output


@given(st.lists(st.sampled_from(["a", "..a", "a..", "...", "b.png.jpg", "x" * 255]), max_size=3), formats)
def test_no_output_leads_outside(folders, output_format):
    output = output_name("/".join([*folders, "..x.png"]), output_format)
    assert not {"", ".", ".."} & set(output.split("/"))


@pytest.mark.parametrize("junk", [b"\xff", b"\xff\xfe" * 30, b"\xe2\x82"])
def test_no_output_of_a_visible_source_is_hidden_or_looks_temporary(junk):
    name = path_to_text(junk + b".darkroom-" + b"a" * (MAX_NAME_BYTES - 14 - len(junk)) + b".png")
    assert len(text_to_path(name)) == MAX_NAME_BYTES
    assert not output_name(name, "jpeg").startswith(".")
