"""Values as a JSON schema has them: drawn at random from it, and such as it must refuse.

Where the schema itself cannot say what Kubernetes or the programs make sense of (a name, resources, a flag), it gives `examples`, and one of
those is drawn. Understood are the keywords that values.schema.json uses; conditions between values (if, allOf) are not: what breaks one
the schema refuses, and another set is drawn. A property that is a const is there to say why it is refused.
"""

import copy

LARGEST = 1000  # that is drawn where the schema knows no limit
UNKNOWN = "unheardOf"


class Space:
    def __init__(self, schema):
        self.schema = schema

    def resolved(self, node):
        """The node that a $ref names, with what is said beside it."""
        if "$ref" not in node:
            return node
        target = self.schema
        for each in node["$ref"].removeprefix("#/").split("/"):
            target = target[each]
        return self.resolved(target) | {key: value for key, value in node.items() if key != "$ref"}

    # -- What it takes

    def draw(self, random, everything=False):
        """A set of values; with `everything`, one that says all that can be said."""
        return self._draw(self.schema, random, everything)

    def _draw(self, node, random, everything):
        node = self.resolved(node)
        if "examples" in node:
            return copy.deepcopy(node["examples"][-1] if everything else random.choice(node["examples"]))
        if "enum" in node:
            return random.choice(node["enum"])
        return getattr(self, f"_draw_{node['type']}")(node, random, everything)

    def _draw_boolean(self, node, random, everything):
        return everything or random.random() < 0.5

    def _draw_integer(self, node, random, everything):
        low, high = node.get("minimum", 0), node.get("maximum", LARGEST)
        return random.choice((low, min(low + 1, high), random.randint(low, high), high))

    def _draw_object(self, node, random, everything):
        names = {name for name in node["properties"] if everything or name in node.get("required", ()) or random.random() < 0.6}
        return {name: self._draw(each, random, everything) for name, each in node["properties"].items()
                if name in names and "const" not in each and names.issuperset(node.get("dependencies", {}).get(name, ()))}

    def _draw_array(self, node, random, everything):
        least = max(node.get("minItems", 0), everything)
        count = least if everything else random.randint(least, min(node.get("maxItems", 3), 3))
        return [self._draw(node["items"], random, everything) for _ in range(count)]

    # -- What it refuses

    def neighbours(self, random):
        """Sets of values with one thing wrong: (where the schema says so, a word of why or nothing, the values)."""
        whole = self.draw(random, everything=True)
        for path, node in self.places(whole):
            for wrong, word in self._wrong(node, at(whole, path)) if path else [(whole | {UNKNOWN: 1}, UNKNOWN)]:
                yield "".join(f"/{str(each).replace('/', '~1')}" for each in path), word, replaced(whole, path, wrong)
            for name, is_default in [(each, 0 not in path) for each in node.get("required", ())] + [
                    (each, False) for names in node.get("dependencies", {}).values() for each in names]:
                others = {key: each for key, each in at(whole, path).items() if key != name}
                # null takes away what the chart's own values have.
                yield "/".join(map(str, ("", *path))), name, replaced(whole, path, others | {name: None} if is_default else others)

    def places(self, values):
        """Paths and nodes of all that the values have."""
        yield from self._places(self.schema, (), values)

    def _places(self, node, path, value):
        node = self.resolved(node)
        yield path, node
        for name, each in node.get("properties", {}).items():
            if name in value:
                yield from self._places(each, (*path, name), value[name])
        if node.get("type") == "array" and value:
            yield from self._places(node["items"], (*path, 0), value[0])
        if isinstance(node.get("additionalProperties"), dict):
            for name in list(value)[:1]:
                yield from self._places(node["additionalProperties"], (*path, name), value[name])

    @staticmethod
    def _wrong(node, value):
        if "enum" in node:
            yield UNKNOWN, ""
            return
        yield ([] if node["type"] == "object" else {}), node["type"]
        for keyword, wrong in (("minimum", lambda limit: limit - 1), ("maximum", lambda limit: limit + 1), ("pattern", lambda _: "\t?"),
                               ("minLength", lambda limit: "x" * (limit - 1)), ("maxLength", lambda limit: "x" * (limit + 1)),
                               ("minItems", lambda limit: value[:limit - 1]), ("maxItems", lambda limit: value[:1] * (limit + 1))):
            if keyword in node:
                yield wrong(node[keyword]), ""
        if node.get("additionalProperties") is False:
            yield value | {UNKNOWN: 1}, UNKNOWN


def at(values, path):
    for each in path:
        values = values[each]
    return values


def replaced(values, path, value):
    if not path:
        return value
    values = copy.copy(values)
    values[path[0]] = replaced(values[path[0]], path[1:], value)
    return values
