import csv
import math
import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuronx.errors import UserError
from neuronx.store.cache import write_atomic
from neuronx.tables.csv import any_case, read_csv, write_csv


def test_write_atomic_replaces_the_file_and_leaves_nothing_else(tmp_path):
    path = tmp_path / "deep" / "a.txt"
    write_atomic(path, b"old")
    assert write_atomic(path, b"new").read_bytes() == b"new"
    assert [one.name for one in path.parent.iterdir()] == ["a.txt"]


def test_a_full_disk_keeps_the_old_file_and_no_other(tmp_path, monkeypatch):
    path = write_atomic(tmp_path / "a.txt", b"old")

    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_atomic(path, b"new")
    assert path.read_bytes() == b"old"
    assert [one.name for one in tmp_path.iterdir()] == ["a.txt"]


@given(
    st.lists(
        st.tuples(
            st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")),
            st.floats(allow_nan=False),
            st.integers(-(10**15), 10**15),
        ),
        min_size=1,
        max_size=5,
    )
)
def test_cells_survive_writing_and_reading(tmp_path_factory, cells):
    path = write_csv(tmp_path_factory.mktemp("csv") / "a.csv", ["word", "number", "whole"], cells)
    _, rows = read_csv(path)
    assert [row.cells["word"] for row in rows] == [word for word, _, _ in cells]
    assert [row.number_or_nan("number") for row in rows] == [number for _, number, _ in cells]
    assert [row.whole("whole") for row in rows] == [whole for _, _, whole in cells]


RUN = ["=1+1", "+1 dog", "-x", "@SUM(A1)", "\tx", "\rx", "-0.47 mammal", "'=1", "''-x", "=HYPERLINK(1)"]


def test_what_a_spreadsheet_would_run_is_written_so_that_it_does_not(tmp_path):
    plain = ["-", "-0.5", "+1e-3", "a=b", "'tis", "'", " =1"]
    path = write_csv(tmp_path / "a.csv", ["=column", "text"], [[text, text] for text in [*RUN, *plain]])
    with path.open(newline="") as file:
        there = list(csv.reader(file))
    assert there[0] == ["'=column", "text"]
    assert [row[0] for row in there[1:]] == [*("'" + text for text in RUN), *plain]
    columns, rows = read_csv(path)
    assert columns == ["=column", "text"]
    assert [row.cells["text"] for row in rows] == [text for text in [*RUN, *plain]]


def test_numbers_have_one_spelling(tmp_path):
    row = [np.float32(0.1), np.float64(0.1), 0.1, np.int64(3), 3, None, math.nan, "a,b", 'say "x"']
    path = write_csv(tmp_path / "a.csv", list("abcdefghi"), [row])
    assert path.read_text() == 'a,b,c,d,e,f,g,h,i\n0.10000000149011612,0.1,0.1,3,3,,,"a,b","say ""x"""\n'


@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_any_line_ending_and_byte_order_mark_is_read(tmp_path, ending, mark):
    path = tmp_path / "a.csv"
    path.write_bytes(mark + ending.join(["unit,description", "0,dog", "", "1,null", ""]).encode())
    columns, rows = read_csv(path)
    assert columns == ["unit", "description"]
    assert [row.cells["description"] for row in rows] == ["dog", "null"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "holds no rows"),
        (b"unit,description\n", "holds no rows"),
        (b"unit,unit\n1,2\n", "column `unit` twice"),
        (b"a,b,c\n1,2,3\n1,2\n", r"a\.csv, line 3: the row ends before column `c`"),
        (b"a,b\n1,red, green\n", "line 2: 3 cells for 2 columns, the first too many is ` green`; text with commas"),
        (b'a,b\n1,"red\n', "line 2: not a comma separated table"),
        (b"a,b\n1,\xff\n", r"not UTF-8 text \(byte 6\)"),
        ("a,b\n1,2\n".encode("utf-16"), "UTF-16 text"),
        ("a,b\n1,2\n".encode("utf-16-le"), "NUL, as UTF-16 does"),
        (b"PK\x03\x04\xff", "as a spreadsheet is"),
        (b"a;b\n1,5;2\n", "separated by semicolons; save it separated by commas, with a point in decimals"),
        (b"a\tb\n1\t2\n", "separated by tabs"),
        (b"a|b\n1|2\n", "separated by vertical bars"),
        (b'"x,y";b\n1;2\n', "separated by semicolons"),
        (b"sep=;\na;b\n1;2\n", "separated by semicolons"),
        (b'"sep=\t"\r\na\tb\n', "separated by tabs"),
        (b"a,b\n1,0,5\n", "line 2: 3 cells for 2 columns.*decimals a point"),
    ],
)
def test_what_is_wrong_in_a_table_is_said_with_its_place(tmp_path, content, message):
    path = tmp_path / "a.csv"
    path.write_bytes(content)
    with pytest.raises(UserError, match=message):
        read_csv(path)


def test_what_spreadsheets_add_is_no_part_of_a_table(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(b'\xef\xbb\xbfsep=,\r\nUnit, Description \r\n0,dog\r\n,\r\n1,"cat; or dog"\r\n , \r\n')
    columns, rows = read_csv(path, any_case("unit", "description", "neither"))
    assert columns == ["unit", "description"]
    assert [(row.line, *row.cells.values()) for row in rows] == [(3, "0", "dog"), (5, "1", "cat; or dog")]


def test_a_column_that_stands_in_two_spellings_is_refused(tmp_path):
    with pytest.raises(UserError, match="column `unit` twice"):
        read_csv(write_csv(tmp_path / "a.csv", ["unit", "UNIT"], [[1, 2]]), any_case("unit"))


def test_a_header_without_rows_is_a_table_where_that_is_allowed(tmp_path):
    path = write_csv(tmp_path / "a.csv", ["unit", "UNIT"], [])
    assert read_csv(path, may_be_empty=True) == (["unit", "UNIT"], [])


def test_a_missing_file_and_a_folder_are_mistakes_of_the_user(tmp_path):
    with pytest.raises(UserError, match=r"Cannot read .*nothing\.csv: no such file"):
        read_csv(tmp_path / "nothing.csv")
    with pytest.raises(UserError, match="is a directory"):
        read_csv(tmp_path)


@pytest.mark.parametrize(
    ("cell", "read", "message"),
    [
        ("abc", "number", "column `x`: expected a number, found `abc`"),
        ("1_000", "number", "expected a number"),
        ("nan", "number", "expected a finite number"),
        ("", "number", "expected a finite number"),
        ("1.5", "whole", "expected a whole number, found `1.5`"),
        ("-1,5", "number", "found `-1,5`; write decimals with a point"),
    ],
)
def test_a_bad_number_is_said_with_file_line_and_column(tmp_path, cell, read, message):
    path = write_csv(tmp_path / "a.csv", ["y", "x"], [["ok", "1"], ["ok", cell]])
    with pytest.raises(UserError, match=rf"a\.csv, line 3, .*{message}"):
        getattr(read_csv(path)[1][1], read)("x")


def test_blank_cells_and_dashes_are_not_computed_and_pandas_wholes_are_whole(tmp_path):
    row = read_csv(write_csv(tmp_path / "a.csv", list("abc"), [["", "-", "12.0"]]))[1][0]
    assert math.isnan(row.number_or_nan("a")) and math.isnan(row.number_or_nan("b"))
    assert row.whole("c") == 12
