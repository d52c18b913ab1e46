"""The shipped grammars: what is written at random under each parses with a real parser of its language."""

from __future__ import annotations

import csv
import datetime
import io
import json
import random
import re
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from nano import require
from tinygpt.core.errors import ConfigError
from tinygpt.infer.constrained import constraint
from tinygpt.runs._constrained import of_file
from walks import BYTES, CLOSING, LIKELY, takes, walk

pytestmark = pytest.mark.parity
FOLDER = Path(__file__).parents[2] / "grammars"
N = 200


def _json(text: str) -> None:
    json.loads(text)


def _sql(text: str) -> None:
    sqlglot = require("sqlglot")
    for statement in sqlglot.parse(text, error_level=sqlglot.ErrorLevel.RAISE):
        assert not isinstance(statement, sqlglot.exp.Command), "a statement that sqlglot does not know"


def _select(text: str) -> None:
    sqlglot = require("sqlglot")
    assert isinstance(sqlglot.parse_one(text), sqlglot.exp.Query)


def _graphql(text: str) -> None:
    require("graphql").parse(text)


def _protobuf(text: str) -> None:
    require("google.protobuf")
    from google.protobuf import empty_pb2, text_format

    text_format.Parse(text, empty_pb2.Empty(), allow_unknown_field=True)


def _proto(text: str) -> None:
    require("proto_schema_parser").Parser().parse(text)


def _yaml(text: str) -> None:
    assert isinstance(require("yaml").safe_load(text), dict | list)


def _csv(text: str) -> None:
    assert list(csv.reader(io.StringIO(text, newline=""), strict=True))


def _cron(text: str) -> None:
    assert require("croniter").croniter.is_valid(text)
    require("croniter").croniter.expand(text)


def _url(text: str) -> None:
    require("rfc3986").validators.Validator().require_presence_of("scheme", "host").check_validity_of(
        "scheme", "userinfo", "host", "port", "path", "query", "fragment"
    ).validate(require("rfc3986").uri_reference(text))
    assert urlsplit(text).hostname and require("yarl").URL(text).host


def _date(text: str) -> None:
    whole = text if "-" in text[:5] and text[4] == "-" else f"2000-01-01T{text}"
    datetime.datetime.fromisoformat(whole)


TAG = re.compile(
    r"[a-z][^\[\]]*[.!?] \[(POINT:none|(POINT|CLICK):\d{1,4},\d{1,4}:[^\[\]]{1,41}|TYPE:[^\[\]]{1,200}"
    r"|SCROLL:(up|down|left|right):\d+|KEY:\S+|OPEN_APP:[^\[\]]+)\]"
)


def _tags(text: str) -> None:
    assert TAG.fullmatch(text) and text.count("[") == 1


def _valid(name: str) -> Callable[[str], None]:
    def check(text: str) -> None:
        schema = json.loads((FOLDER / name).read_text())
        require("jsonschema").Draft202012Validator(schema).validate(json.loads(text))

    return check


