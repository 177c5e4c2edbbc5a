"""The layers: which module may import which, read from the source without running it.

Theory. Every module stands on one layer, named by its path; a module without a layer is an error, so a new one is
placed on purpose. What a module imports is every import statement in it, at any depth: an import inside a function
only hides a dependency from the clock, and an import under TYPE_CHECKING says that an annotation depends on it, which
would be as wrong (a pure value that speaks of Trio's types cannot be used without Trio). Two exceptions, each where
it is checked: the public ``__init__`` may reach up to the front doors when asked for them, and pure code may name
for its annotations any type of the standard library that is passed to it, as `random.Random`.

Importing a module runs the ``__init__`` of each package above it, so these count as imported too, except those that
stand above the importer itself: they run anyway. What holds for each single import holds transitively, because a layer
may import only layers of which the same, or more, is asked.

Rejected: import-linter. Its contracts say "layers", "independence" and "acyclic siblings" in forty lines, and nothing
of the rest. It forbids foreign modules by name, where pure code needs a list of the allowed ones. It counts every
import under TYPE_CHECKING or none. It does not see `importlib.import_module`, the constants of `socket`, or a public
name. All of that would stay here, with the reader of imports that it needs, and the layers would stand in two places.
"""

from __future__ import annotations

import ast
import enum
import functools
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import attrs

PACKAGE: Final = "trio_connect"


class Layer(enum.Enum):
    PURE = "PURE"
    EDGE = "EDGE"
    NET = "_net"
    PUBLIC = "public names"
    DOOR = "front door"
    OUTSIDE = "outside"  # testing, cli, adapters: they see what users see


PURE_VALUES: Final = frozenset(
    {
        "_answer", "_check", "_durations", "_endpoint", "_filter", "_ipv4_embedded", "_lookup_text", "_multipath",
        "_options", "_outbound_values", "_pickling", "_policy", "_proxy", "_relabel", "_render", "_report", "_repr",
        "_special_purpose", "_svg", "_text", "_trace", "_unresolved",
    }
)  # fmt: skip
# The parts of front doors that decide, by their path below the package.
PURE_PARTS: Final = frozenset(
    {
        ("outbound", "_redis_claim"), ("outbound", "_redis_claims"), ("outbound", "_store"),
        ("queues", "_states"), ("queues", "_table"),
        ("sctp", "_addresses"), ("sctp", "_reassembly"), ("sctp", "_values"), ("sctp", "_wire"),
    }
)  # fmt: skip
EDGE_VALUES: Final = frozenset({"_deadline", "_errors", "_messages", "_race_messages"})
DOORS: Final = frozenset({"queues", "outbound", "sctp", "libdill", "momentum"})
OUTSIDERS: Final = frozenset({"testing", "cli", "adapters", "__main__"})
# A compatibility layer speaks an original's names over one front door; libdill's is the public names themselves.
OVER_DOOR: Final[Mapping[str, str]] = {"momentum": "outbound"}

# Modules of values and of functions of their arguments: no clock, no randomness, no files, no sockets.
VALUE_MODULES: Final = frozenset(
    {
        "__future__", "abc", "base64", "bisect", "cmath", "collections", "contextlib", "copy", "dataclasses", "decimal",
        "enum", "errno", "fractions", "functools", "hashlib", "heapq", "ipaddress", "itertools", "json", "math",
        "numbers", "operator", "re", "socket", "string", "struct", "sys", "textwrap", "types", "typing", "unicodedata",
        "weakref",
    }
)  # fmt: skip
SOCKET_TYPES: Final = frozenset({"AddressFamily", "SocketKind", "MsgFlag", "AddressInfo"})

RUNTIME: Final = frozenset({"trio", "attrs", "attr"})
# What an extra or an adapter brings, by the name that is imported.
OPTIONAL: Final = frozenset(
    {
        "anyio", "coredis", "dns", "httpcore", "httpcore2", "httpx", "httpx2", "opentelemetry", "python_socks", "rich",
    }
)  # fmt: skip
MAY_ALSO_IMPORT: Final[Mapping[str, frozenset[str]]] = {
    "adapters": OPTIONAL,
    "cli": frozenset({"rich"}),
    "testing": frozenset({"pytest", "pytest_trio_connect"}),
}

