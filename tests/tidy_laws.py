"""The laws of this project that a linter doesn't know, as functions from a source file to offences.

They read the syntax tree, not the text, so that a comment about `float(` is no offence. Where a law
has exceptions, they stand here by name with a reason. `test_tidy.py` applies the laws.
"""

import ast
import re
import subprocess
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent

FOUR_MODULES = (
    "src/aza_ai_budget.py",
    "src/aza_ai_credit.py",
    "src/aza_ai_credit_routes.py",
    "src/stripe_routes.py",
)
MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 70

# Path (or folder, ending in "/") -> why floats may be written there.
FLOATS_ALLOWED = {
    "src/guthaben/domain/money.py": "the one edge at which floats enter and leave",
    **dict.fromkeys(FOUR_MODULES, "their callers speak floats"),
    "src/guthaben/config.py": "seconds of timeouts",
    "src/guthaben/sandbox/": "seconds of delays; Stripe's amounts are integers",
    "src/guthaben/web/metrics.py": "Prometheus counts in floats",
}
SQL_DRIVERS_ALLOWED = {
    "src/guthaben/store/": "the store",
    "src/guthaben/sandbox/state.py": "the sandbox keeps its own state, apart from the engine's",
    **dict.fromkeys(FOUR_MODULES, "they are handed a connection"),
}
SQL_ALLOWED = {
    "src/guthaben/store/": "the store",
    "src/guthaben/sandbox/state.py": "the sandbox keeps its own state, apart from the engine's",
}
SQL_READS_ALLOWED = dict.fromkeys(FOUR_MODULES, "they read tables of their host")
STRIPE_ALLOWED = {
    "src/guthaben/payments/": "the outside world that moves money",
    "src/guthaben/sandbox/": "signs its webhooks as Stripe does",
    **dict.fromkeys(FOUR_MODULES, "their contract names the import"),
}
PRINT_ALLOWED = {
    "src/guthaben/cli.py": "speaks to a person",
    "src/guthaben/cli/": "speaks to a person",
    "src/guthaben/demo.py": "speaks to a person",
    "src/guthaben/sandbox/__main__.py": "speaks to a person",
}
ENVIRONMENT_ALLOWED = {"src/guthaben/config.py": "the only reader of the environment"}

DOMAIN = "src/guthaben/domain/"
IMPURE_MODULES = frozenset(
    {
        *("asyncio", "glob", "io", "logging", "multiprocessing", "os", "pathlib", "psycopg"),
        *("random", "requests", "secrets", "shutil", "signal", "socket", "sqlite3", "stripe"),
        *("subprocess", "sys", "tempfile", "threading", "time", "urllib", "uuid"),
    }
)
IMPURE_CALLS = frozenset({"now", "utcnow", "today", "monotonic", "perf_counter", "time_ns"})
IMPURE_BUILTINS = frozenset({"open", "input", "print"})

MONEY_NAME = re.compile(r"(nano|usd|chf|rappen|cost|price|amount|balance|credit)(_|$)")
DURATION_NAME = re.compile(r"(_s|_ms|_seconds|timeout|^seconds)$")
SQL_READ = re.compile(r"\s*(SELECT\s.*|WITH\s+\w+[\s(].*\bAS\s*\(.*|PRAGMA\s+\w+.*)", re.DOTALL)
SQL_WRITE = re.compile(
    r"\s*(INSERT\s+(OR\s+\w+\s+)?INTO\s|REPLACE\s+INTO\s|UPDATE\s+\S+\s+SET\s|DELETE\s+FROM\s"
    r"|(CREATE|DROP|ALTER)\s+(TEMP\s+|UNIQUE\s+|OR\s+REPLACE\s+)?(TABLE|VIEW|INDEX|TRIGGER)\s"
    r"|ATTACH\s|VACUUM\b)",
    re.DOTALL,
)
SQL_TRANSACTION = re.compile(
    r"\s*(BEGIN(\s+\w+)?|COMMIT|ROLLBACK.*|SAVEPOINT\s.*|RELEASE\s.*)[\s;]*"
)
ARGS_BLOCK = re.compile(
    r"^\s*((Args|Arguments|Parameters|Params|Returns|Return|Raises|Yields):\s*$|:param\s|:returns?:)",
    re.MULTILINE,
)


