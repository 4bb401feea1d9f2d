"""The rules of the house: order of imports, sizes, one test file a module, lazy imports."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "gptoss_jax"
ORDER = [
    "config",
    "roofline",
    "tokenizer",
    "harmony",
    "lanes",
    "norms",
    "rope",
    "attention",
    "router",
    "interventions",
    "mxfp4",
    "experts",
    "batched",
    "cache",
    "model",
    "sharding",
    "checkpoint",
    "sampling",
    "decoding",
    "tracing",
    "causes",
    "routing",
    "nano",
    "course",
    "cli",
]
MODULES = sorted(path for path in PACKAGE.rglob("*.py"))
CORE = [
    "config",
    "norms",
    "rope",
    "attention",
    "router",
    "interventions",
    "mxfp4",
    "experts",
    "cache",
    "model",
    "sampling",
    "decoding",
    "tracing",
]


def part(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(tree: ast.AST) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide the order"
            names |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module or ""}
    return {name.split(".")[1] for name in names if name.startswith("gptoss_jax.")}


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_a_module_imports_only_what_stands_above_it(path):
    here = part(path)
    if here in ("__init__", "__main__"):
        return
    rank = ORDER.index(here)
    below = {
        name for name in imported(ast.parse(path.read_text("utf-8"))) if name in ORDER and ORDER.index(name) > rank
    }
    assert not below


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_a_module_is_one_idea(path):
    text = path.read_text("utf-8")
    assert len(text.splitlines()) <= 300
    tree = ast.parse(text)
    assert ast.get_docstring(tree) or not tree.body
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            assert ast.get_docstring(node), f"{node.name} has no docstring"


def test_the_core_stays_small():
    paths = [path for path in MODULES if part(path) in CORE]
    assert sum(len(path.read_text("utf-8").splitlines()) for path in paths) <= 2600


@pytest.mark.parametrize("name", ORDER)
def test_every_module_has_its_tests(name):
    assert (PACKAGE / f"{name}.py").exists() or (PACKAGE / name / "__init__.py").exists()
    assert list((ROOT / "tests").glob(f"test_{name}*.py")), f"tests/test_{name}.py is missing"


@pytest.mark.parametrize(
    "statement",
    [
        "import gptoss_jax",
        "from gptoss_jax import Trace",
        "import gptoss_jax.routing.metrics",
        "import gptoss_jax.routing.figures",
        "import gptoss_jax.tokenizer",
        "from gptoss_jax import harmony",
        "import gptoss_jax.cli",
    ],
)
def test_what_needs_no_jax_does_not_import_it(statement):
    code = f"import sys; {statement}; sys.exit('jax' in sys.modules or 'torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_public_names_are_what_they_say():
    import gptoss_jax as gj

    for name in gj.__all__:
        assert getattr(gj, name) is not None
    assert callable(gj.generate)
    assert callable(gj.trace)
    with pytest.raises(AttributeError, match="public names"):
        _ = gj.nonsense


def test_no_module_of_the_package_imports_torch():
    for path in MODULES:
        tree = ast.parse(path.read_text("utf-8"))
        names = {a.name.split(".")[0] for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
        names |= {(n.module or "").split(".")[0] for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
        assert not names & {"torch", "transformers", "openai_harmony"}, path
