"""How far systemd thinks the service is confined."""

import re
import subprocess
from pathlib import Path

UNIT = Path(__file__).parents[2] / "units/immud.service"
# Tenths of a point; what each option that is left out would break is said in the unit.
EXPOSURE = 54


def test_the_service_is_as_confined_as_it_can_be() -> None:
    judged = subprocess.run(
        (
            *("systemd-analyze", "security", "--offline=true", "--no-pager"),
            *(f"--threshold={EXPOSURE}", str(UNIT)),
        ),
        check=False,
        capture_output=True,
        text=True,
    )
    assert judged.returncode == 0, judged.stdout[-200:] + judged.stderr
    assert "Overall exposure level for immud.service" in judged.stdout


def test_strangers_do_not_use_up_its_descriptors() -> None:
    limit = re.search(r"^LimitNOFILE=(\d+)$", UNIT.read_text(), re.MULTILINE)
    assert limit
    assert int(limit[1]) >= 8192
