import csv
import io
import os
import sys

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sotglp.errors import SotglpError, SotglpWarning
from sotglp.images.columns import Columns
from sotglp.images.manifest import read_manifest
from support.samples import DATA


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "sub").mkdir()
    for name in ("a.png", "sub/b.png", "comma, name.png", "new\nline.png", "ü.png"):
        (tmp_path / name).touch()
    return tmp_path


def csv_of(folder, content):
    path = folder / "list.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def parquet_of(folder, columns):
    path = folder / "list.parquet"
    pyarrow.parquet.write_table(pyarrow.table(columns), path)
    return path


def refused(path):
    with pytest.raises(SotglpError) as caught:
        read_manifest(path)
    message = str(caught.value)
    assert message.startswith((str(path), f"reading {path}"))
    assert not message.endswith(".")
    return message


def test_relative_paths_start_at_the_manifests_folder(folder, monkeypatch):
    monkeypatch.chdir("/")
    absolute = folder / "a.png"
    path = csv_of(folder, f"path,label\nsub/b.png,cat\n{absolute},dog\n")
    assert read_manifest(path) == ((folder / "sub/b.png", absolute), ("cat", "dog"))


def test_byte_order_mark_windows_lines_blank_lines_spaces_and_other_columns(folder):
    content = b"\xef\xbb\xbfpath, label ,source\r\n a.png, tabby cat , train\r\n\r\n , ,\r\nsub/b.png,3,test\r\n"
    images, labels = read_manifest(csv_of(folder, content))
    assert images == (folder / "a.png", folder / "sub/b.png")
    assert labels == ("tabby cat", "3")


def test_quoted_commas_quotes_and_newlines(folder):
    content = 'path,label\n"comma, name.png","say ""hi"", cat"\n"new\nline.png","two\nlines"\nü.png,naïve\n'
    images, labels = read_manifest(csv_of(folder, content))
    assert images == (folder / "comma, name.png", folder / "new\nline.png", folder / "ü.png")
    assert labels == ('say "hi", cat', "two\nlines", "naïve")


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(labels=st.lists(st.text(st.characters(codec="ascii", categories=["L", "N", "P"]), min_size=1), min_size=1))
def test_labels_come_back_from_csv_and_parquet(folder, labels):
    labels = [f"a{label}" for label in labels]
    files = [f"{index}.png" for index in range(len(labels))]
    for file in files:
        (folder / file).touch()
    table = io.StringIO()
    writer = csv.writer(table, quoting=csv.QUOTE_ALL)
    writer.writerow(["path", "label"])
    writer.writerows(zip(files, labels, strict=True))
    expected = (tuple(folder / file for file in files), tuple(labels))
    assert read_manifest(csv_of(folder, table.getvalue())) == expected
    assert read_manifest(parquet_of(folder, {"path": files, "label": labels})) == expected


