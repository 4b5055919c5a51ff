"""docs/cli.md says what the commands are."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_page_is_up_to_date():
    program = "import runpy; print(runpy.run_path('scripts/cli_reference.py')['page'](), end='')"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, check=True)
    assert (ROOT / "docs" / "cli.md").read_text() == done.stdout.decode(), "run `make docs`"
