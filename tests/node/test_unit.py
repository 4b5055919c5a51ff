"""The systemd unit that operators install: what it starts exists, and systemd has nothing to say against it."""

import configparser
import os
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from ipcs.node import build_parser, config_of

UNIT = Path(__file__).parents[2] / "deploy" / "systemd" / "ipcs.service"


def read_unit():
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    parser.optionxform = str
    parser.read_string(UNIT.read_text().replace("\\\n", ""))
    return parser


def test_the_command_line_of_the_unit_is_understood():
    unit = read_unit()
    program, dash_m, module, *options = shlex.split(unit["Service"]["ExecStart"])
    assert (Path(program).name, dash_m, module) == ("python3", "-m", "ipcs.node")
    assert options.pop() == "$IPCS_OPTIONS"
    config = config_of(build_parser().parse_args(options), {})
    # systemd makes these directories, and removes the first at the stop.
    assert config.socket == Path("/run") / unit["Service"]["RuntimeDirectory"] / "ipcs.sock"
    assert config.repo == Path("/var/lib") / unit["Service"]["StateDirectory"]


def test_systemd_never_gives_the_node_up():
    """By default five starts in ten seconds are the last: a killed node is up again within two."""
    unit = read_unit()
    assert unit["Service"]["Restart"] == "always"
    assert unit["Unit"]["StartLimitIntervalSec"] == "0"


def test_systemd_reads_it_without_complaint():
    if shutil.which("systemd-analyze") is None:
        why = "systemd-analyze NOT HERE: the unit was only read by us"
        if os.environ.get("CI") == "true":
            pytest.fail(why)
        pytest.skip(why)
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", UNIT], capture_output=True, text=True, timeout=60)
    complaints = [line for line in done.stderr.splitlines() if UNIT.name in line]
    assert complaints == []