def test_without_a_label_column_there_are_no_labels(folder):
    assert read_manifest(csv_of(folder, "path\na.png\n")) == ((folder / "a.png",), None)
    assert read_manifest(parquet_of(folder, {"path": ["a.png"]})) == ((folder / "a.png",), None)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("url,label\na.png,cat\n", "has no column path, only: url, label; a manifest has"),
        ("path:label\na.png:cat\n", "has no column path, only: path:label; "),
        (
            "path,label\na.png,cat\na.png,dog\n",
            "has the labels 'cat' in row 1 (line 2) and 'dog' in row 2 (line 3) for a",
        ),
        ("path,label\na.png,'cat'\n", "has the label 'cat' in row 1 (line 2), in quotes that are part of it"),
        ("path,label\n\u201ca.png\u201d,cat\n", "in row 1 (line 2), in quotes that are part of the path, but"),
        ("path,label\na.png,dog\u200b\n", "the label in row 1 (line 2) is 'dog\\u200b', which has the invisible"),
        ("path,label\na.png,b'cat'\n", "has the label b'cat' in row 1 (line 2), in quotes that are part of it"),
        ("path,label,label\na.png,cat,1\n", "has the column label twice"),
        ("sep=;\npath;label\na.png;\n", "has no label for a.png in row 1 (line 3)"),
        ("url;label\na.png;cat\n", "has no column path, only: url, label; a manifest has"),
        ("path,label\nsub/B.PNG,cat\n", "(did you mean sub/b.png?)"),
        ("path,label\nsub/b,cat\n", "(did you mean sub/b.png?)"),
        ("path,label\n/elsewhere/a.png,cat\n", "(did you mean a.png?)"),
        ("path,label\na\u200b.png,cat\n", "which has the invisible character U+200B"),
        ("path,label\nsub,cat\n", "which is a folder"),
        ("path,label\nhttps://example.org/a.png,cat\n", "download the image"),
        (
            "path,label,split\na.png,cat,train\nsub/b.png,dog,test\n",
            "has rows of the splits test, train in the column split; choose",
        ),
        (
            "path,label,Fold\na.png,cat,0\nsub/b.png,dog,\n",
            "has rows of the splits (empty), 0 in the column Fold; choose",
        ),
        ("", "is empty"),
        ("\n \n", "is empty"),
        ("path,label\n", "lists no images"),
        ("path,label\na.png,cat\na.png,\n", "has no label for a.png in row 2 (line 3)"),
        ("path,label\na.png,cat\na.png\n", "has no label for a.png in row 2 (line 3)"),
        ('path,label\na.png,"two\nlines"\n,cat\n', "has no path in row 2 (line 4)"),
        ("path,label\na.png,cat\nsub,cat\n", "lists sub in row 2 (line 3), but"),
        ("path,label\nsub/c.png,cat\n", "lists sub/c.png in row 1 (line 2), but"),
        ("path,label\ncomma, name.png,cat\n", "has more fields in row 1 (line 2) than the 2 columns; put quotes"),
        ('path,label\na.png,cat\na.png,"dog\n', "in the row that starts at line 3"),
        ('path,label\na.png,cat\n"a"x.png,dog\n', "in the row that starts at line 3"),
        (f"path,label\n{'x' * 5000}.png,cat\n", "does not exist"),
        (b"path,label\na.png,cat\na.png,caf\xe9\n", "isn't UTF-8 text in line 3"),
        ("path,label\na.png,cat\n".encode("utf-16"), "isn't UTF-8 text in line 1"),
    ],
)
def test_a_csv_that_cannot_be_used(folder, content, words):
    assert words in refused(csv_of(folder, content))


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"url": ["a.png"], "label": ["cat"]}, "has no column path, only: url, label"),
        ({"path": ["a.png", None], "label": ["cat", "cat"]}, "has no path in row 2;"),
        ({"path": ["a.png", "a.png"], "label": ["cat", None]}, "has no label for a.png in row 2;"),
        ({"path": ["a.png"], "label": [0.5]}, "the label in row 1 is 0.5, which isn't a whole number"),
        ({"path": ["a.png"], "label": [float("nan")]}, "has no label for a.png in row 1"),
        ({"path": ["a.png"], "label": [b"cat"]}, "has a column label of type binary"),
        ({"path": ["gone.png"], "label": ["cat"]}, "lists gone.png in row 1, but"),
        ({"image": [{"bytes": b"", "path": "a.png"}], "label": [0]}, "it probably holds the images"),
        ({"path": pyarrow.array([], pyarrow.string()), "label": pyarrow.array([], pyarrow.string())}, "lists no"),
    ],
)
def test_a_parquet_file_that_cannot_be_used(folder, columns, words):
    assert words in refused(parquet_of(folder, columns))


def test_parquet_with_numbers_categories_and_nested_columns_beside(folder):
    columns = {
        "extra": [{"bytes": b"1"}, None],
        "label": pyarrow.array(["cat", "dog"]).dictionary_encode(),
        "path": pyarrow.array(["a.png", "sub/b.png"], pyarrow.large_string()),
    }
    assert read_manifest(parquet_of(folder, columns))[1] == ("cat", "dog")
    assert read_manifest(parquet_of(folder, {"path": ["a.png"], "label": [7]}))[1] == ("7",)


def test_a_damaged_parquet_file(folder):
    path = parquet_of(folder, {"path": ["a.png"], "label": ["cat"]})
    path.write_bytes(path.read_bytes()[:-20])
    assert "is not a complete Parquet file" in refused(path)


def test_parquet_that_claims_more_rows_than_it_can_hold(folder):
    # Found by fuzzing: 674 bytes, whose row group claims 39,839,528,574 rows, for which a reader takes all memory.
    path = folder / "list.parquet"
    path.write_bytes((DATA / "many_rows.parquet").read_bytes())
    assert "is not a complete Parquet file" in refused(path)
    assert "is not a complete Parquet file" in refused(parquet_of(folder, {"path": ["a.png"] * 1_000_000}))


def test_parquet_without_pyarrow(folder, monkeypatch):
    path = parquet_of(folder, {"path": ["a.png"], "label": ["cat"]})
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert 'pip install "sotglp[parquet]"' in refused(path)


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_manifest_that_is_missing_may_never_end_or_has_an_impossible_name(tmp_path, suffix):
    assert "can't be opened" in refused(tmp_path / f"gone{suffix}")
    assert "give a .csv or a .parquet file" in refused(tmp_path / f"list{suffix}.txt")
    pipe = tmp_path / f"pipe{suffix}"
    os.mkfifo(pipe)
    assert "can't be opened (it is a pipe, a socket or a device)" in refused(pipe)
    assert "can't be opened (File name too long)" in refused(tmp_path / f"{'x' * 300}{suffix}")
    assert refused(tmp_path / f"nul\0{suffix}")


