"""The conventions of the project's own files, each a function from sources to findings.

A finding is one line, `path:line: fault and remedy`. test_checks.py breaks every one of them on purpose, so that no
check can pass without detecting anything.
"""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence

from tests.conventions.library_text import no_words_of_libraries
from tests.conventions.noun_tables import store_names_no_table
from tests.conventions.shared_servers import SHARED_SERVERS
from tests.conventions.sources import Source
from tests.conventions.waits import WAITS

LONGEST_FILE_LINES = 600
SMALL_LINES = 50
# The modules of every noun's layout, which may be small. `dry_run` asks the cluster for `validate_only`.
LAYOUT = {
    "model", "tables", "repository", "operations", "messages", "service", "noun", "dry_run", "__init__", "__main__",
}  # fmt: skip
# Modules that are still small and have one user. If you merge one, delete its line.
SMALL_STILL = {
    "server/pilothouse_server/containers/events.py",
    "server/pilothouse_server/containers/foreign_programs.py",
    "server/pilothouse_server/containers/volume_attachment.py",
    "server/pilothouse_server/rpc/formats.py",
    "server/pilothouse_server/rpc/interceptors/errors.py",
    "server/pilothouse_server/rpc/interceptors/operation.py",
    "server/pilothouse_server/rpc/interceptors/outer.py",
    "server/pilothouse_server/values/audit_words.py",
    "server/pilothouse_server/values/random_ids.py",
}
NAMES_THAT_SAY_NOTHING = {"utils", "util", "helpers", "helper", "misc"}
ASSERTING = ("raises", "warns", "assert", "check", "expect", "verify", "poll_until", "poll_cluster")
LOCKS_WITH_HOSTS = re.compile(r"(^|/)(uv\.lock|poetry\.lock|pdm\.lock|pylock.*\.toml)$")
MACHINE_PATH = re.compile(r"(^|[^A-Za-z0-9_.-])/(work|farm|root)/")
REGISTRY_HOST = re.compile(r"\b(pypi|pythonhosted|npmjs|debian)\.(org|com)\b")
LEFT_OPEN = re.compile(r"NotImplementedError|\bTODO\b|\bFIXME\b|\bXXX\b|\bHACK\b")
WORD = re.compile(r"[A-Za-z_]\w*")
# Names of the client library: each method of the API has one, even if the client itself calls the method.
FOR_CALLERS = {
    "refresh_session",
    "intercept_service",  # gRPC calls it
    "tcp_dsn",  # for programs that embed PostgreSQL
    "add_certificate",  # for tests that run the simulated cluster
    "_get_unique_id",  # asyncpg calls it
    "visit_in_op_binary",  # SQLAlchemy's compiler calls it, and reads the two below
    "statement_compiler",
    "do_GET",  # Python's HTTP server calls it, and the two below
    "handle_error",
    "log_message",
    "supports_statement_cache",
    "replace_functions",  # migrations call it, and the two below
    "restore_functions",
    "drop_index",
    "RELEASED",  # `make schema` reads it
}
# Alembic reads the constants of migrations.
MIGRATIONS = "migrations/pilothouse_migrations/versions/"
# Has a method for every call of the API, for users of the client.
API_OF_THE_CLIENT = "client/pilothouse_client/nouns/"
PRODUCT = ("server/", "client/", "migrations/", "protos/", "pyproject.toml", "README.md", "docs/")
SETTINGS = "server/pilothouse_server/settings/model.py"
# The one module that may catch a cancellation without raising it again.
ENDS_TASKS = "server/pilothouse_server/runtime/tasks.py"
SIMULATOR = "server/pilothouse_simulator/"
# Sets up the loggers of libraries, by their names.
LOG_LINES = "server/pilothouse_server/runtime/log_lines.py"

# The sources of the command, and the only module that may write to the terminal.
WRITES_TO_TERMINALS = (
    "client/pilothouse_client/cli.py",
    "client/pilothouse_client/commands/",
    "server/pilothouse_server/cli",
)
TERMINAL = "client/pilothouse_client/commands/terminal.py"
WRITES_BY_ITSELF = re.compile(
    r"\b(click\.(echo|secho)|sys\.std(out|err)\.(write|buffer)|Console\(|Live\()|(?<![\w.])print\("
)

