"""Servers that several tests share in the test process, and tests that patch modules under such a server.

A patched module, class, logger or process-wide metric affects every server in the process. A server that outlives one
test keeps working during other tests: it calls the functions that they have patched and logs into their captured
output, so that their verdicts depend on timing. Therefore:

- a fixture that runs a server lives for one test or one module, never for the session or a package;
- a test that patches the product, or captures log lines, is not in a module with a shared server. It has its own
server, patches an instance, or passes the value as an argument.

The check follows names within the tests to find patches, and fixtures that run servers. It does not see functions
that are passed as values.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import PurePosixPath

from tests.conventions.sources import Source

# The product's functions that start a server, or a simulated cluster, in the test process.
BEGINNINGS = {"Application", "SimulatedCluster", "GrpcServer", "build"}
PRODUCT = "pilothouse_"
# The client's modules are not part of any server.
CLIENT = "pilothouse_client"
PATCHING = {"setattr", "setitem", "delattr"}
CAPTURING = {"capture_logs"}
SHARED_SCOPES = {"session", "package", "module", "class"}
LONG_SCOPES = {"session", "package"}
# Tests that patch in a module with a shared server nevertheless: path::test → why no verdict can be affected.
_BREAKS_IT = "it breaks the shared server on purpose; only its own calls reach what is patched"
EXCEPTIONS = {
    "tests/identity/test_forged_tokens.py::test_a_log_in_without_one_check_takes_what_it_refuses": _BREAKS_IT,
    "tests/identity/test_forged_tokens.py::test_who_leaves_out_a_check_takes_what_it_refuses": _BREAKS_IT,
    "tests/identity/test_key_races.py::test_service_accounts_are_made_once_and_keep_to_their_bound": _BREAKS_IT,
    "tests/identity/test_oidc_logins.py::test_a_log_in_ends_after_minutes": _BREAKS_IT,
    "tests/identity/test_users.py::test_a_user_who_has_such_a_name_stays": "it reads only the lines that name a user",
    "tests/main_job/test_extra_fields.py::test_a_dry_run_reads_the_schemas_of_the_cluster": (
        "it changes what the simulated cluster shows of its schemas, which no other test of the file asks for"
    ),
    "tests/metrics/test_service.py::test_a_page_that_would_be_too_large_holds_fewer_containers": _BREAKS_IT,
    "tests/metrics/test_service.py::test_a_query_of_many_points_has_its_users_turn_for_wide_pages": _BREAKS_IT,
    "tests/promises/test_bodies.py::test_a_body_that_is_taken_or_refused_without_a_record_is_found": _BREAKS_IT,
    "tests/promises/test_bodies.py::test_what_no_field_may_hold_is_refused_by_its_bytes": (
        "it notes what is parsed, and the shared server is called by nobody then"
    ),
    "tests/promises/test_tenants_apart.py::test_a_server_that_tells_them_apart_is_found": _BREAKS_IT,
    "tests/promises/test_tenants_apart.py::test_a_role_that_may_too_much_is_found": _BREAKS_IT,
    "tests/promises/test_tenants_apart.py::test_a_server_whose_answers_tell_them_apart_is_found": _BREAKS_IT,
}

AnyFunction = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass
class _Module:
    """The functions of a test file, and the imports that define its names."""

    source: Source
    functions: dict[str, AnyFunction] = field(default_factory=dict)
    imported: dict[str, tuple[str, str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for node in ast.walk(self.source.tree):
            if isinstance(node, AnyFunction):
                self.functions.setdefault(node.name, node)
            elif isinstance(node, ast.ImportFrom):
                for each in node.names:
                    self.imported[each.asname or each.name] = (node.module or "", each.name)
            elif isinstance(node, ast.Import):
                for each in node.names:
                    self.imported[each.asname or each.name.partition(".")[0]] = (each.name, "")

    @property
    def path(self) -> str:
        return self.source.path

    def is_product(self, name: str) -> bool:
        """Returns whether a name in the file was imported from the product."""
        return _is_product(self.imported.get(name, ("", ""))[0])

    @cached_property
    def fixtures(self) -> dict[str, str]:
        """The scope of each fixture in the file."""
        found = {}
        for name, function in self.functions.items():
            for decorator in function.decorator_list:
                if ast.unparse(decorator).startswith(("pytest.fixture", "pytest_asyncio.fixture")):
                    found[name] = _scope(decorator)
        return found


def _is_product(module: str) -> bool:
    return module.startswith(PRODUCT) and not module.startswith(CLIENT)


def _scope(decorator: ast.expr) -> str:
    for each in decorator.keywords if isinstance(decorator, ast.Call) else ():
        if each.arg == "scope":
            return str(ast.literal_eval(each.value))
    return "function"


_Place = tuple[str, str]


class _Tests:
    """All tests, with edges from each function to the functions that it calls and to its fixtures."""

    def __init__(self, sources: Sequence[Source]) -> None:
        self.modules = {each.path: _Module(each) for each in sources if each.is_test}
        self._runs_server: dict[_Place, bool] = {}

    def function(self, module: _Module, name: str) -> _Place | None:
        """Returns the place that defines a function that a module calls by `name`."""
        if name in module.functions:
            return module.path, name
        origin, original = module.imported.get(name, ("", ""))
        path = f"{origin.replace('.', '/')}.py"
        if path in self.modules and original in self.modules[path].functions:
            return path, original
        return None

    def fixture(self, path: str, name: str) -> _Place | None:
        """Returns the place that defines the fixture that a function in this file gets by `name`."""
        places = [path, *(f"{parent}/conftest.py" for parent in PurePosixPath(path).parents)]
        for each in places:
            if each in self.modules and name in self.modules[each].fixtures:
                return each, name
        return None

    def needs(self, path: str, name: str) -> set[_Place]:
        """Returns the fixtures that a function requests, directly or through other fixtures."""
        found: set[_Place] = set()
        ahead = [(path, name)]
        while ahead:
            place = ahead.pop()
            for wanted in _asked_for(self.modules[place[0]].functions[place[1]]):
                # pytest looks from the test's own file, also for fixtures that other fixtures request.
                fixture = self.fixture(path, wanted)
                if fixture is not None and fixture not in found and fixture != place:
                    found.add(fixture)
                    ahead.append(fixture)
        return found

    def reach(self, place: _Place) -> set[_Place]:
        """Returns the functions that a function calls, directly or through others, and itself."""
        found, ahead = {place}, [place]
        while ahead:
            path, name = ahead.pop()
            module = self.modules[path]
            for called in _facts(module.functions[name]).names:
                next_place = self.function(module, called)
                if next_place is not None and next_place not in found:
                    found.add(next_place)
                    ahead.append(next_place)
        return found

    def runs_server(self, place: _Place) -> bool:
        """Returns whether a function starts a server, directly or through functions that it calls."""
        if place not in self._runs_server:
            self._runs_server[place] = any(
                self.modules[path].is_product(called)
                for path, name in self.reach(place)
                for called in _facts(self.modules[path].functions[name]).begins
            )
        return self._runs_server[place]

    def patches(self, place: _Place) -> Iterator[tuple[int, str]]:
        """Yields a function's patches of the product, directly or through functions in the same file."""
        module = self.modules[place[0]]
        for path, name in sorted(self.reach(place)):
            if path == module.path:
                for line, target in _facts(module.functions[name]).patched:
                    root = target.partition(".")[0].partition("[")[0].strip("'\"")
                    if target in CAPTURING or _is_product(root) or module.is_product(root):
                        yield line, target


