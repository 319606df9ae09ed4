"""The example of docs/prices.md runs as it is printed."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from guthaben.services.guthaben import Guthaben
from guthaben.services.prices import Prices

PAGE = Path(__file__).parents[2] / "docs" / "prices.md"


def test_the_example_runs(tmp_path: Path) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    with Guthaben.open(f"sqlite:///{tmp_path / 'credit.db'}") as credit:
        Prices(credit.core.store).take()
        credit.grant("prac_7", 10**9, key="g")
        call = credit.reserve("prac_7", 10**6, key="c")
        names: dict[str, Any] = {
            "credit": credit,
            "call": call,
            "body": {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Hallo"}]},
            "answer": {"usage": {"prompt_tokens": 1000, "completion_tokens": 200}},
        }
        exec(code, names)
        assert names["fitted"].max_output_tokens == 4096
        settled = credit.call("prac_7", call.id)
        assert settled.cost_nano_usd == 270_000
        assert credit.balance("prac_7").available_nano_usd == 10**9 - 270_000