class Source(NamedTuple):
    """One Python file: its path from the project's root, its text and its syntax tree."""

    path: str
    text: str
    tree: ast.Module


Law = Callable[[Source], Iterator[str]]


@cache
def parse(path: str, text: str) -> Source:
    """Parse a file's text; a syntax error is raised as it is."""
    return Source(path, text, ast.parse(text, path))


def project_files(root: Path = ROOT) -> list[Path]:
    """List what belongs to the project: tracked files and new ones that are not ignored."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    try:
        told = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return _walk(root)
    return [path for name in sorted(set(told.splitlines())) if (path := root / name).is_file()]


def _walk(root: Path) -> list[Path]:
    # A copy without git: whatever is not hidden, built or cached.
    skipped = {"__pycache__", "build", "dist", "venv"}
    names = (p.relative_to(root).parts for p in sorted(root.rglob("*")) if p.is_file())
    return [
        root.joinpath(*parts)
        for parts in names
        if not skipped & set(parts)
        and not any(part.startswith(".") or part.endswith(".egg-info") for part in parts)
    ]


def allowed(path: str, places: dict[str, str]) -> bool:
    """Say whether a path is one of the places or lies in one of their folders."""
    return any(path == p or (p.endswith("/") and path.startswith(p)) for p in places)


def _at(source: Source, node: ast.AST, what: str) -> str:
    return f"{source.path}:{getattr(node, 'lineno', 1)}: {what}"


def _docstrings(tree: ast.Module) -> set[int]:
    holders = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    return {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, holders) and node.body and isinstance(node.body[0], ast.Expr)
    }


def _strings(source: Source) -> Iterator[tuple[ast.AST, str]]:
    """Yield every string that is no docstring; of an f-string, its text with the gaps filled."""
    skipped = _docstrings(source.tree)
    for node in ast.walk(source.tree):
        if isinstance(node, ast.JoinedStr):
            skipped |= {id(part) for part in node.values}
            text = "".join(
                str(part.value) if isinstance(part, ast.Constant) else "gap" for part in node.values
            )
            yield node, text
        elif isinstance(node, ast.Constant) and id(node) not in skipped:
            if isinstance(node.value, str):
                yield node, node.value


def _imports(tree: ast.Module) -> Iterator[tuple[ast.AST, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node, node.module
            yield from ((node, f"{node.module}.{alias.name}") for alias in node.names)
        elif _called(node) in {"import_module", "__import__"}:
            first = next(iter(node.args), None) if isinstance(node, ast.Call) else None
            if isinstance(first, ast.Constant) and isinstance(first.value, str):
                yield node, first.value


def _called(node: ast.AST) -> str | None:
    """Return the last name of what is called: `con.commit()` gives "commit"."""
    if not isinstance(node, ast.Call):
        return None
    if isinstance(node.func, ast.Attribute):
        return node.func.attr
    return node.func.id if isinstance(node.func, ast.Name) else None


def _imported_from(source: Source, roots: frozenset[str]) -> Iterator[str]:
    told: set[int] = set()
    for node, name in _imports(source.tree):
        if name.partition(".")[0] in roots and id(node) not in told:
            told.add(id(node))
            yield _at(source, node, f"imports {name}")


# ---------------------------------------------------------------- money and floats


def floats(source: Source) -> Iterator[str]:
    """`float(...)` and `: float` only where they are allowed; elsewhere only for durations."""
    if allowed(source.path, FLOATS_ALLOWED):
        return
    durations_too = source.path.startswith(DOMAIN)
    for node in ast.walk(source.tree):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id == "float"
        ):
            yield _at(source, node, "float(...)")
        for name, annotation in _annotations(node):
            if _names_float(annotation) and (durations_too or not DURATION_NAME.search(name)):
                yield _at(source, node, f"{name} is annotated as float")


def _annotations(node: ast.AST) -> Iterator[tuple[str, ast.expr]]:
    if isinstance(node, ast.AnnAssign):
        yield ast.unparse(node.target), node.annotation
    elif isinstance(node, ast.arg) and node.annotation:
        yield node.arg, node.annotation
    elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.returns:
        yield node.name, node.returns


def _names_float(annotation: ast.expr) -> bool:
    for node in ast.walk(annotation):
        if isinstance(node, ast.Name) and node.id == "float":
            return True
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            if re.search(r"\bfloat\b", node.value):
                return True
    return False


def float_money(source: Source) -> Iterator[str]:
    """No float literal is given to a name of money; the domain has none at all, and no `/`."""
    if allowed(source.path, FLOATS_ALLOWED):
        return
    pure = source.path.startswith(DOMAIN)
    for node in ast.walk(source.tree):
        if pure and isinstance(node, ast.Constant) and isinstance(node.value, float):
            yield _at(source, node, f"the float {node.value}")
        if pure and isinstance(node, ast.BinOp | ast.AugAssign) and isinstance(node.op, ast.Div):
            yield _at(source, node, "a division that gives a float")
        for name, value in _bindings(node):
            if not pure and MONEY_NAME.search(name) and _is_float(value):
                yield _at(source, node, f"{name} = {ast.unparse(value)}")


def _bindings(node: ast.AST) -> Iterator[tuple[str, ast.expr]]:
    if isinstance(node, ast.Assign):
        yield from ((ast.unparse(target), node.value) for target in node.targets)
    elif isinstance(node, ast.AnnAssign | ast.AugAssign) and node.value:
        yield ast.unparse(node.target), node.value
    elif isinstance(node, ast.keyword) and node.arg:
        yield node.arg, node.value
    elif isinstance(node, ast.Compare):
        yield from ((ast.unparse(node.left), value) for value in node.comparators)
    elif isinstance(node, ast.arguments):
        positional = [*node.posonlyargs, *node.args]
        late = positional[len(positional) - len(node.defaults) :]
        yield from ((a.arg, d) for a, d in zip(late, node.defaults, strict=True))
        yield from ((a.arg, d) for a, d in zip(node.kwonlyargs, node.kw_defaults, strict=True) if d)


def _is_float(value: ast.expr) -> bool:
    if isinstance(value, ast.UnaryOp):
        return _is_float(value.operand)
    return isinstance(value, ast.Constant) and isinstance(value.value, float)


# ---------------------------------------------------------------- who may touch the world


def environment(source: Source) -> Iterator[str]:
    """Only config reads the environment; no command line option does it in passing."""
    if allowed(source.path, ENVIRONMENT_ALLOWED):
        return
    names = {"environ", "environb", "getenv", "getenvb", "putenv"}
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Attribute) and node.attr in names:
            if isinstance(node.value, ast.Name) and node.value.id == "os":
                yield _at(source, node, f"os.{node.attr}")
        elif isinstance(node, ast.ImportFrom) and node.module == "os":
            if taken := names & {alias.name for alias in node.names}:
                yield _at(source, node, f"from os import {', '.join(sorted(taken))}")
        elif isinstance(node, ast.keyword) and node.arg in {"envvar", "auto_envvar_prefix"}:
            yield _at(source, node.value, f"{node.arg}=")


def sql_drivers(source: Source) -> Iterator[str]:
    """A database driver is imported by the store, and where a connection is handed in."""
    if not allowed(source.path, SQL_DRIVERS_ALLOWED):
        yield from _imported_from(source, frozenset({"sqlite3", "psycopg", "psycopg_pool"}))


def sql(source: Source) -> Iterator[str]:
    """SQL stands in the store; the four modules may read."""
    if allowed(source.path, SQL_ALLOWED):
        return
    may_read = allowed(source.path, SQL_READS_ALLOWED)
    for node, text in _strings(source):
        if SQL_WRITE.match(text) or (SQL_READ.fullmatch(text) and not may_read):
            yield _at(source, node, f"SQL: {' '.join(text.split())[:50]}")


def transactions(source: Source) -> Iterator[str]:
    """Only the store begins, commits and rolls back."""
    if allowed(source.path, SQL_ALLOWED):
        return
    for node in ast.walk(source.tree):
        if _called(node) in {"commit", "rollback", "executescript"}:
            yield _at(source, node, f".{_called(node)}()")
    for node, text in _strings(source):
        if SQL_TRANSACTION.fullmatch(text):
            yield _at(source, node, text.strip())


def stripe_calls(source: Source) -> Iterator[str]:
    """Stripe's library is used by payments, the sandbox and the four modules."""
    if not allowed(source.path, STRIPE_ALLOWED):
        yield from _imported_from(source, frozenset({"stripe"}))


