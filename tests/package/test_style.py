"""What the package never does: assert, pickle, catch everything, draw from global random state."""

from __future__ import annotations

import ast

import pytest

from rotcheck.registry import builtin_checks

PICKLES = ("pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal")
GLOBAL_RANDOM = ("random.", "np.random.", "numpy.random.")
OWN_STATE = ("random.Random", "np.random.default_rng", "np.random.Generator", "numpy.random.default_rng")
TORCH_STATE = ("torch.manual_seed", "torch.seed", "torch.set_rng_state", "torch.cuda.manual_seed_all")
DRAWS = ("torch.randn", "torch.rand", "torch.randint", "torch.randperm", "torch.normal", "torch.multinomial")


def asserts(tree: ast.AST) -> list[int]:
    return [node.lineno for node in ast.walk(tree) if isinstance(node, ast.Assert)]


def broad_handlers(tree: ast.AST) -> list[int]:
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ExceptHandler):
            kinds = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
            if any(kind is None or ast.unparse(kind) in ("Exception", "BaseException") for kind in kinds):
                found.append(node.lineno)
    return found


def pickles(tree: ast.AST) -> list[int]:
    found = []
    for node in ast.walk(tree):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        names += [ast.unparse(node.func)] if isinstance(node, ast.Call) else []
        if any(name.split(".")[0] in PICKLES or name in ("torch.load", "torch.save") for name in names):
            found.append(node.lineno)
    return found


def random_state(tree: ast.AST) -> list[int]:
    """Calls that read or write a random state which they did not make."""
    found = []
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        shared = name.startswith(GLOBAL_RANDOM) and not name.startswith(OWN_STATE)
        drawn = name in DRAWS and not any(keyword.arg == "generator" for keyword in node.keywords)
        if shared or drawn or name in TORCH_STATE:
            found.append(node.lineno)
    return found


def mutable_globals(tree: ast.Module) -> list[int]:
    """Module-level lists, dicts and sets; a constant is a tuple, a frozenset or a MappingProxyType."""
    found = []
    for node in tree.body:
        names = [ast.unparse(t) for t in getattr(node, "targets", [getattr(node, "target", None)]) if t is not None]
        private = all(name.startswith("_") or name in ("__all__",) for name in names)
        value = getattr(node, "value", None)
        if isinstance(node, ast.Assign | ast.AnnAssign) and isinstance(value, ast.List | ast.Set) and not private:
            found.append(node.lineno)
    return found


RULES = (asserts, broad_handlers, pickles, random_state, mutable_globals)
STRANGERS = {"rotcheck.cli.targets", "rotcheck.subjects.calling"}
"""The two places that run code which may raise anything: a module named on the command line, a subject."""


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_package_follows(trees, rule):
    found = {name: lines for name, tree in trees.items() if (lines := rule(tree))}
    allowed = STRANGERS if rule is broad_handlers else set()
    assert set(found) <= allowed, found
    assert all(len(lines) == 1 for lines in found.values()), "one handler in each place is enough"


@pytest.mark.parametrize(
    ("rule", "source"),
    [
        (asserts, "def f(x):\n    assert x"),
        (broad_handlers, "try:\n    f()\nexcept Exception:\n    pass"),
        (broad_handlers, "try:\n    f()\nexcept (ValueError, BaseException):\n    pass"),
        (broad_handlers, "try:\n    f()\nexcept:\n    pass"),
        (pickles, "import pickle"),
        (pickles, "from pickle import loads"),
        (pickles, "torch.load(path)"),
        (random_state, "torch.manual_seed(0)"),
        (random_state, "torch.randn(3)"),
        (random_state, "np.random.randn(3)"),
        (random_state, "random.random()"),
        (mutable_globals, "SEEN = []"),
    ],
)
def test_each_rule_rejects(rule, source):
    assert rule(ast.parse(source))


@pytest.mark.parametrize(
    ("rule", "source"),
    [
        (broad_handlers, "try:\n    f()\nexcept (ValueError, TypeError):\n    pass"),
        (random_state, "torch.randn(3, generator=g)"),
        (random_state, "torch.Generator().manual_seed(0)"),
        (random_state, "random.Random(3).random()"),
        (random_state, "np.random.default_rng(0)"),
    ],
)
def test_each_rule_accepts(rule, source):
    assert not rule(ast.parse(source))


def test_future_annotations_everywhere(trees):
    def has_them(tree: ast.Module) -> bool:
        return any(isinstance(node, ast.ImportFrom) and node.module == "__future__" for node in tree.body)

    code = {name: tree for name, tree in trees.items() if not name.endswith("__init__")}
    assert [name for name, tree in code.items() if not has_them(tree)] == []


def test_every_module_says_what_it_is(trees):
    assert [name for name, tree in trees.items() if tree.body and not ast.get_docstring(tree)] == []


@pytest.mark.parametrize("check", builtin_checks(), ids=lambda check: check.name)
def test_every_check_says_what_it_catches(check):
    for heading in ("Catches\n-------", "Cannot see\n----------", "References\n----------"):
        section = check.documentation.partition(heading)[2]
        assert section.strip(), f"{check.code} {check.name} has no section {heading.splitlines()[0]}"


@pytest.mark.parametrize("check", builtin_checks(), ids=lambda check: check.name)
def test_every_check_begins_with_a_sentence(check):
    assert check.documentation.split("\n\n")[0].endswith(".")
