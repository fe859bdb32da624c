"""The columns of a manifest: their types, and the one pass that checks a table before it is trusted."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mien.data.archives import leads_outside
from mien.errors import MienError
from mien.faces import CONTINUOUS, MAX_AGE, MIN_AGE, SPLITS, VOCABULARIES, VOTES

WORD = pa.dictionary(pa.int32(), pa.string())
#: 68 points as x, y, x, y, ... in pixels of the stored picture.
LANDMARKS = pa.list_(pa.float32(), 136)
#: Columns of several numbers a face; a face has all of them or none.
LISTS: dict[str, pa.DataType] = {"landmarks": LANDMARKS, "expression_votes": pa.list_(pa.float32(), len(VOTES))}
#: What is learnt of a face, in the order in which `Manifest.hash` reads it.
LABELS = ("age_low", "age_high", *VOCABULARIES, *CONTINUOUS, *LISTS)
#: A better picture of the same face that `mien enhance` made, from the same root, and the sha256 of its bytes.
ENHANCED, ENHANCED_HASH = "enhanced", "enhanced_sha256"
#: Labels that have a column of provenance, by the column's stem.
TRACED = ("age", *VOCABULARIES, "expression_votes", *CONTINUOUS, "landmarks")

TYPES: dict[str, pa.DataType] = {
    "path": pa.string(),
    "archive": WORD,
    "sha256": pa.binary(32),
    "width": pa.int32(),
    "height": pa.int32(),
    ENHANCED: pa.string(),
    ENHANCED_HASH: pa.binary(32),
    "age_low": pa.float32(),
    "age_high": pa.float32(),
    **dict.fromkeys(VOCABULARIES, WORD),
    **dict.fromkeys(CONTINUOUS, pa.float32()),
    **LISTS,
    "person": pa.string(),
    "group": pa.int64(),
    "split": WORD,
    "source": WORD,
    **{f"{name}_from": WORD for name in TRACED},
}
#: Range of each number that has one.
RANGES: dict[str, tuple[float, float]] = {
    "age_low": (MIN_AGE, MAX_AGE),
    "age_high": (MIN_AGE, MAX_AGE),
    **dict.fromkeys(CONTINUOUS, (-1.0, 1.0)),
    "width": (1, 2**31 - 1),
    "height": (1, 2**31 - 1),
}
WORDS: dict[str, tuple[str, ...]] = {**VOCABULARIES, "split": SPLITS}


def check(table: pa.Table, name: str) -> pa.Table:
    """`table` in the manifest's types, NaN as null, every value in its range.

    `name` stands before each error. Columns that are none of a manifest's are kept as they are.

    Raises:
        MienError: the first bad value by row and column, how many rows share the fault, what would be right.
    """
    if "path" not in table.column_names:
        raise MienError(f"{name} has no column path; its columns are {', '.join(table.column_names) or 'none'}")
    table = _typed(table, name)
    _check_paths(table, name)
    for column, (low, high) in RANGES.items():
        if column in table.column_names:
            values = table[column]
            bad = pc.or_(pc.less(values, low), pc.greater(values, high))
            _refuse(bad, table, column, name, lambda value: f"{value:g} is outside {low:g}-{high:g}")  # noqa: B023
    for column, words in WORDS.items():
        if column in table.column_names:
            _check_words(table, column, words.__contains__, name, f"is none of {', '.join(words)}")
    has = {column for column in ("age_low", "age_high") if column in table.column_names}
    if len(has) == 1:
        raise MienError(f"{name} has {has.pop()} alone; an age needs both age_low and age_high, equal when exact")
    if has:
        low, high = table["age_low"], table["age_high"]
        half = pc.xor(pc.is_null(low), pc.is_null(high))
        _refuse(half, table, "age_low", name, lambda _: "one end of the age is missing; give both or none")
        above = pc.greater(low, high)
        _refuse(above, table, "age_low", name, lambda value: f"{value:g} is above age_high")
    if "expression_votes" in table.column_names:
        _check_votes(table, name)
    return table


def _typed(table: pa.Table, name: str) -> pa.Table:
    columns = {}
    for column in table.column_names:
        values = table[column]
        kind = TYPES.get(column)
        if kind is not None and values.type != kind:
            values = _cast(values, kind, column, name)
        if kind == pa.float32() and pc.any(pc.is_nan(values)).as_py():
            values = pc.if_else(pc.is_nan(values), pa.scalar(None, kind), values)
        if pa.types.is_dictionary(values.type):
            values = values.unify_dictionaries()
        columns[column] = values
    return pa.table(columns, metadata=table.schema.metadata)


def _cast(values: pa.ChunkedArray, kind: pa.DataType, column: str, name: str) -> pa.ChunkedArray:
    try:
        if pa.types.is_dictionary(kind):
            plain = values.cast(pa.string())
            return plain.dictionary_encode()
        return values.cast(kind)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        pass
    # One value is wrong, or all are: find the first that does not cast.
    for row, value in enumerate(values):
        try:
            pa.array([value.as_py()]).cast(kind)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            raise MienError(f"{name} row {row}, column {column}: {value.as_py()!r} is no {kind}") from None
    raise MienError(f"{name}, column {column}: {values.type} does not become {kind}")


def _check_paths(table: pa.Table, name: str) -> None:
    paths = table["path"]
    empty = pc.or_kleene(pc.is_null(paths), pc.equal(paths, ""))
    _refuse(empty, table, "path", name, lambda _: "a face needs the path of its picture")
    _refuse(_outside(paths), table, "path", name, lambda value: f"{value!r} leads outside the manifest's root")
    if ENHANCED in table.column_names:
        nameless = pc.equal(table[ENHANCED], "")
        _refuse(nameless, table, ENHANCED, name, lambda _: "an enhanced picture has a path; null where there is none")
        outside = _outside(pc.fill_null(table[ENHANCED], "none"))
        _refuse(outside, table, ENHANCED, name, lambda value: f"{value!r} leads outside the manifest's root")
    if "archive" in table.column_names:
        _check_words(table, "archive", lambda word: not leads_outside(word), name, "leads outside the root")


def _outside(paths: pa.ChunkedArray) -> pa.ChunkedArray:
    """Where a path is absolute or climbs with `..`: `leads_outside` over a million paths at once."""
    climbs = pc.match_substring(paths, "..")
    if pc.any(climbs).as_py():
        climbs = pc.match_substring_regex(paths, r"(^|[\\/])\.\.([\\/]|$)")
    rooted = []
    for chunk in (chunk for chunk in paths.chunks if len(chunk)):
        # First two bytes of each path from Arrow's own buffers: its string functions take ten times longer.
        starts = np.frombuffer(chunk.buffers()[1], np.int32)[chunk.offset :][: len(chunk) + 1]
        letters = np.frombuffer(chunk.buffers()[2], np.uint8)
        first, second = letters[starts[:-1]], letters[np.minimum(starts[:-1] + 1, starts[1:] - 1)]
        rooted.append(pa.array((first == ord("/")) | (first == ord("\\")) | (second == ord(":"))))
    return pc.or_(climbs, pa.chunked_array(rooted, pa.bool_()))


def _check_words(table: pa.Table, column: str, right: Callable[[str], bool], name: str, fault: str) -> None:
    """Check a column of words by its few different ones."""
    values = table[column]
    for chunk in values.chunks[:1]:  # chunks share one dictionary
        wrong = [code for code, word in enumerate(chunk.dictionary.to_pylist()) if not right(word)]
        if wrong:
            codes = pa.chunked_array([part.indices for part in values.chunks])
            bad = pc.is_in(codes, pa.array(wrong, codes.type))
            _refuse(bad, table, column, name, lambda value: f"{value!r} {fault}")


def _check_votes(table: pa.Table, name: str) -> None:
    column = table["expression_votes"]
    votes = np.ones((len(table), len(VOTES)), dtype=np.float32)
    given = pc.list_flatten(column).to_numpy()  # leaves missing rows out
    votes[pc.is_valid(column).to_numpy()] = given.reshape(-1, len(VOTES))
    wrong = ~(np.isfinite(votes) & (votes >= 0)).all(axis=1) | ~votes.any(axis=1)
    bad = pa.chunked_array([pa.array(wrong)])
    _refuse(bad, table, "expression_votes", name, lambda value: f"{value} are no votes: 0 or more each, not all 0")


def _refuse(bad: pa.ChunkedArray, table: pa.Table, column: str, name: str, why: Callable[..., str]) -> None:
    """Raise for the first row where `bad` is true; null counts as good."""
    if not pc.any(bad).as_py():
        return
    rows = np.flatnonzero(pc.fill_null(bad, False).to_numpy())
    value = table[column][int(rows[0])].as_py()
    more = f" (and {len(rows) - 1:,} more rows)" if len(rows) > 1 else ""
    raise MienError(f"{name} row {rows[0]}, column {column}: {why(value)}{more}")