@dataclass(frozen=True)
class _Facts:
    """Facts about one function: names that it reads but does not bind, calls that may start a server, and patches."""

    names: frozenset[str]
    begins: frozenset[str]
    patched: tuple[tuple[int, str], ...]


@cache
def _facts(function: AnyFunction) -> _Facts:
    nodes = list(ast.walk(function))
    arguments = {
        each.arg
        for node in nodes
        if isinstance(node, ast.arguments)
        for each in (*node.args, *node.kwonlyargs)
    }
    names = [node for node in nodes if isinstance(node, ast.Name)]
    bound = arguments | {each.id for each in names if not isinstance(each.ctx, ast.Load)}
    calls = [(node, ast.unparse(node.func)) for node in nodes if isinstance(node, ast.Call)]
    patched = [
        (node.lineno, each) for node, called in calls if (each := called.rpartition(".")[2]) in CAPTURING
    ]
    patched += [
        (node.lineno, ast.unparse(node.args[0]))
        for node, called in calls
        if isinstance(node.func, ast.Attribute) and node.func.attr in PATCHING and node.args
    ]
    patched += [
        (node.lineno, ast.unparse(each.value))
        for node in nodes
        if isinstance(node, ast.Assign)
        for each in node.targets
        if isinstance(each, ast.Attribute)
    ]
    begins = frozenset(called for _, called in calls if called in BEGINNINGS)
    return _Facts(frozenset(each.id for each in names) - bound, begins, tuple(patched))