MOST_FIELDS_BY_HAND = 7

Check = Callable[[Sequence[Source]], Iterable[str]]


def file_length(sources: Sequence[Source]) -> Iterator[str]:
    """Reports files that are too long to be read as a whole."""
    for source in sources:
        if source.is_python and len(source.lines) > LONGEST_FILE_LINES:
            yield (
                f"{source.path}:{LONGEST_FILE_LINES}: {len(source.lines)} lines, more than "
                f"{LONGEST_FILE_LINES}: split it by what its parts are about"
            )


def telling_names(sources: Sequence[Source]) -> Iterator[str]:
    """Reports names that do not describe their contents: newcomers could not find where things belong."""
    for source in sources:
        parts = source.path.removesuffix(".py").split("/")
        for part in NAMES_THAT_SAY_NOTHING.intersection(parts):
            yield f"{source.path}:1: {part!r} says nothing: name it after what it holds"


def small_modules_have_several_users(sources: Sequence[Source]) -> Iterator[str]:
    """Reports server modules of fewer than 50 lines with one importer, except those in the layout of a noun."""
    imported: dict[str, set[str]] = {}
    for source in sources:
        if source.path.startswith("server/") and source.is_python:
            for name in _imported(source.tree):
                imported.setdefault(name, set()).add(source.path)
    for source in sources:
        parts = source.path.removesuffix(".py").split("/")
        if not (source.path.startswith("server/pilothouse_server/") and source.is_python):
            continue
        if len(source.lines) >= SMALL_LINES or not LAYOUT.isdisjoint(parts) or source.path in SMALL_STILL:
            continue
        users = imported.get(".".join(parts[1:]), set())
        if len(users) == 1:
            yield (
                f"{source.path}:1: has {len(source.lines)} lines and one user: merge it into {users.pop()} "
                f"(fewer than {SMALL_LINES} lines need two users)"
            )


def _imported(tree: ast.Module) -> Iterator[str]:
    """Yields every imported module, and every name that is imported from a module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{each.name}" for each in node.names)
        elif isinstance(node, ast.Import):
            yield from (each.name for each in node.names)


def module_docstrings(sources: Sequence[Source]) -> Iterator[str]:
    """Reports modules without a docstring, which explains the mechanism and the reason for it."""
    for source in sources:
        if source.is_python and source.text.strip() and ast.get_docstring(source.tree) is None:
            yield f"{source.path}:1: no module docstring: say what the module does and why it does it so"


def nothing_left_open(sources: Sequence[Source]) -> Iterator[str]:
    """Reports unfinished code: committed work is complete."""
    for source in sources:
        if source.is_python and not source.is_test:
            for number, line in enumerate(source.lines, 1):
                if found := LEFT_OPEN.search(line):
                    yield f"{source.path}:{number}: {found[0]}: finish it, or file it as an issue"


def no_bare_tests(sources: Sequence[Source]) -> Iterator[str]:
    """Reports tests that assert nothing, and so cannot fail."""
    for source in sources:
        if not source.is_test:
            continue
        for node in ast.walk(source.tree):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            if node.name.startswith("test") and not any(map(_asserts, ast.walk(node))):
                yield f"{source.path}:{node.lineno}: {node.name} asserts nothing, so it cannot fail"


def _asserts(node: ast.AST) -> bool:
    if isinstance(node, ast.Call):
        called = ast.unparse(node.func)
        return any(word in called for word in ASSERTING)
    return isinstance(node, ast.Assert)


def no_machine_paths(sources: Sequence[Source]) -> Iterator[str]:
    """Reports absolute paths: the project works in any directory that it is cloned to."""
    for source in sources:
        for number, line in enumerate(source.lines, 1):
            if found := MACHINE_PATH.search(line):
                yield f"{source.path}:{number}: {found[0].strip()} is a path of one machine: make it relative"


def no_registry_hosts(sources: Sequence[Source]) -> Iterator[str]:
    """Reports hosts of registries: the machine decides where packages come from; the lock has versions and hashes."""
    for source in sources:
        if LOCKS_WITH_HOSTS.search(source.path):
            yield f"{source.path}:1: this lock names hosts: requirements.lock is the lock (`make lock`)"
        for number, line in enumerate(source.lines, 1):
            if found := REGISTRY_HOST.search(line):
                yield f"{source.path}:{number}: {found[0]} is a registry's host: name the package instead"


def nothing_unused(sources: Sequence[Source]) -> Iterator[str]:
    """Reports code that the product does not name, even if tests do; a list exempts names for external callers."""
    product = [source for source in sources if source.path.startswith(PRODUCT)]
    words = Counter(word for source in product for word in WORD.findall(source.text))
    for source in sources:
        if not source.path.startswith(("server/", "client/", "migrations/")) or not source.is_python:
            continue
        if source.path.startswith((API_OF_THE_CLIENT, MIGRATIONS)):
            continue
        for name, line in _bound(source.tree.body):
            if words[name] == 1 and name not in FOR_CALLERS and not name.startswith("__"):
                yield f"{source.path}:{line}: {name} is used nowhere in the product: delete it"


def modules_under_their_own_names(sources: Sequence[Source]) -> Iterator[str]:
    """Reports renamed module imports: readers must see which module's function is called, and find its callers."""
    modules = {_module(source.path) for source in sources if source.is_python}
    for source in sources:
        if not source.is_python:
            continue
        for node in ast.walk(source.tree):
            if not isinstance(node, ast.Import | ast.ImportFrom):
                continue
            package = f"{node.module}." if isinstance(node, ast.ImportFrom) else ""
            for name in node.names:
                is_module = isinstance(node, ast.Import) or f"{package}{name.name}" in modules
                if name.asname and is_module:
                    yield (
                        f"{source.path}:{node.lineno}: {package}{name.name} as {name.asname}: import a module under "
                        "its own name, or the functions from it"
                    )