V9 = '{"spokenText": "here it is", "pointAtLabel": "Save", "clickLabel": null, "bodyText": null}'
PROTO = 'syntax = "proto3";\n'
# File -> parser, texts that belong to the language, texts that do not.
CASES: dict[str, tuple[Callable[[str], None], list[str], list[str]]] = {
    "json.lark": (
        _json,
        ["{}", '[1, -2.5e10, "a\\u00e9\\n", null]', '{\n  "a": {"b": [true, false]}\n}', '"x"', "0"],
        ["{", "{a: 1}", "[1,]", "01", "'x'", '{"a" 1}', "nul", '"\n"', "1.", "+1", ""],
    ),
    "sql_select.lark": (
        _select,
        [
            "SELECT 1", "SELECT * FROM users WHERE age >= 18 AND name LIKE 'A%';",
            "select u.name, count(*) as n from users u left join orders o on o.user_id = u.id "
            "group by u.name having count(*) > 3 order by n desc limit 10 offset 5",
            "SELECT DISTINCT city FROM t WHERE id IN (SELECT id FROM s) UNION ALL SELECT 'x'",
            'SELECT "first name" FROM people WHERE x IS NOT NULL AND (y BETWEEN 1 AND 2 OR NOT z = 3)',
            "SELECT CASE WHEN a > 0 THEN 'p' ELSE 'n' END AS sign, CAST(b AS DECIMAL(10, 2)) FROM t",
            "SELECT sum(x) OVER (PARTITION BY g ORDER BY d) FROM t\nWHERE EXISTS (SELECT 1 FROM s)",
        ],
        [
            "SELECT", "SELECT FROM t", "SELECT * FROM", "DROP TABLE t", "SELECT * FROM t WHERE",
            "SELECT a FROM t; DROP TABLE t",
            "SELECT 'x", "SELECT (1", "SELECT a b c FROM t", "SELECTa", "SELECT select FROM t",
            "SELECT 1 -- x", "",
        ],
    ),
    "sql.lark": (
        _sql,
        [
            "INSERT INTO t (a, b) VALUES (1, 'x'), (2, NULL);",
            "UPDATE t SET a = a + 1, b = 'y' WHERE id = 3",
            "DELETE FROM t WHERE a < 5",
            "CREATE TABLE IF NOT EXISTS t (id INTEGER PRIMARY KEY, n VARCHAR(40) NOT NULL)",
            "create unique index i on t (a, b)", "ALTER TABLE t ADD COLUMN c TEXT",
            "DROP TABLE IF EXISTS t",
            "WITH a AS (SELECT 1 AS x) SELECT x FROM a", "BEGIN; UPDATE t SET a = 1; COMMIT;",
            "CREATE VIEW v AS SELECT a FROM t", "INSERT INTO t SELECT * FROM s",
            "CREATE TABLE o (u INT REFERENCES users(id), PRIMARY KEY (u), CHECKED BOOLEAN DEFAULT FALSE)",
        ],
        ["INSERT t VALUES (1)", "UPDATE SET a = 1", "DELETE t", "CREATE t", "DROP t",
        "GRANT ALL ON t TO u", "hello", ""],
    ),
    "graphql.lark": (
        _graphql,
        [
            "{ me { name } }",
            "query Q($id: ID! = 3, $n: [Int!]) { user(id: $id) { ...F friends(first: 10) { name } } }",
            "fragment F on User { id }", "mutation { like(input: {id: \"a\", tags: [A, B]}) { ok } }",
            "{ a: b @include(if: $x) ... on User { c } ... @skip(if: true) { d } }", "subscription S { s }",
        ],
        ["{ }", "query", "{ a(b) }", "{ a", "query Q($x) { a }", "fragment on on A { a }", "{ 1a }",
        "type A { b: Int }", ""],
    ),
    "protobuf_text.lark": (
        _protobuf,
        ["", "name: \"x\" id: 3", "a { b: 1.5\n  c: ENUM\n}", "list: [1, 2, 3]", "m: { k: true }",
        "s: \"\\x41\\n\" n: -7 l: [{a: 1}, {}]"],
        ["a", "a: ", "a: {", "1: 2", "a = 3", "a: [1,]", "a: \"x", "a: 1,, b: 2"],
    ),
    "proto.lark": (
        _proto,
        [
            PROTO + "package a.b;\n" + 'import "google/protobuf/any.proto";\n'
            + "message M {\n  string name = 1;\n  repeated int32 ids = 2 [packed = true];\n"
            + "  map<string, bytes> m = 3;\n}",
            PROTO + "enum E {\n  ZERO = 0;\n  ONE = 1;\n}",
            PROTO + "service S {\n  rpc Get(Req) returns (stream Res);\n}",
            PROTO + "message A {\n  oneof x {\n    int32 a = 1;\n    B b = 2;\n  }\n"
            + "  message B {}\n  reserved 4, 5;\n}", PROTO.strip(),
        ],
        ["message M {}", PROTO + "message {}", PROTO + "message M { string name; }",
        PROTO + "enum E { ONE = 1; }",
         PROTO + "message M { string message = 0; }", PROTO + "mesage M {}", 'syntax = "proto2";', ""],
    ),
    "yaml.lark": (
        _yaml,
        ["a: 1\n", "- x\n- 2\n",
        "server:\n  host: localhost\n  port: 8080\n  paths:\n    - /a\n    - \"b c\"\n",
         "steps:\n  - name: build\n    run: make all\n  - name: test\n    run: \"make: test\"\n",
         "a: null\nb: []\nc: {}\nd: true\n"],
        ["a:1\n", "a: b: c\n", "\ta: 1\n", " a: 1\n", "a\n", "a: 1", "- - 1\n", "a: &x 1\n", "a: \"x\n",
        "a:\n b: 1\n", ""],
    ),
    "csv.lark": (
        _csv,
        ["a,b,c\r\n1,2,3\r\n", "name,note\n\"Doe, J\",\"said \"\"hi\"\"\"\n", "\"two\nlines\",x\r\n",
        ",\r\n"],
        ["a,b", "a,\"b\r\n", "a\"b\r\n", "\"a\"b\r\n", ""],
    ),
    "cron.lark": (
        _cron,
        ["* * * * *", "*/5 0 1,15 * 1-5", "0 9 * JAN MON", "30 4 1-7/2 6-12 0", "0,15,30,45 8-18 * * *"],
        ["* * * *", "60 * * * *", "* 24 * * *", "* * 0 * *", "* * 32 * *", "5-3 * * * *", "* * * 13 *",
        "* * * * 7", "a * * * *", "*/0 * * * *", ""],
    ),
    "url.lark": (
        _url,
        ["https://example.org", "http://user:pw@host.co.uk:8080/a/b%20c?x=1&y=2#top", "ftp://127.0.0.1/",
        "http://[::1]:80/",
         "https://sub.domain.example.com/path/?q=a+b", "wss://localhost/socket",
         "https://[2001:db8:0:0:0:0:0:1]/"],
        ["example.org", "http://", "http:///a", "http://a b.de", "http://256.1.1.1x/", "http://-a.de",
        "http://a.de:99999", "http://a.de/%zz", "javascript:x", ""],
    ),
    "date.lark": (
        _date,
        ["2024-02-29", "1999-12-31T23:59:59Z", "2026-01-01T00:00:00.123+01:00", "12:30:00-05:30"],
        ["2023-02-29", "1900-02-29", "2024-13-01", "2024-04-31", "24-1-1", "2024-01-01T24:00:00Z",
        "2024-01-01 ", "0000-01-01", "12:30", ""],
    ),
    "tool_tags.gbnf": (
        _tags,
        ["here is the save button. [POINT:120,40:save button]",
        "nothing to show. that was all! [POINT:none]", "i scroll. [SCROLL:down:3]",
         "typing it. [TYPE:hello, world]", "done. [KEY:cmd+shift+s]", "opening it. [OPEN_APP:Notes]",
         "clicking. [CLICK:1,2:ok]"],
        ["Here. [POINT:none]", "here. [POINT:12345,1:x]", "here.", "here [POINT:none]",
        "here. [POINT:1,2]", "here. [SCROLL:in:3]", "here. [POINT:none] [POINT:none]", "[POINT:none]", ""],
    ),
    "response_label_v9.json": (_valid("response_label_v9.json"), [V9], [V9.replace("bodyText", "body"),
    "{}", V9.replace('"here it is"', "null")]),
    "response_v11.json": (
        _valid("response_v11.json"),
        ['{"spokenText": "done", "intent": "action", '
         '"payload": {"calls": [{"name": "AX.press", "args": {"id": 3}}]}}',
         '{"spokenText": "which?", "intent": "clarify", "payload": {"question": "which?", "topic": "file"}}'],
        ['{"spokenText": "", "intent": "action", "payload": {}}',
         '{"spokenText": "a", "intent": "act", "payload": {}}', '{"spokenText": "a", "intent": "answer"}'],
    ),
    "verb_args.json": (
        _valid("verb_args.json"),
        ['{"verb": "open_file", "args": {"path": "a"}}',
         '{"verb": "AX.press", "args": {}, "spoken_text": "ok"}'],
        ['{"verb": "", "args": {}}', '{"verb": "x"}', '{"args": {}}', '{"verb": "x", "args": []}'],
    ),
}  # fmt: skip
# What random texts of a grammar need to end: its line breaks, its tags.
HINTS = {"csv.lark": b"\r\n", "tool_tags.gbnf": b".!? []:none"}


