"""JSON Schemas by keyword, in the manner of JSON-Schema-Test-Suite: those that are enforced, and those that are not."""

from __future__ import annotations

from typing import Any

INT, STR, NUM, BOOL, NULL = ({"type": t} for t in ("integer", "string", "number", "boolean", "null"))
CLOSED = {"additionalProperties": False}


def obj(**properties: Any) -> dict[str, Any]:
    """A closed object whose properties are all required: OpenAI's strict form."""
    return {"type": "object", "properties": properties, "required": list(properties), **CLOSED}


ENFORCED: dict[str, list[Any]] = {
    "any": [True, {}, {"title": "a"}, {"description": "d", "default": 3, "examples": [1]}, {"$comment": "c"},
            {"deprecated": True, "readOnly": False}, {"x-order": 3}, {"$id": "urn:a"}],
    "type": [
        INT, STR, NUM, BOOL, NULL, {"type": "object"}, {"type": "array"}, {"type": ["string", "null"]},
        {"type": ["integer", "boolean"]}, {"type": ["object", "array"]}, {"type": ["number", "null", "array"]},
        {"type": ["string"]}, {"type": ["integer", "number"]},
        {"type": ["string", "integer"], "minimum": 5, "maxLength": 3},
    ],
    "enum": [
        {"enum": ["a", "b"]}, {"enum": [1, 2.5, "x", None, True]}, {"enum": [[1, 2], {"a": 1}]},
        {"enum": ["é", "日本", "\"q\"", "a\\b", "line\nbreak", ""]}, {"type": "string", "enum": ["x", 3]},
        {"type": "integer", "enum": [1.5, 2]}, {"enum": [0, -1, 100000000000]}, {"enum": [False]},
        {"enum": [None]}, {"enum": ["aa", "a", "aaa"]}, {"enum": [[], {}]}, {"enum": [{"a": {"b": []}}]},
        {"enum": ["x"], "type": ["string", "null"]}, {"enum": [1, 5, 9], "minimum": 3},
        {"enum": ["long", "no"], "minLength": 3}, {"enum": [3, "3"]},
    ],
    "const": [
        {"const": "x"}, {"const": 1}, {"const": 1.5}, {"const": None}, {"const": True}, {"const": [1, "a"]},
        {"const": {"a": 1, "b": [None]}}, {"const": "tab\tquote\""}, {"const": -0.25}, {"const": "😀"},
        {"const": ""}, {"const": []}, {"const": {}}, {"const": "/slash/"},
    ],
    "string": [
        {"type": "string", "minLength": 3}, {"type": "string", "maxLength": 3}, {"type": "string", "maxLength": 0},
        {"type": "string", "minLength": 2, "maxLength": 2}, {"minLength": 2}, {"maxLength": 2},
        {"type": "string", "minLength": 0}, {"type": "string", "minLength": 10, "maxLength": 400},
        {"type": ["string", "integer"], "maxLength": 1}, {"type": "string", "minLength": 1},
    ],
    "pattern": [
        {"type": "string", "pattern": p} for p in (
            "^a+$", "^a", "a$", "a", "^$", "^[a-z]{2,4}$", "^(foo|bar)$", "^a|b$", "a|^b", "^\\d{3}-\\d{4}$", "^\\w+$",
            "\\s", "^[^a-z]$", "^\\S+$", "^.$", "^a.c$", "^[A-Z]{2}\\d*$", "^(ab)*$", "^(a|b|c){3}$", "^x?y$",
            "^\\.\\*$", "^[\\w.-]+@[a-z]+\\.com$", "^\\/api\\/v[0-9]$", "^[\\]\\[]$", "^\"$", "^\\\\$", "^é+$",
            "^(?:a|b)c$", "^\\u0041$", "^[a-zA-Z_][a-zA-Z0-9_]*$", "^#[0-9a-fA-F]{6}$", "^-?\\d+(\\.\\d+)?$", "^a{3}$",
            "^a{2,}$", "ab+c?", "^\\D$", "^[[a]$", "^[a-c&&]$", "^\\$[0-9]$", "^\\t$",
        )
    ] + [{"pattern": "^a$"}, {"type": "string", "pattern": "^a+$", "maxLength": 3},
         {"type": "string", "pattern": "^a+$", "minLength": 4}, {"type": "string", "pattern": "b", "minLength": 3}],
    "format": [
        {"type": "string", "format": f}
        for f in ("date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uri", "uuid")
    ] + [{"format": "date"}, {"type": ["string", "null"], "format": "uuid"}, {"type": "integer", "format": "date"}],
    "number": [
        {"type": "integer", "minimum": 3}, {"type": "integer", "maximum": 3}, {"type": "integer", "minimum": 3, "maximum": 7},
        {"type": "integer", "minimum": -7, "maximum": -3}, {"type": "integer", "minimum": -5, "maximum": 5},
        {"type": "integer", "exclusiveMinimum": 3}, {"type": "integer", "exclusiveMaximum": 3},
        {"type": "integer", "exclusiveMinimum": 3, "exclusiveMaximum": 5}, {"type": "integer", "minimum": 2.5},
        {"type": "integer", "maximum": 1e3}, {"type": "integer", "minimum": 0}, {"type": "integer", "minimum": 99, "maximum": 1001},
        {"type": "number", "minimum": 0.5}, {"type": "number", "maximum": 0.5}, {"type": "number", "minimum": 0, "maximum": 1},
        {"type": "number", "exclusiveMinimum": 0}, {"type": "number", "exclusiveMaximum": 0},
        {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1}, {"type": "number", "minimum": -1.25, "maximum": 1.75},
        {"type": "number", "minimum": -10.5, "maximum": -0.25}, {"minimum": 3}, {"maximum": -3}, {"type": "number", "minimum": 1e6},
        {"type": "number", "minimum": 1.1, "maximum": 1.12}, {"exclusiveMinimum": 3, "exclusiveMaximum": 4},
        {"type": "integer", "minimum": 10, "exclusiveMinimum": 12}, {"type": "integer", "maximum": 10, "exclusiveMaximum": 5},
        {"type": ["number", "string"], "minimum": 0, "minLength": 1}, {"type": "integer", "minimum": 7, "maximum": 7},
    ],
    "multipleOf": [
        {"type": "integer", "multipleOf": 3}, {"type": "integer", "multipleOf": 10}, {"type": "number", "multipleOf": 0.5},
        {"type": "number", "multipleOf": 0.25}, {"type": "integer", "multipleOf": 7, "minimum": 10, "maximum": 100},
        {"type": "number", "multipleOf": 2}, {"multipleOf": 4}, {"type": "integer", "multipleOf": 1},
        {"type": "integer", "multipleOf": 1000}, {"type": "integer", "multipleOf": 97}, {"type": "number", "multipleOf": 1.5},
        {"allOf": [{"multipleOf": 2}, {"multipleOf": 3}], "type": "integer"},
    ],
    "object": [
        obj(), obj(a=INT), obj(a=INT, b=STR), obj(a=obj(b=obj(c=BOOL))), {"properties": {"a": INT}},
        {"type": "object", "properties": {"a": INT}}, {"type": "object", "properties": {"a": INT}, "required": ["a"]},
        {"type": "object", "properties": {"a": INT, "b": STR}, "required": ["b"]},
        {"type": "object", "properties": {"a": INT, "b": STR, "c": BOOL}, **CLOSED},
        {"type": "object", "required": ["x"]}, {"type": "object", "required": ["x", "y"], "properties": {"y": NULL}},
        {"required": ["a"]}, {"type": "object", "properties": {"a": True}, **CLOSED}, {"type": "object", "properties": {"a": False}},
        {"type": "object", "properties": {"": INT, "a b": INT, "é": INT, "\"": INT, "a/b~c": INT}, **CLOSED},
        {"type": "object", "properties": {"a": {"default": 1, **INT}}}, {"type": "object", "required": []},
        obj(kind={"const": "k"}, items={"type": "array", "items": obj(x=NUM, y=NUM)}), {"type": "object", **CLOSED},
        {"type": "object", "required": ["a"], "properties": {"a": INT, "ab": STR, "abc": BOOL}, **CLOSED},
        obj(tab={"type": "string", "enum": ["\t"]}), {"type": "object", "properties": {"line\nbreak": INT}, **CLOSED},
    ],
    "additionalProperties": [
        {"type": "object", "additionalProperties": INT}, {"type": "object", "additionalProperties": True},
        {"type": "object", "properties": {"a": STR}, "additionalProperties": INT},
        {"type": "object", "properties": {"a": STR}, "required": ["a"], "additionalProperties": {"type": "array", "items": INT}},
        {"additionalProperties": INT}, {"additionalProperties": {}}, {"type": "object", "required": ["z"], "additionalProperties": NUM},
        {"type": "object", "properties": {"name": INT, "nam": INT}, "additionalProperties": STR},
        {"type": "object", "additionalProperties": obj(n=INT)},
    ],
    "patternProperties": [
        {"type": "object", "patternProperties": {"^a": INT}, **CLOSED}, {"type": "object", "patternProperties": {"^a": INT}},
        {"type": "object", "patternProperties": {"^a": INT, "^b": STR}, **CLOSED},
        {"type": "object", "patternProperties": {"^[0-9]+$": {"type": "array", "items": INT}}, "additionalProperties": NULL},
        {"type": "object", "patternProperties": {"_id$": INT}, "properties": {"name": STR}, **CLOSED},
        {"patternProperties": {"x": BOOL}}, {"type": "object", "patternProperties": {"^s_": STR}, "additionalProperties": INT},
        {"type": "object", "patternProperties": {"^a": {"minimum": 3, **INT}}, "properties": {"ab": {"maximum": 5, **INT}}},
    ],
    "minProperties": [
        {"type": "object", "properties": {"a": INT, "b": INT}, "minProperties": 1, **CLOSED},
        {"type": "object", "minProperties": 1}, {"type": "object", "maxProperties": 1}, {"type": "object", "maxProperties": 0},
        {"type": "object", "minProperties": 0, "maxProperties": 2}, {"type": "object", "maxProperties": 3, "additionalProperties": INT},
        {"minProperties": 1, "additionalProperties": INT}, {"type": "object", "required": ["a"], "properties": {"a": INT}, "minProperties": 2},
        {"type": "object", "required": ["a"], "properties": {"a": INT}, "maxProperties": 2},
    ],
    "items": [
        {"type": "array", "items": INT}, {"type": "array", "items": STR}, {"type": "array", "items": {"type": "array", "items": NULL}},
        {"type": "array", "items": True}, {"type": "array", "items": False}, {"items": BOOL}, {"type": "array", "items": {"enum": ["a", "b"]}},
        {"type": "array", "items": obj(a=INT)}, {"type": "array", "items": INT, "minItems": 1}, {"type": "array", "items": INT, "maxItems": 2},
        {"type": "array", "items": INT, "minItems": 2, "maxItems": 2}, {"type": "array", "maxItems": 0}, {"type": "array", "minItems": 3},
        {"minItems": 1}, {"maxItems": 1}, {"type": "array", "items": INT, "uniqueItems": False}, {"type": "array", "minItems": 0, "maxItems": 5, "items": BOOL},
        {"type": "array", "items": {"type": ["integer", "null"]}, "minItems": 2}, {"type": "array", "items": {"type": "number", "minimum": 0, "maximum": 1}, "minItems": 3, "maxItems": 3},
    ],
    "prefixItems": [
        {"type": "array", "prefixItems": [INT, STR]}, {"type": "array", "prefixItems": [INT, STR], "items": False},
        {"type": "array", "prefixItems": [INT, STR], "items": BOOL}, {"type": "array", "prefixItems": [INT, STR], "minItems": 2, "items": False},
        {"prefixItems": [NULL]}, {"type": "array", "prefixItems": [INT], "items": STR, "minItems": 3}, {"type": "array", "prefixItems": [INT, INT, INT], "maxItems": 2},
        {"type": "array", "prefixItems": [{"const": "add"}, NUM, NUM], "items": False, "minItems": 3},
        {"$schema": "http://json-schema.org/draft-07/schema#", "type": "array", "items": [INT, STR], "additionalItems": False},
        {"$schema": "http://json-schema.org/draft-07/schema#", "type": "array", "items": [INT, STR], "additionalItems": BOOL, "minItems": 3},
        {"$schema": "https://json-schema.org/draft/2019-09/schema", "type": "array", "items": [INT]},
        {"$schema": "http://json-schema.org/draft-06/schema#", "type": "array", "items": INT},
    ],
    "anyOf": [
        {"anyOf": [INT, STR]}, {"anyOf": [{"const": 1}, {"const": "x"}]}, {"anyOf": [obj(a=INT), obj(b=STR)]}, {"anyOf": [INT, NULL]},
        {"anyOf": [{"minimum": 5}, {"maxLength": 2}], "type": ["integer", "string"]}, {"type": "integer", "anyOf": [{"maximum": 1}, {"minimum": 9}]},
        {"anyOf": [{"type": "array", "items": INT}, {"type": "array", "items": STR}]}, {"anyOf": [True, INT]}, {"anyOf": [False, INT]},
        {"type": "object", "properties": {"a": INT, "b": INT}, "anyOf": [{"required": ["a"]}, {"required": ["b"]}], **CLOSED},
        {"anyOf": [{"anyOf": [INT, NULL]}, {"anyOf": [BOOL]}]}, {"properties": {"x": {"anyOf": [INT, NULL]}}, "type": "object", "required": ["x"], **CLOSED},
        {"type": "string", "anyOf": [{"minLength": 4}, {"pattern": "^a$"}]}, {"anyOf": [{"type": "number", "minimum": 0}, {"type": "integer", "maximum": 0}]},
    ],
    "oneOf": [
        {"oneOf": [INT, STR]}, {"oneOf": [{"const": 1}, {"const": 2}]}, {"oneOf": [NULL, obj(a=INT)]},
        {"oneOf": [obj(kind={"const": "a"}, x=INT), obj(kind={"const": "b"}, y=STR)]}, {"oneOf": [{"enum": ["a", "b"]}, {"enum": ["c"]}]},
        {"oneOf": [obj(k={"enum": ["a", "b"]}), obj(k={"const": "c"})], "discriminator": {"propertyName": "k"}},
        {"oneOf": [{"type": "array"}, {"type": "object"}]}, {"oneOf": [BOOL]},
    ],
    "allOf": [
        {"allOf": [INT, {"minimum": 3}]}, {"allOf": [{"minimum": 3}, {"maximum": 5}], "type": "integer"}, {"allOf": [STR, {"minLength": 2}, {"maxLength": 3}]},
        {"allOf": [{"properties": {"a": INT}, "required": ["a"]}, {"properties": {"b": STR}, "required": ["b"]}], "type": "object"},
        {"allOf": [{"type": ["integer", "string"]}, {"type": ["string", "null"]}]}, {"allOf": [{"pattern": "^a"}, {"pattern": "b$"}], "type": "string"},
        {"allOf": [{"enum": [1, 2, 3]}, {"enum": [2, 3, 4]}]}, {"allOf": [True, INT]}, {"allOf": [{"anyOf": [INT, STR]}, {"anyOf": [STR, NULL]}]},
        {"allOf": [{"type": "array", "items": INT}, {"minItems": 2}]}, {"allOf": [{"type": "object", "properties": {"a": INT}, **CLOSED}, {"required": ["a"]}]},
        {"allOf": [{"items": {"minimum": 2}}, {"items": {"maximum": 4}}], "type": "array", "items": INT}, {"allOf": [{"properties": {"a": {"minimum": 2}}}], "properties": {"a": INT}, "type": "object", "required": ["a"]},
        {"allOf": [{"additionalProperties": INT}], "type": "object", "additionalProperties": {"minimum": 3}}, {"allOf": [{"required": ["q"]}], "type": "object", "properties": {"q": {"enum": [1]}}, **CLOSED},
    ],
    "$ref": [
        {"$ref": "#/$defs/a", "$defs": {"a": INT}}, {"$ref": "#/definitions/a", "definitions": {"a": STR}}, {"properties": {"a": {"$ref": "#"}}, "type": "object", **CLOSED},
        {"type": "object", "properties": {"next": {"anyOf": [{"$ref": "#"}, NULL]}, "v": INT}, "required": ["next", "v"], **CLOSED},
        {"$defs": {"n": {"type": "array", "items": {"$ref": "#/$defs/n"}}}, "$ref": "#/$defs/n"}, {"$ref": "#/$defs/a~1b", "$defs": {"a/b": BOOL}},
        {"$ref": "#/$defs/a%20b", "$defs": {"a b": NULL}}, {"$ref": "#/$defs/a", "minimum": 3, "$defs": {"a": INT}}, {"$defs": {"a": {"$ref": "#/$defs/b"}, "b": INT}, "$ref": "#/$defs/a"},
        {"type": "object", "properties": {"a": STR, "b": {"$ref": "#/properties/a"}}, "required": ["b"], **CLOSED}, {"$defs": {"unused": {"not": {}}}, "type": "integer"},
        {"$defs": {"e": {"enum": ["r", "g"]}}, "type": "array", "items": {"$ref": "#/$defs/e"}, "minItems": 1}, {"anyOf": [{"$ref": "#/$defs/a"}, {"$ref": "#/$defs/b"}], "$defs": {"a": INT, "b": obj(x=STR)}},
        {"$defs": {"t": obj(v=INT, kids={"type": "array", "items": {"$ref": "#/$defs/t"}, "maxItems": 2})}, "$ref": "#/$defs/t"}, {"allOf": [{"$ref": "#/$defs/a"}], "$defs": {"a": {"maximum": 4}}, "type": "integer"},
        {"$ref": "#/prefixItems/0", "prefixItems": [{"type": ["integer", "array"]}]},
    ],
    "tools": [
        obj(location=STR, unit={"enum": ["c", "f"]}), obj(path={"type": "string", "minLength": 1}, recursive=BOOL),
        obj(query=STR, limit={"type": "integer", "minimum": 1, "maximum": 50}, tags={"type": "array", "items": STR, "maxItems": 3}),
        {"type": "object", "properties": {"verb": {"enum": ["open", "close"]}, "args": {"type": "object"}, "spoken_text": {"type": "string", "maxLength": 40}}, "required": ["verb", "args"], **CLOSED},
        obj(steps={"type": "array", "items": obj(explanation=STR, output=STR), "minItems": 1}, final_answer=STR),
        obj(event=obj(name=STR, date={"type": "string", "format": "date"}, participants={"type": "array", "items": STR})),
        obj(point={"type": "array", "prefixItems": [INT, INT], "items": False, "minItems": 2}, label={"type": ["string", "null"]}),
        obj(sentiment={"enum": ["good", "bad"]}, score={"type": "number", "minimum": 0, "maximum": 1}),
        {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "User", "type": "object", "properties": {"id": {"type": "string", "format": "uuid"}, "email": {"anyOf": [{"type": "string", "format": "email"}, NULL], "default": None}}, "required": ["id"]},
        obj(ui={"$ref": "#/$defs/node"}) | {"$defs": {"node": obj(type={"enum": ["div", "button"]}, children={"type": "array", "items": {"$ref": "#/$defs/node"}})}},
        obj(sql={"type": "string", "pattern": "^SELECT "}), obj(version={"type": "string", "pattern": "^\\d+\\.\\d+\\.\\d+$"}), obj(a=obj(), b={"type": "array", "items": obj()}),
    ],
}  # fmt: skip