def _asked_for(function: AnyFunction) -> set[str]:
    """Returns the names of a function's parameters and of the fixtures that it uses without a value."""
    names = {each.arg for each in (*function.args.args, *function.args.kwonlyargs)}
    for decorator in function.decorator_list:
        if isinstance(decorator, ast.Call) and ast.unparse(decorator.func).endswith("usefixtures"):
            names |= {str(ast.literal_eval(each)) for each in decorator.args}
    return names


def servers_end_with_their_module(sources: Sequence[Source]) -> Iterator[str]:
    """Reports servers that outlive their module: they disturb tests that do not use them."""
    tests = _Tests(sources)
    for module in tests.modules.values():
        for name, scope in module.fixtures.items():
            if scope in LONG_SCOPES and tests.runs_server((module.path, name)):
                yield (
                    f"{module.path}:{module.functions[name].lineno}: the fixture {name} runs a server in the "
                    f'process of the tests for the {scope}: use scope="module"'
                )


def nothing_patched_beside_shared_servers(sources: Sequence[Source]) -> Iterator[str]:
    """Reports tests that patch the product while a shared server runs: the test and the server disturb each other."""
    tests = _Tests(sources)
    left = {key for key in EXCEPTIONS if key.partition("::")[0] in tests.modules}
    for module in tests.modules.values():
        for test in [name for name in module.functions if name.startswith("test_")]:
            key = f"{module.path}::{test}"
            beside = _shared_servers(tests, module)
            if key in EXCEPTIONS:
                left.discard(key)
            if not beside or key in EXCEPTIONS:
                continue
            for line, patched in tests.patches((module.path, test)):
                yield (
                    f"{module.path}:{line}: {test} patches {patched} while the server of the module's fixture "
                    f"{', '.join(sorted(beside))} runs: move it to a file without a shared server, patch an "
                    "instance, or hand the value in (exceptions: tests/conventions/shared_servers.py)"
                )
    for key in sorted(left):
        yield f"tests/conventions/shared_servers.py:1: {key} is an exception, and no such test is left: take it out"


def _shared_servers(tests: _Tests, module: _Module) -> set[str]:
    """Returns the shared fixtures with a server that any test of the module requests."""
    return {
        name
        for test in module.functions
        if test.startswith("test_")
        for path, name in tests.needs(module.path, test)
        if tests.modules[path].fixtures[name] in SHARED_SCOPES and tests.runs_server((path, name))
    }


SHARED_SERVERS = (servers_end_with_their_module, nothing_patched_beside_shared_servers)