_BELOW: Final[Mapping[Layer, frozenset[Layer]]] = {
    Layer.PURE: frozenset({Layer.PURE}),
    Layer.EDGE: frozenset({Layer.PURE, Layer.EDGE}),
    Layer.NET: frozenset({Layer.PURE, Layer.EDGE, Layer.NET}),
    Layer.PUBLIC: frozenset({Layer.PURE, Layer.EDGE, Layer.NET}),
    Layer.DOOR: frozenset({Layer.PURE, Layer.EDGE, Layer.NET, Layer.PUBLIC}),
}


class When(enum.Enum):
    IMPORT = "at import"
    CALL = "in a function"
    TYPING = "for annotations"


@attrs.frozen
class Import:
    module: str
    name: str | None
    line: int
    when: When


@attrs.frozen
class Module:
    name: str
    path: Path
    tree: ast.Module
    is_package: bool

    @property
    def parts(self) -> tuple[str, ...]:
        return tuple(self.name.split(".")[1:])

    @property
    def group(self) -> str:
        return self.parts[0] if self.parts else ""


def layer_of(name: str) -> Layer | None:
    parts = name.split(".")[1:]
    if not parts:
        return Layer.PUBLIC
    if parts[0] == "_engine" or tuple(parts) in PURE_PARTS or (len(parts) == 1 and parts[0] in PURE_VALUES):
        return Layer.PURE
    if len(parts) == 1 and parts[0] in EDGE_VALUES:
        return Layer.EDGE
    if parts[0] == "_net":
        return Layer.NET
    if parts[0] in DOORS:
        return Layer.DOOR
    if parts[0] in OUTSIDERS:
        return Layer.OUTSIDE
    return None


def read_tree(src: Path) -> dict[str, Module]:
    """Every module of the package under `src`, by its full name."""
    modules = {}
    for path in sorted((src / PACKAGE).rglob("*.py")):
        parts = path.relative_to(src).with_suffix("").parts
        is_package = parts[-1] == "__init__"
        name = ".".join(parts[:-1] if is_package else parts)
        modules[name] = Module(name, path, _parsed(path.read_text(encoding="utf-8")), is_package)
    return modules


# Each rule reads the whole package, and each test of a rule a small one of which one file is its own.


@functools.cache
def _parsed(text: str) -> ast.Module:
    return ast.parse(text)


@functools.cache
def imports_of(module: Module) -> tuple[Import, ...]:
    return tuple(_walk(module, module.tree.body, When.IMPORT))


def _walk(module: Module, nodes: list[ast.AST] | list[ast.stmt], when: When) -> Iterator[Import]:
    for node in nodes:
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, None, node.lineno, when)
        elif isinstance(node, ast.ImportFrom):
            base = _resolve(module, node.module or "", node.level)
            for alias in node.names:
                yield Import(base, alias.name, node.lineno, when)
        elif isinstance(node, ast.If) and _is_type_checking(node.test):
            yield from _walk(module, node.body, When.TYPING)
            yield from _walk(module, node.orelse, when)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            inner = When.CALL if when is When.IMPORT else when
            yield from _walk(module, list(ast.iter_child_nodes(node)), inner)
        elif isinstance(node, ast.Call) and (target := _import_module(module, node)) is not None:
            yield Import(target, None, node.lineno, when)
        else:
            yield from _walk(module, list(ast.iter_child_nodes(node)), when)


def _is_type_checking(test: ast.expr) -> bool:
    return (isinstance(test, ast.Name) and test.id == "TYPE_CHECKING") or (
        isinstance(test, ast.Attribute) and test.attr == "TYPE_CHECKING"
    )


def _resolve(module: Module, name: str, level: int) -> str:
    """The full name of what `module` calls `name`, given with so many leading dots."""
    if level == 0:
        return name
    parts = module.name.split(".")
    keep = len(parts) - level + (1 if module.is_package else 0)
    return ".".join([*parts[:keep], *filter(None, name.split("."))])


def _import_module(module: Module, call: ast.Call) -> str | None:
    function = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", None)
    if function not in {"import_module", "__import__"} or not call.args:
        return None
    first = call.args[0]
    if not (isinstance(first, ast.Constant) and isinstance(first.value, str)):
        return None  # a computed name, as in a module's __getattr__
    name = first.value.lstrip(".")
    return _resolve(module, name, len(first.value) - len(name))


def _targets(modules: Mapping[str, Module], importer: Module, item: Import) -> list[str]:
    """Our modules that this import runs."""
    if item.module.split(".")[0] != PACKAGE:
        return []
    target = item.module
    if item.name is not None and f"{target}.{item.name}" in modules:
        target = f"{target}.{item.name}"
    parts = target.split(".")
    ancestors = [".".join(parts[:n]) for n in range(1, len(parts))]
    above_importer = {".".join(importer.name.split(".")[:n]) for n in range(1, importer.name.count(".") + 2)}
    return [target, *(name for name in ancestors if name not in above_importer and name != PACKAGE)]