def test_every_grammar_has_its_parser() -> None:
    assert sorted(CASES) == sorted(path.name for path in FOLDER.glob("*.*") if path.suffix != ".md")


@pytest.mark.parametrize("name", CASES)
def test_random_texts_parse(name: str) -> None:
    check, kind = CASES[name][0], of_file(FOLDER / name)
    likely = frozenset(HINTS[name]) if name in HINTS else LIKELY
    ended, wrong = 0, []
    for seed in range(N + 20):
        ids = walk(
            constraint(*kind, BYTES), random.Random(f"{name} {seed}"), stop=0.3, eager=60, most=900,
            closing=CLOSING if name not in HINTS else frozenset(), likely=likely,
        )  # fmt: skip
        if ids is None:
            continue
        ended += 1
        try:
            check(bytes(ids).decode())
        except Exception as error:  # each parser has errors of its own
            wrong.append(f"{bytes(ids).decode()!r}: {type(error).__name__}: {error}")
    assert not wrong, f"{len(wrong)} of {ended}:\n" + "\n".join(wrong[:5])
    assert ended >= N, f"only {ended} texts ended"


@pytest.mark.parametrize("name", CASES)
def test_what_belongs_to_the_language(name: str) -> None:
    check, good, bad = CASES[name]
    kind = of_file(FOLDER / name)
    for text in good:
        check(text)
        assert takes(constraint(*kind, BYTES), list(text.encode())), f"refused: {text!r}"
    for text in bad:
        assert not takes(constraint(*kind, BYTES), list(text.encode())), f"taken: {text!r}"


def test_the_two_grammars_of_sql_share_their_queries() -> None:
    full, select = ((FOLDER / f"{name}.lark").read_text().splitlines() for name in ("sql", "sql_select"))
    own = [line for line in select if line and not line.startswith(("//", "start:")) and line not in full]
    assert not own, own


def test_a_grammar_that_is_none_is_refused(tmp_path: Path) -> None:
    for text in ("start: missing", "root ::= missing", '{"type": "nothing"}', "hello"):
        (tmp_path / "g").write_text(text)
        with pytest.raises(ConfigError):
            constraint(*of_file(tmp_path / "g"), BYTES)
