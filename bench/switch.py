"""`switch`: changing the active pack, and bringing one in from the disk."""

from __future__ import annotations

from bench.inference import Setting, packs
from bench.processes import Worker
from bench.report import Case, Report

PROMPT, STEPS = 64, 12
MILLISECONDS = 1e3


def switch(setting: Setting) -> Report:
    """What the first token after a change of pack costs more, and what loading a pack takes."""
    extra: list[float] = []
    cold: list[float] = []
    cached: list[float] = []
    with packs(setting.card, 3) as (*two, third):
        size = sum(file.stat().st_size for file in third.iterdir())
        with Worker(setting.base_dir, setting.engine, two) as worker:
            described = setting.described(worker)
            for number in range(setting.rounds + 1):
                steps = worker.ask("switch", prompt=PROMPT, steps=STEPS)
                from_disk = worker.ask("load", folder=str(third), cold=True)
                from_memory = worker.ask("load", folder=str(third), cold=False)
                if number:
                    extra.append(MILLISECONDS * (steps["other"] - steps["same"]))
                    cold.append(MILLISECONDS * from_disk["seconds"])
                    cached.append(MILLISECONDS * from_memory["seconds"])
    pack = f"a pack of {size / 1e6:.1f} MB"
    names = {
        f"{setting.card.name}: a token after a switch, beyond one without": extra,
        f"{setting.card.name}: {pack} from a cold disk": cold,
        f"{setting.card.name}: {pack} from the system's cache": cached,
    }
    cases = [
        Case.of_rounds(name, rounds, None, None, "ms", higher_is_better=False)
        for name, rounds in names.items()
    ]
    return Report("switch", described, cases)