def _module(path: str) -> str:
    """Returns the name by which a file is imported."""
    for root in ("server/", "client/", "migrations/"):
        path = path.removeprefix(root)
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def _bound(body: Iterable[ast.stmt]) -> Iterator[tuple[str, int]]:
    """Yields the names that a module and its classes bind, except decorated functions at the top level.

    The decorator registers such a function and thereby uses it.
    """
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not node.decorator_list:
            yield node.name, node.lineno
        elif isinstance(node, ast.ClassDef):
            yield node.name, node.lineno
            yield from _bound(node.body)
        elif isinstance(node, ast.Assign):
            yield from ((each.id, node.lineno) for each in node.targets if isinstance(each, ast.Name))
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            yield node.target.id, node.lineno


def settings_are_read(sources: Sequence[Source]) -> Iterator[str]:
    """Reports settings that nothing reads: they have no effect, although their page promises one."""
    declared = next((source for source in sources if source.path == SETTINGS), None)
    if declared is None:
        return
    read = {
        node.attr
        for source in sources
        if source.is_python and source.path.startswith("server/") and source.path != SETTINGS
        for node in ast.walk(source.tree)
        if isinstance(node, ast.Attribute) and ast.unparse(node.value).endswith("settings")
    }
    for node in declared.tree.body:
        if not isinstance(node, ast.ClassDef) or node.name != "Settings":
            continue
        for property_ in node.body:
            if isinstance(property_, ast.FunctionDef) and property_.name in read:
                read |= {each.attr for each in ast.walk(property_) if isinstance(each, ast.Attribute)}
        for name, line in _bound(node.body):
            if name not in read:
                yield f"{SETTINGS}:{line}: nothing reads settings.{name}: wire it to what it sets, or delete it"


def cancellations_go_on(sources: Sequence[Source]) -> Iterator[str]:
    """Reports code that swallows a cancellation: if its own task was cancelled, the caller would hang."""
    for source in sources:
        if not source.is_python or source.path == ENDS_TASKS:
            continue
        for node in ast.walk(source.tree):
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("suppress"):
                swallows = any(_names_cancellation(argument) for argument in node.args)
            elif isinstance(node, ast.ExceptHandler):
                swallows = (node.type is None or _names_cancellation(node.type)) and not _raises_again(node)
            else:
                continue
            if swallows:
                yield (
                    f"{source.path}:{node.lineno}: swallows the cancellation of its caller: end a task with "
                    "tasks.cancel_and_wait, or end the handler with `raise`"
                )


def _names_cancellation(caught: ast.expr) -> bool:
    return not {"CancelledError", "BaseException"}.isdisjoint(WORD.findall(ast.unparse(caught)))


