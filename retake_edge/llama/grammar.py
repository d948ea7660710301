"""Grammars that answers follow: made from a JSON schema, and held to what llama.cpp can take.

llama.cpp parses a grammar by recursion, and the converter of schemas writes every repetition out,
so a short text of a stranger could end the process, or keep it busy for ever.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any

from retake_edge.errors import ConfigError
from retake_edge.llama import library

_MOST_CHARS = 100_000
_DEEPEST = 1000  # the parser's stack ends somewhere above 10,000
_MOST_NODES = 1000
_MOST_REPEATS = 1000
_REPEATS = ("minLength", "maxLength", "minItems", "maxItems")
_NO_BRACKETS = re.compile(r'"(?:\\.|[^"\\])*"|\[(?:\\.|[^\]\\])*\]|#.*')
_BRACES = re.compile(r"\{(\d+)(?:,(\d*))?\}")


def check_grammar(grammar: str) -> None:
    """Refuse a grammar (GBNF) that llama.cpp's parser could not survive.

    Raises:
        ConfigError: it is too long, or its brackets stand too deep.
    """
    if len(grammar) > _MOST_CHARS:
        raise ConfigError(
            f"The grammar has {len(grammar)} characters, but at most {_MOST_CHARS} are taken; "
            "shorten it."
        )
    depth = deepest = 0
    for char in _NO_BRACKETS.sub("", grammar):
        depth += (char == "(") - (char == ")")
        deepest = max(deepest, depth)
    if deepest > _DEEPEST:
        raise ConfigError(
            f"The brackets of the grammar stand {deepest} deep, but at most {_DEEPEST} are taken; "
            "use rules instead."
        )


def grammar_of_schema(schema: str) -> str:
    """Return the grammar (GBNF) of the JSON documents that follow a JSON schema.

    Raises:
        ConfigError: it is no JSON schema, has what a grammar cannot say, or is too large.
    """
    library.load_libraries()
    from retake_edge._bindings.llama_grammar import json_schema_to_gbnf

    try:
        _check_schema(json.loads(schema))
        grammar = str(json_schema_to_gbnf(schema))
    except ConfigError:
        raise
    except Exception as error:  # whatever the converter raises on what it does not know
        reason = str(error)[:200] or type(error).__name__
        raise ConfigError(f"The JSON schema cannot be used ({reason}); check it.") from None
    check_grammar(grammar)
    return grammar


def _check_schema(schema: Any) -> None:
    """Refuse a schema whose grammar would be far longer than itself."""
    n_nodes, left = 0, [schema]
    while left:
        node = left.pop()
        n_nodes += 1
        if n_nodes > _MOST_NODES:
            raise ConfigError(f"The JSON schema has more than {_MOST_NODES} parts; shorten it.")
        if isinstance(node, list):
            left += node
        if isinstance(node, dict):
            left += node.values()
            _check_reference(node)
            _check_repeats(node)


def _check_reference(node: dict[str, Any]) -> None:
    ref = node.get("$ref")
    if isinstance(ref, str) and not ref.startswith("#/"):
        raise ConfigError(
            f"The JSON schema refers to {ascii(ref)[:80]}; only '#/...', a place in itself, is "
            "looked up."
        )


def _check_repeats(node: dict[str, Any]) -> None:
    for name in _REPEATS:
        n = node.get(name)
        if isinstance(n, int) and n > _MOST_REPEATS:
            raise ConfigError(
                f"{name} in the JSON schema is {n}, but at most {_MOST_REPEATS} is taken; lower it."
            )
    pattern = node.get("pattern")
    if isinstance(pattern, str):
        found = [max(int(least), int(most or 0), 1) for least, most in _BRACES.findall(pattern)]
        if len(pattern) > _MOST_CHARS or math.prod(found) > _MOST_REPEATS:
            raise ConfigError(
                f"A pattern in the JSON schema repeats more than {_MOST_REPEATS} times; shorten it."
            )