def test_parquet_words_that_are_not_in_its_dictionary(folder, monkeypatch):
    # As a damaged file comes back from pyarrow, which writes no such file itself.
    words = pyarrow.DictionaryArray.from_arrays(pyarrow.array([0]), pyarrow.array([], pyarrow.string()), safe=False)
    path = parquet_of(folder, {"path": ["a.png"], "label": ["cat"]})
    table = pyarrow.table({"path": ["a.png"], "label": words})
    monkeypatch.setattr(pyarrow.parquet.ParquetFile, "read", lambda *_, **__: table)
    assert "is not a complete Parquet file" in refused(path)


def test_parquet_text_that_is_not_utf8(folder):
    broken = pyarrow.Array.from_buffers(
        pyarrow.string(), 1, [None, pyarrow.py_buffer(b"\0\0\0\0\1\0\0\0"), pyarrow.py_buffer(b"\xff")]
    )
    assert "has text that isn't UTF-8" in refused(parquet_of(folder, {"path": ["a.png"], "label": broken}))


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize(
    "names", [("path", "label"), ("file_name", "label"), ("Filename", "class"), ("image", "category")]
)
def test_other_separators_and_usual_names_of_columns(folder, delimiter, names):
    rows = [("note", *names), ("1,5", "a.png", "cat"), ('"x"', "sub/b.png", "dog, big")]
    table = io.StringIO()
    csv.writer(table, delimiter=delimiter, quoting=csv.QUOTE_ALL).writerows(rows)
    assert read_manifest(csv_of(folder, table.getvalue()))[1] == ("cat", "dog, big")


def test_columns_that_are_named(folder):
    path = csv_of(folder, "path,label,species,photo\ngone.png,x,cat,a.png\ngone.png,y,dog,sub/b.png\n")
    images, labels = read_manifest(path, Columns(path="photo", label="species"))
    assert (images, labels) == ((folder / "a.png", folder / "sub/b.png"), ("cat", "dog"))
    for columns, name in ((Columns(path="photos"), "photos"), (Columns(path="photo", label="kind"), "kind")):
        with pytest.raises(SotglpError, match=f"has no column {name}, only: path, label, species, photo"):
            read_manifest(path, columns)


def test_paths_of_other_systems(folder):
    (folder / "cafe\u0301.png").touch()
    path = csv_of(folder, f"path\nsub\\b.png\ncaf\u00e9.png\n{(folder / 'comma, name.png').as_uri()}\n")
    assert read_manifest(path)[0] == (folder / "sub/b.png", folder / "cafe\u0301.png", folder / "comma, name.png")


def test_labels_that_a_program_changed(folder):
    assert read_manifest(csv_of(folder, "path,label\na.png,0.0\nsub/b.png,1.0\n"))[1] == ("0", "1")
    assert read_manifest(csv_of(folder, "path,label\na.png,0\nsub/b.png,1.0\n"))[1] == ("0", "1")
    assert read_manifest(csv_of(folder, "path,label\na.png,0.5\nsub/b.png,1.0\n"))[1] == ("0.5", "1.0")
    assert read_manifest(parquet_of(folder, {"path": ["a.png"], "label": [1.0]}))[1] == ("1",)
    with pytest.warns(SotglpWarning, match="1 of 2 labels of .*list.csv .*'NA', first in row 1 .line 2"):
        assert read_manifest(csv_of(folder, "path,label\na.png,NA\nsub/b.png,cat\n"))[1] == ("NA", "cat")
    with pytest.warns(SotglpWarning, match="1 row that repeats an image of another row, such as row 2"):
        assert len(read_manifest(csv_of(folder, "path,label\na.png,cat\n./a.png,cat\n"))[0]) == 2


def test_rows_of_one_split(folder):
    path = csv_of(folder, "path,label,Subset\na.png,cat,train\ngone.png,dog,test\nsub/b.png,dog,Training\n")
    assert read_manifest(path, Columns(split="train"))[1] == ("cat", "dog")
    for columns in (Columns(), Columns(split="val")):
        with pytest.raises(SotglpError, match="rows of the split"):
            read_manifest(path, columns)
    with pytest.raises(SotglpError, match="no rows of the split test, and no column split"):
        read_manifest(csv_of(folder, "path\na.png\n"), Columns(split="test"))


def test_images_of_two_splits_are_reported(folder):
    path = csv_of(folder, "path,label,split\na.png,cat,train\nsub/b.png,dog,train\n./a.png,cat,test\n")
    with pytest.warns(SotglpWarning, match=r"1 images .* in another split too, .*row 1 .line 2. and row 3 .line 4."):
        read_manifest(path, Columns(split="train"))


def test_labels_are_not_read_for_predictions(folder):
    path = csv_of(folder, "path,label,class\na.png,,\nsub/b.png,x,y\n")
    assert read_manifest(path, with_labels=False) == ((folder / "a.png", folder / "sub/b.png"), None)


def test_messages_about_long_cells_are_short(folder):
    for content in ("path\n" + "x" * 5000, "path,label\na.png,'" + "x" * 5000 + "'", "path\nhttps://" + "x" * 5000):
        assert len(refused(csv_of(folder, content))) < 1500