def purity(source: Source) -> Iterator[str]:
    """The domain has no clock, no randomness, no files, no environment and no database."""
    if not source.path.startswith(DOMAIN):
        return
    yield from _imported_from(source, IMPURE_MODULES)
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Attribute) and node.attr in IMPURE_CALLS:
            yield _at(source, node, f".{node.attr}")
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            if node.func.id in IMPURE_BUILTINS:
                yield _at(source, node, f"{node.func.id}(...)")


def prints(source: Source) -> Iterator[str]:
    """Only programs that speak to a person print."""
    if allowed(source.path, PRINT_ALLOWED):
        return
    for node in ast.walk(source.tree):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id == "print"
        ):
            yield _at(source, node, "print(...)")


# ---------------------------------------------------------------- size and words


def file_length(source: Source) -> Iterator[str]:
    """A file has at most 400 lines."""
    if (lines := len(source.text.splitlines())) > MAX_FILE_LINES:
        yield _at(source, source.tree, f"{lines} lines")


def function_length(source: Source) -> Iterator[str]:
    """A function has at most 70 lines."""
    for node in ast.walk(source.tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            if lines > MAX_FUNCTION_LINES:
                yield _at(source, node, f"{node.name} has {lines} lines")


def module_docstrings(source: Source) -> Iterator[str]:
    """A module says what it owns."""
    if not ast.get_docstring(source.tree):
        yield _at(source, source.tree, "no docstring")


def public_functions(source: Source) -> Iterator[str]:
    """A public function has one sentence about it and names every type."""
    for node in _public(source.tree.body):
        decorators = {ast.unparse(d).rpartition(".")[2] for d in node.decorator_list}
        if not ast.get_docstring(node) and not decorators & {"overload", "setter", "override"}:
            yield _at(source, node, f"{node.name} has no docstring")
        if missing := _untyped(node):
            yield _at(source, node, f"{node.name} does not name the type of {', '.join(missing)}")


def _public(body: list[ast.stmt]) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            if not node.name.startswith("_"):
                yield node
        elif isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield from _public(node.body)
        elif isinstance(node, ast.If):
            yield from _public([*node.body, *node.orelse])


def _untyped(node: ast.FunctionDef | ast.AsyncFunctionDef) -> list[str]:
    a = node.args
    every = [*a.posonlyargs, *a.args, *a.kwonlyargs, *filter(None, (a.vararg, a.kwarg))]
    missing = [x.arg for x in every if x.annotation is None and x.arg not in {"self", "cls"}]
    return missing if node.returns else [*missing, "its result"]


def signature_blocks(source: Source) -> Iterator[str]:
    """A docstring does not repeat the signature in a block of arguments and results."""
    holders = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for node in ast.walk(source.tree):
        if isinstance(node, holders) and (
            found := ARGS_BLOCK.search(ast.get_docstring(node) or "")
        ):
            yield _at(source, node, f"the docstring has a block {found.group().strip()!r}")


# ---------------------------------------------------------------- words in any file

# Brackets keep this file from being its own first offender.
LEFT_OVER = re.compile(r"\b(TO[D]O|FIX[M]E|XX[X])\b")
FOREIGN = re.compile(
    r"(?<![\w.])/(root|work|home/\w+|Users/\w+|tmp/bash_\w+)/"
    r"|\b(pypi|npmjs|pythonhosted|golang)\.(org|com)\b"
    r"|\.librar[y]\b"
    r"|\b(coding|sub)[ -]?(agent|session)s?\b"
    r"|co-authored[-]by:|generated with[ ]\[",
    re.IGNORECASE,
)


def left_over(path: str, text: str) -> Iterator[str]:
    """Nothing says that it is unfinished: finish it, or open an issue."""
    yield from _lines_with(LEFT_OVER, path, text)


def foreign_words(path: str, text: str) -> Iterator[str]:
    """The project speaks of itself alone: no machine's paths, no registry's hosts, no tools."""
    yield from _lines_with(FOREIGN, path, text)


def _lines_with(pattern: re.Pattern[str], path: str, text: str) -> Iterator[str]:
    for number, line in enumerate(text.splitlines(), 1):
        if found := pattern.search(line):
            yield f"{path}:{number}: {found.group()!r}"