# Schema, and what the error must name: the keyword and its place.
REFUSED: list[tuple[Any, str]] = [
    (False, "false"), ({"not": {}}, "'not' at #"), ({"if": INT, "then": {"minimum": 1}}, "'if' at #"), ({"then": {}}, "'then' at #"), ({"else": {}}, "'else' at #"),
    ({"type": "array", "uniqueItems": True}, "'uniqueItems' at #"), ({"type": "array", "contains": INT}, "'contains' at #"), ({"minContains": 1}, "'minContains' at #"), ({"maxContains": 1}, "'maxContains' at #"),
    ({"propertyNames": {"pattern": "^a"}}, "'propertyNames' at #"), ({"dependentRequired": {"a": ["b"]}}, "'dependentRequired' at #"), ({"dependentSchemas": {"a": {}}}, "'dependentSchemas' at #"),
    ({"dependencies": {"a": ["b"]}}, "'dependencies' at #"), ({"unevaluatedProperties": False}, "'unevaluatedProperties' at #"), ({"unevaluatedItems": False}, "'unevaluatedItems' at #"),
    ({"$dynamicRef": "#a"}, "'$dynamicRef' at #"), ({"$recursiveRef": "#"}, "'$recursiveRef' at #"), ({"$anchor": "a"}, "'$anchor' at #"), ({"$dynamicAnchor": "a"}, "'$dynamicAnchor' at #"), ({"$vocabulary": {}}, "'$vocabulary' at #"),
    ({"contentEncoding": "base64"}, "'contentEncoding' at #"), ({"contentMediaType": "application/json"}, "'contentMediaType' at #"), ({"contentSchema": {}}, "'contentSchema' at #"),
    ({"type": "string", "nullable": True}, "'nullable' at #"), ({"id": "x"}, "'id' at #"), ({"divisibleBy": 3}, "'divisibleBy' at #"), ({"extends": {}}, "'extends' at #"), ({"x-guidance": {"lenient": True}, "not": {}}, "'x-guidance' at #"),
    ({"type": "object", "properties": {"a": {"items": {"minLenght": 3}}}}, "'minLenght' at #/properties/a/items"), ({"$defs": {"x": {"not": INT}}, "items": {"$ref": "#/$defs/x"}}, "'not' at #/$defs/x"),
    ({"anyOf": [INT, {"not": STR}]}, "'not' at #/anyOf/1"), ({"allOf": [{"uniqueItems": True}]}, "'uniqueItems' at #/allOf/0"), ({"patternProperties": {"^a/b": {"not": {}}}}, "'not' at #/patternProperties/^a~1b"),
    ({"additionalProperties": {"if": {}}}, "'if' at #/additionalProperties"), ({"prefixItems": [{}, {"not": {}}]}, "'not' at #/prefixItems/1"),
    ({"type": "string", "format": "regex"}, "'format' at #"), ({"type": "string", "format": "unknown"}, "'format' at #"), ({"format": "idn-email"}, "'format' at #"), ({"format": "binary"}, "'format' at #"), ({"format": 3}, "'format' at #"),
    ({"type": "str"}, "'type' at #"), ({"type": []}, "'type' at #"), ({"type": 3}, "'type' at #"), ({"enum": []}, "'enum' at #"), ({"enum": "a"}, "'enum' at #"), ({"enum": ["\x01"]}, "'enum' at #"), ({"const": "\x7f"}, "'const' at #"),
    ({"minLength": -1}, "'minLength' at #"), ({"maxLength": 1.5}, "'maxLength' at #"), ({"minLength": 1.0}, "'minLength' at #"), ({"minItems": "1"}, "'minItems' at #"), ({"maxItems": 1 << 40}, "'maxItems' at #"), ({"minProperties": True}, "'minProperties' at #"),
    ({"minimum": "3"}, "'minimum' at #"), ({"$schema": "http://json-schema.org/draft-04/schema#", "maximum": 3, "exclusiveMaximum": True}, "'$schema' at #"), ({"exclusiveMinimum": True}, "'exclusiveMinimum' at #"),
    ({"multipleOf": 0}, "'multipleOf' at #"), ({"multipleOf": -2}, "'multipleOf' at #"), ({"multipleOf": 99991}, "'multipleOf' at #"), ({"multipleOf": 1.23456}, "'multipleOf' at #"),
    ({"pattern": 3}, "'pattern' at #"), ({"type": "string", "pattern": "(?=a)b"}, "look-around"), ({"type": "string", "pattern": "(a)\\1"}, "backreference"), ({"type": "string", "pattern": "("}, "regex parse error"),
    ({"required": "a"}, "'required' at #"), ({"required": ["\x00"]}, "'required' at #"), ({"properties": []}, "'properties' at #"), ({"properties": {"\x01": INT}}, "control character at #"),
    ({"type": "object", "minProperties": 2}, "'minProperties' at #"), ({"type": "object", "properties": {"a": INT}, "minProperties": 1}, "Properties"),
    ({"items": [INT]}, "'items' at #"), ({"additionalItems": INT}, "'additionalItems' at #"), ({"$schema": "http://json-schema.org/draft-07/schema#", "prefixItems": [INT]}, "'prefixItems' at #"),
    ({"anyOf": []}, "'anyOf' at #"), ({"allOf": {}}, "'allOf' at #"), ({"oneOf": [NUM, INT]}, "oneOf"), ({"oneOf": [{"minimum": 1}, {"maximum": 3}]}, "oneOf"),
    ({"$ref": "http://example.org/x"}, "'$ref' at #"), ({"$ref": "#/$defs/no"}, "'$ref' at #"), ({"$ref": "#anchor"}, "'$ref' at #"), ({"$ref": 3}, "'$ref' at #"), ({"items": {"$id": "http://b/"}}, "'$id' at #/items"),
    ({"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/a"}}}, "no finite value"), ({"type": "object", "required": ["a"], "properties": {"a": {"$ref": "#"}}}, "no finite value"),
    ({"type": "array", "minItems": 1, "items": {"$ref": "#"}}, "no finite value"), ({"allOf": [STR, INT]}, "nsatisfiable"), ({"type": "string", "minLength": 5, "maxLength": 2}, "nsatisfiable"), ({"type": "integer", "minimum": 5, "maximum": 2}, "nsatisfiable"),
    ({"type": "integer", "multipleOf": 7, "minimum": 1, "maximum": 6}, "nsatisfiable"), ({"type": "object", "required": ["a"], "properties": {"a": False}}, "finite value"), ({"anyOf": [False]}, "finite value"),
    ({"properties": {"a": 3}}, "#/properties/a"), ({"items": "integer"}, "#/items"), ({"description": "x" * 70000}, "70"), ([INT], "must be an object"), ("integer", "must be an object"), (None, "must be an object"),
]  # fmt: skip
