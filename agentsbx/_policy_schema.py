"""The JSON Schema of policy files; `data/policy.schema.json` is what it gives, for editors."""

from __future__ import annotations

from typing import Any

import msgspec

from agentsbx.policy import Policy

__all__ = ["schema"]

_LISTS = ("read", "write", "net", "env", "syscalls", "preload", "packages", "widen")
_ABOVE = ("$schema", "extends", "widen", "function")  # not in a section
_FUNCTION = r"^[\w.]+:[\w.<>]+$"


def schema() -> dict[str, Any]:
    """Return the JSON Schema of policy files (`agentsbx policy schema`)."""
    made: dict[str, Any] = msgspec.json.schema(Policy)
    definitions = made["$defs"]
    properties = definitions["Policy"]["properties"]
    for name in ("origin", "section", "functions"):
        del properties[name]
    del definitions["FunctionSection"]
    properties["extends"] = {
        "description": properties["extends"]["description"],
        "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}],
    }
    for name in _LISTS:
        _as_list(name, properties)
    cpus = properties["cpu_set"]
    del cpus["default"]
    forms = [{"type": "string"}, {"type": "integer"}, cpus]
    properties["cpu_set"] = {"description": cpus.pop("description"), "anyOf": forms}
    del properties["limits"]["default"]
    for prop in definitions["Limits"]["properties"].values():
        prop["type"] = ["number", "string"]
        if prop["default"] < 0:
            prop["default"] = "unlimited"
    properties["$schema"] = {"description": "For editors; ignored.", "type": "string"}
    properties["function"] = {
        "description": 'Policies of single functions, by "module:qualname", on top of this one.',
        "type": "object",
        "patternProperties": {_FUNCTION: {"$ref": "#/$defs/Section"}},
        "additionalProperties": False,
    }
    section = {key: value for key, value in properties.items() if key not in _ABOVE}
    definitions["Section"] = {**definitions["Policy"], "title": "Section", "properties": section}
    definitions["Section"]["description"] = "The policy of one function."
    for definition in definitions.values():
        definition["description"] = definition.get("description", "").partition("\n")[0]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "agentsbx",
        **made,
    }


def _as_list(name: str, properties: dict[str, Any]) -> None:
    """A bare string is a list of one, a table of env sets variables."""
    prop = properties[name]
    prop.pop("default", None)
    if name in ("read", "write"):
        prop["items"] = {"anyOf": [{"type": "string"}, prop["items"]]}
    forms = [{"type": "string"}, prop]
    if name == "env":
        forms.append({"type": "object", "additionalProperties": {"type": "string"}})
    properties[name] = {"description": prop.pop("description"), "anyOf": forms}