def _raises_again(handler: ast.ExceptHandler) -> bool:
    """Returns whether a handler ends with `raise` and cannot leave before, or calls `uncancel` on its task."""
    nodes = [node for statement in handler.body for node in ast.walk(statement)]
    if any(isinstance(node, ast.Attribute) and node.attr == "uncancel" for node in nodes):
        return True
    leaves = any(isinstance(node, ast.Return | ast.Continue | ast.Break) for node in nodes)
    return isinstance(handler.body[-1], ast.Raise) and not leaves


def tasks_end_one_way(sources: Sequence[Source]) -> Iterator[str]:
    """Reports tasks that are cancelled and gathered by hand: they hide their failures."""
    for source in sources:
        # The simulator imports nothing from the server.
        if not source.is_python or source.path == ENDS_TASKS or source.path.startswith(SIMULATOR):
            continue
        for function in ast.walk(source.tree):
            if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            nodes = list(ast.walk(function))
            if not any(isinstance(node, ast.Attribute) and node.attr == "cancel" for node in nodes):
                continue
            for node in nodes:
                if isinstance(node, ast.Expr) and isinstance(node.value, ast.Await):
                    awaited = ast.unparse(node.value.value)
                    if awaited.startswith("asyncio.gather") and "return_exceptions=True" in awaited:
                        yield f"{source.path}:{node.lineno}: end these tasks with tasks.cancel_and_wait"


def one_logger(sources: Sequence[Source]) -> Iterator[str]:
    """Reports loggers other than one `log` per module; the simulator uses `logging`, for any user to format."""
    for source in sources:
        if not source.path.startswith("server/") or not source.is_python or source.path == LOG_LINES:
            continue
        simulated = source.path.startswith(SIMULATOR)
        wanted = "logging.getLogger(__name__)" if simulated else "structlog.get_logger(__name__)"
        right = {
            node.value
            for node in source.tree.body
            if isinstance(node, ast.Assign) and ast.unparse(node) == f"log = {wanted}"
        }
        for node in ast.walk(source.tree):
            if isinstance(node, ast.Call) and node not in right and _makes_a_logger(node):
                yield f"{source.path}:{node.lineno}: one logger a module: `log = {wanted}` at its top"


def _makes_a_logger(call: ast.Call) -> bool:
    return ast.unparse(call.func).split(".")[-1] in ("getLogger", "get_logger")


def messages_are_converted(sources: Sequence[Source]) -> Iterator[str]:
    """Reports resources that are filled by hand: `rpc.converter` detects forgotten fields, code by hand does not."""
    for source in sources:
        if not source.path.startswith("server/pilothouse_server/") or not source.is_python:
            continue
        for node in ast.walk(source.tree):
            if isinstance(node, ast.Call) and len(node.keywords) > MOST_FIELDS_BY_HAND:
                called = ast.unparse(node.func)
                if called.startswith(("pb.", "resource.")):
                    yield (
                        f"{source.path}:{node.lineno}: {called} with {len(node.keywords)} fields by hand: "
                        "make it by a Converter of rpc.converter"
                    )


def one_way_to_the_terminal(sources: Sequence[Source]) -> Iterator[str]:
    """Reports writes of the command to the terminal outside of one module.

    A server's response may contain control characters for terminals, and that module removes them.
    """
    for source in sources:
        if not source.path.startswith(WRITES_TO_TERMINALS) or source.path == TERMINAL or not source.is_python:
            continue
        for number, line in enumerate(source.lines, 1):
            if WRITES_BY_ITSELF.search(line):
                yield (
                    f"{source.path}:{number}: writes past what cleans words of a server: use say, write_data, "
                    f"write_exactly, write_program_output, progress or console of {TERMINAL}"
                )


CHECKS: Sequence[Check] = (
    one_way_to_the_terminal,
    file_length,
    telling_names,
    small_modules_have_several_users,
    module_docstrings,
    nothing_left_open,
    *WAITS,
    *SHARED_SERVERS,
    no_bare_tests,
    no_machine_paths,
    no_registry_hosts,
    nothing_unused,
    modules_under_their_own_names,
    settings_are_read,
    cancellations_go_on,
    tasks_end_one_way,
    one_logger,
    messages_are_converted,
    no_words_of_libraries,
    store_names_no_table,
)