def circles(src: Path) -> list[str]:
    """The modules that need one another, in a circle or several: one line of text for each such group.

    Every import counts, also one for annotations alone: whoever reads one module of a circle has to read them all.
    """
    modules = read_tree(src)
    needs = {
        module.name: {
            target
            for item in imports_of(module)
            for target in _targets(modules, module, item)[:1]
            # A package's own module may ask the package for a sibling; the package's `__init__` lists its modules.
            if target in modules and target != module.name and not module.name.startswith(f"{target}.")
        }
        for module in modules.values()
    }
    needs[PACKAGE] = set()  # loads what it lists when it is asked for it
    while leaves := [name for name, others in needs.items() if not others & needs.keys()]:
        for name in leaves:
            del needs[name]
    # What only leads into a circle goes as well.
    while roots := [name for name in needs if not any(name in others for others in needs.values())]:
        for name in roots:
            del needs[name]
    return [f"{name}: in a circle with {', '.join(sorted(others & needs.keys()))}" for name, others in needs.items()]


@attrs.frozen
class Shape:
    """How the parts of a folder, its files and its folders, stand on one another."""

    parts: int
    arrows: int
    """Pairs of parts of which one imports the other."""
    layers: int
    """The length of the longest chain."""
    circle: tuple[str, ...]
    """The parts that cannot be put into layers."""


def shape_of(src: Path, folder: str) -> Shape:
    """The parts of a folder of the package, each folder in it counted as one."""
    modules = read_tree(src)
    prefix = f"{PACKAGE}.{folder}."
    needs: dict[str, set[str]] = {}
    for module in modules.values():
        if not module.name.startswith(prefix):
            continue
        part = module.name.removeprefix(prefix).split(".")[0]
        targets = {target for item in imports_of(module) for target in _targets(modules, module, item)[:1]}
        others = {name.removeprefix(prefix).split(".")[0] for name in targets if name.startswith(prefix)}
        needs.setdefault(part, set()).update(others - {part})
    parts, arrows, layers = len(needs), sum(map(len, needs.values())), 0
    while lowest := [part for part, others in needs.items() if not others & needs.keys()]:
        layers += 1
        for part in lowest:
            del needs[part]
    return Shape(parts, arrows, layers, tuple(sorted(needs)))


def violations(src: Path) -> list[str]:
    """Every breach of the import rules in the package under `src`, one line of text each."""
    modules = read_tree(src)
    found: list[str] = []
    for module in modules.values():
        layer = layer_of(module.name)
        if layer is None:
            found.append(f"{module.name}: has no layer; place it in tests/import_rules.py")
            continue
        for item in imports_of(module):
            found.extend(f"{module.name}:{item.line}: {text}" for text in _judge(modules, module, layer, item))
        if layer is Layer.PURE:
            found.extend(f"{module.name}:{line}: {text}" for line, text in _socket_misuse(module))
        if layer is Layer.OUTSIDE:
            found.extend(f"{module.name}:{line}: {text}" for line, text in _private_attributes(module))
    return found


def _judge(modules: Mapping[str, Module], module: Module, layer: Layer, item: Import) -> Iterator[str]:
    targets = _targets(modules, module, item)
    if not targets:
        yield from _judge_foreign(module, layer, item)
        return
    if targets[0] not in modules:
        yield f"imports {targets[0]}, which does not exist"
        return
    for target in targets:
        yield from _judge_own(modules, module, layer, item, target)


def _judge_own(modules: Mapping[str, Module], module: Module, layer: Layer, item: Import, target: str) -> Iterator[str]:
    other = layer_of(target)
    group = modules[target].group
    if other is None:
        return  # reported where it stands
    if layer is Layer.OUTSIDE:
        if group == module.group:
            return
        if group == "testing":
            yield f"imports {target}: testing is for users' tests, never for the rest"
        elif any(part.startswith("_") for part in target.split(".")) or (item.name or "").startswith("_"):
            yield f"imports {target if item.name is None else f'{item.module}.{item.name}'}: only public names here"
        elif item.name and target == item.module and not _is_public(modules[target], item.name):
            yield f"imports {item.name} from {target}, which does not publish it"
        return
    if layer is Layer.DOOR and other is Layer.DOOR:
        if group not in {module.group, OVER_DOOR.get(module.group)}:
            yield f"front door {module.group} imports front door {group}"
        return
    if layer is Layer.DOOR and other is Layer.PURE and group == module.group:
        return
    if layer is Layer.PUBLIC and (other is Layer.DOOR or group == "testing") and item.when is not When.IMPORT:
        return  # loaded on first use
    if other not in _BELOW[layer]:
        yield f"{layer.value} imports {target} ({other.value}) {item.when.value}"


