"""The core is about Transformers, not about any one of them."""

import ast
import re
from pathlib import Path

import mainspring.core
from mainspring import registry

CORE = Path(mainspring.core.__file__).parent
# A paper may be cited by its family's name; code may not say it.
CITED = re.compile(r'""".*?"""|#.*?$', re.DOTALL | re.MULTILINE)


def test_no_family_name_in_the_code_of_the_core() -> None:
    families = [registry.find("families", name) for name in registry.names("families")]
    names = {n for family in families for n in (family.name, *family.model_types)}
    words = re.compile("|".join(rf"(?<![a-z]){re.escape(n)}(?![a-z])" for n in names), re.I)
    for file in CORE.glob("*.py"):
        code = CITED.sub("", file.read_text(encoding="utf-8"))
        assert words.findall(code) == [], file.name


def test_the_core_imports_torch_the_spec_and_itself() -> None:
    allowed = ("mainspring.core", "mainspring.spec", "mainspring.errors", "torch")
    ours_from_top = {"spec", "errors"}
    standard = {"collections", "dataclasses", "math", "typing", "zlib"}
    for file in CORE.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom):
                if node.module == "mainspring":
                    assert {alias.name for alias in node.names} <= ours_from_top, file.name
                else:
                    top = (node.module or "").split(".")[0]
                    assert top in standard or (node.module or "").startswith(allowed), file.name
            elif isinstance(node, ast.Import):
                for alias in node.names:
                    assert alias.name.split(".")[0] in standard | {"torch"}, file.name
