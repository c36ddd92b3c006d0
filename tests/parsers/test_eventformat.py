"""Format files: declarations as kernels write them, and the columns they become."""

from __future__ import annotations

import pyarrow as pa
import pytest

from apftrace_parsers.eventformat import MAX_FIELDS, EventTable, Kind, column_names, parse_fields


def line(declaration: str, offset: int, size: int, signed: int = 0) -> str:
    return f"\tfield:{declaration};\toffset:{offset};\tsize:{size};\tsigned:{signed};\n"


@pytest.mark.parametrize(
    ("declaration", "size", "signed", "long_size", "kind", "dtype"),
    [
        ("unsigned int x", 4, 0, 8, Kind.SCALAR, pa.uint32()),
        ("pid_t x", 4, 1, 8, Kind.SCALAR, pa.int32()),
        ("enum foo x", 4, 0, 8, Kind.SCALAR, pa.uint32()),
        ("bool x", 1, 0, 8, Kind.SCALAR, pa.bool_()),
        ("char x", 1, 1, 8, Kind.SCALAR, pa.int8()),
        ("unsigned long x", 8, 0, 8, Kind.SCALAR, pa.uint64()),
        ("unsigned long x", 4, 0, 4, Kind.SCALAR, pa.uint32()),
        ("const void * x", 8, 0, 8, Kind.SCALAR, pa.uint64()),
        ("void *x", 4, 0, 4, Kind.SCALAR, pa.uint64()),
        ("struct thing x", 24, 0, 8, Kind.BYTES, pa.binary(24)),
        ("char comm[16]", 16, 0, 8, Kind.TEXT, pa.string()),
        ("char x[TASK_COMM_LEN]", 16, 1, 8, Kind.TEXT, pa.string()),
        ("unsigned long x[8]", 64, 0, 8, Kind.ARRAY, pa.list_(pa.uint64(), 8)),
        ("__u8 x[15]", 15, 0, 8, Kind.ARRAY, pa.list_(pa.uint8(), 15)),
        ("u32 x[MANY]", 12, 0, 8, Kind.ARRAY, pa.list_(pa.uint32(), 3)),
        ("struct pair x[2]", 32, 0, 8, Kind.BYTES, pa.binary(32)),
        ("__data_loc char[] x", 4, 1, 8, Kind.LOC_TEXT, pa.string()),
        ("__rel_loc char[] x", 4, 1, 8, Kind.LOC_TEXT, pa.string()),
        ("__data_loc u16[] x", 4, 0, 8, Kind.LOC_ARRAY, pa.list_(pa.uint16())),
        ("__data_loc int[] x", 4, 0, 8, Kind.LOC_ARRAY, pa.list_(pa.int32())),
        ("__data_loc unsigned long[] x", 4, 0, 4, Kind.LOC_ARRAY, pa.list_(pa.uint32())),
        ("__data_loc cpumask_t[] x", 4, 0, 8, Kind.LOC_ARRAY, pa.list_(pa.uint64())),
        ("__data_loc struct odd[] x", 4, 0, 8, Kind.LOC_ARRAY, pa.list_(pa.uint8())),
        ("__data_loc odd_t[] x", 4, 1, 8, Kind.LOC_ARRAY, pa.list_(pa.int8())),
        ("__data_loc s32[] x", 4, 0, 8, Kind.LOC_ARRAY, pa.list_(pa.int32())),
        ("__data_loc size_t[] x", 4, 0, 4, Kind.LOC_ARRAY, pa.list_(pa.uint32())),
        ("__data_loc ssize_t[] x", 4, 1, 8, Kind.LOC_ARRAY, pa.list_(pa.int64())),
        ("__rel_loc gfn_t[] x", 4, 0, 4, Kind.LOC_ARRAY, pa.list_(pa.uint64())),
        ("unsigned long x[]", 0, 0, 8, Kind.TAIL_ARRAY, pa.list_(pa.uint64())),
        ("unsigned long x[]", 0, 0, 4, Kind.TAIL_ARRAY, pa.list_(pa.uint32())),
        ("char x[]", 0, 1, 8, Kind.TAIL_TEXT, pa.string()),
    ],
)
def test_declarations(
    declaration: str, size: int, signed: int, long_size: int, kind: Kind, dtype: pa.DataType
) -> None:
    (field,) = parse_fields(line(declaration, 8, size, signed), long_size)
    assert (field.kind, field.type, field.offset, field.size) == (kind, dtype, 8, size)
    assert field.name in ("x", "comm")


def test_old_kernels_tell_no_sign() -> None:
    (field,) = parse_fields("\tfield:int x;\toffset:8;\tsize:4;\n", 8)
    assert field.type == pa.uint32()


def test_what_follows_print_fmt_is_no_field() -> None:
    text = line("int x", 8, 4) + 'print fmt: "' + line("int y", 12, 4)
    assert [field.name for field in parse_fields(text, 8)] == ["x"]


def test_a_field_beyond_any_record_is_left_out() -> None:
    assert list(parse_fields(line("int x", 1 << 21, 4) + line("u8 y[9999999]", 8, 9999999), 8)) == []


def test_no_event_has_more_fields_than_a_page_has_bytes() -> None:
    text = "name: e\nID: 1\nformat:\n" + "".join(line(f"u8 x{n}", 8, 1) for n in range(MAX_FIELDS + 9))
    own = table(text)
    assert len(own.fields(own.events[0])) == MAX_FIELDS


def table(*texts: str) -> EventTable:
    return EventTable([("sys", text.encode()) for text in texts], 8)


COMMON = line("unsigned short common_type", 0, 2) + line("int common_pid", 4, 4, 1)


def test_payload_fields_do_not_hide_the_leading_columns() -> None:
    events = table(f"name: e\nID: 5\nformat:\n{COMMON}\n{line('int cpu', 8, 4, 1)}{line('u64 ts', 16, 8)}")
    names = events.format(events.events[0]).schema.names
    assert names == ["ts", "cpu", "tid", "instance", "cpu_", "ts_"]


@pytest.mark.parametrize(
    ("fields", "columns"),
    [
        ("ts ts_", "ts__ ts_"),
        ("ts_ ts", "ts_ ts__"),
        ("ts__ ts ts_ cpu", "ts__ ts___ ts_ cpu_"),
        ("x x x_", "x x__ x_"),
        ("text", "text"),
    ],
)
def test_columns_of_an_event_are_all_called_differently(fields: str, columns: str) -> None:
    assert column_names(fields.split()) == columns.split()


def test_tables_skip_what_has_no_name_or_an_impossible_id() -> None:
    events = table("garbage", "name: a\nID: 70000\nformat:\n", "name: b\nID: 65535\nformat:\n")
    assert [(e.name, e.id) for e in events.events] == [("b", 65535)]


def test_kernels_may_keep_common_pid_elsewhere() -> None:
    # Real-time kernels append to the common fields, others could move them.
    events = table(f"name: e\nID: 5\nformat:\n{line('int common_pid', 12, 4, 1)}")
    assert events.tid_offset() == 12
    assert table().tid_offset() == 4