def _judge_foreign(module: Module, layer: Layer, item: Import) -> Iterator[str]:
    top = item.module.split(".")[0]
    if top == "typing_extensions" and item.when is When.TYPING:
        return  # every type checker brings it; nothing needs it to run
    if layer is Layer.PURE:
        if top in {"attrs", "attr"} or top in VALUE_MODULES:
            return
        if top in sys.stdlib_module_names and item.when is When.TYPING:
            return  # the type of something passed in
        yield f"PURE imports {item.module} {item.when.value}"
    elif top in sys.stdlib_module_names | RUNTIME | MAY_ALSO_IMPORT.get(module.group, frozenset()):
        return
    elif top not in OPTIONAL:
        yield f"imports {item.module}, which is no dependency"
    elif layer is Layer.EDGE or layer is Layer.OUTSIDE:
        yield f"imports the optional {item.module}, which is not for {layer.value} {module.group}"
    elif item.when is When.IMPORT:
        yield f"imports the optional {item.module} at import; import it where it is first used"


def _is_public(module: Module, name: str) -> bool:
    return name == "*" or name in (_dunder_all(module) or _published(module))


def _published(module: Module) -> set[str]:
    """What a package imports under a public name: see `_relabel.publish`."""
    imports = (node for node in ast.walk(module.tree) if isinstance(node, ast.ImportFrom))
    return {alias.asname for node in imports for alias in node.names if alias.asname == alias.name}


def _dunder_all(module: Module) -> set[str] | None:
    for node in module.tree.body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        if any(isinstance(t, ast.Name) and t.id == "__all__" for t in targets):
            value = getattr(node, "value", None)
            if isinstance(value, ast.List | ast.Tuple):
                return {e.value for e in value.elts if isinstance(e, ast.Constant) and isinstance(e.value, str)}
    return None


def _socket_misuse(module: Module) -> Iterator[tuple[int, str]]:
    """In pure code the socket module is a table of constants."""
    names: set[str] = set()
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            names |= {a.asname or a.name for a in node.names if a.name == "socket"}
        elif isinstance(node, ast.ImportFrom) and node.module == "socket" and node.level == 0:
            for alias in node.names:
                if not _is_socket_constant(alias.name):
                    yield node.lineno, f"PURE takes socket.{alias.name}, which is not a constant"
    allowed: set[ast.AST] = set()
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in names:
            allowed.add(node.value)
            if not _is_socket_constant(node.attr):
                yield node.lineno, f"PURE uses socket.{node.attr}, which is not a constant"
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in {"getattr", "hasattr"}:
            name = node.args[1] if len(node.args) > 1 else None
            if isinstance(name, ast.Constant) and _is_socket_constant(str(name.value)):
                allowed.add(node.args[0])  # a constant that not every platform has
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Name) and node.id in names and node not in allowed:
            yield node.lineno, "PURE passes the socket module around"


def _is_socket_constant(name: str) -> bool:
    return name.isupper() or name in SOCKET_TYPES


def _private_attributes(module: Module) -> Iterator[tuple[int, str]]:
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Attribute) and node.attr.startswith("_") and not node.attr.startswith("__"):
            root = node.value
            while isinstance(root, ast.Attribute):
                root = root.value
            if isinstance(root, ast.Name) and root.id == PACKAGE:
                yield node.lineno, f"reaches for {ast.unparse(node)}: only public names here"


def private_uses_of_trio(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Trio's underscored names, imported or reached for."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "trio":
            names = [f"trio.{node.attr}"]
        else:
            continue
        for name in names:
            parts = name.split(".")
            if parts[0] == "trio" and any(p.startswith("_") and not p.startswith("__") for p in parts):
                yield node.lineno, name


def uses_of_sleep(tree: ast.Module) -> Iterator[int]:
    """Sleeping through `time`: it stops the loop, and a test that waits for real time is late or wrong."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            if (node.value.id, node.attr) == ("time", "sleep"):
                yield node.lineno
        elif isinstance(node, ast.ImportFrom) and node.module == "time" and "sleep" in {a.name for a in node.names}:
            yield node.lineno
