"""deploy/compose/compose.yaml as Compose reads it. Needs PyYAML."""

import re

import yaml

from tests.e2e import processes

FOLDER = processes.ROOT / "deploy" / "compose"
FILE = FOLDER / "compose.yaml"


def interpolated(value, variables):
    """The value with ${NAME:-default} and ${NAME:?message} replaced, in all that it holds."""
    if isinstance(value, dict):
        return {key: interpolated(inner, variables) for key, inner in value.items()}
    if isinstance(value, list):
        return [interpolated(inner, variables) for inner in value]
    if not isinstance(value, str):
        return value

    def replace(match):
        name, kind, rest = match.groups()
        if name not in variables and kind == "?":
            raise KeyError(f"{name}: {rest}")
        return variables.get(name, rest)
    return re.sub(r"\$\{(\w+):([-?])([^}]*)\}", replace, value)


def services(variables):
    return interpolated(yaml.safe_load(FILE.read_text())["services"], variables)
