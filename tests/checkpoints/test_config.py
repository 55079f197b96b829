"""Finding a checkpoint's family needs its config.json and no torch."""

import json
import subprocess
import sys
from pathlib import Path

from mainspring.checkpoints.config import find_family, json_text


def test_the_family_is_found_by_the_model_type() -> None:
    for model_type in ("t5", "mt5"):
        assert find_family({"model_type": model_type}, Path("config.json")).name == "t5"


def test_no_torch_is_imported_for_it() -> None:
    program = (
        "import sys; from pathlib import Path\n"
        "from mainspring.checkpoints.config import find_family\n"
        "from mainspring.checkpoints.locate import locate\n"
        "assert find_family({'model_type': 't5'}, Path()).sizes\n"
        "assert not {'torch', 'transformers', 'huggingface_hub'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_json_for_people_keeps_other_scripts_and_the_order_of_keys() -> None:
    text = json_text({"b": "摘要", "a": [1]})
    assert "摘要" in text
    assert text.index('"b"') < text.index('"a"')
    assert json.loads(text) == {"b": "摘要", "a": [1]}
