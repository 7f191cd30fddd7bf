"""A run's loss curve as a PNG, drawn with Pillow."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

WIDTH, HEIGHT = 900, 480
LEFT, RIGHT, TOP, BOTTOM = 70, 20, 40, 50
TRAINED, SMOOTH, HELD_OUT = "#8aa4c4", "#1f5a99", "#c2410c"
Points = Sequence[tuple[float, float]]


def draw_losses(
    file: Path, losses: Sequence[float], looks: Sequence[tuple[int, float]], title: str
) -> None:
    """Losses of all steps, their moving mean, and the held-out losses."""
    from PIL import Image, ImageDraw, ImageFont

    image = Image.new("RGB", (WIDTH, HEIGHT), "white")
    pen = ImageDraw.Draw(image)
    font = ImageFont.load_default(size=14)
    values = [*losses, *(loss for _, loss in looks)]
    low, high = min(values), max(values)
    margin = (high - low or 1.0) * 0.05
    low, high = low - margin, high + margin

    def place(step: float, loss: float) -> tuple[float, float]:
        x = LEFT + (step - 1) / max(1, len(losses) - 1) * (WIDTH - LEFT - RIGHT)
        return x, TOP + (high - loss) / (high - low) * (HEIGHT - TOP - BOTTOM)

    for tick in range(5):
        loss = low + (high - low) * tick / 4
        y = place(1, loss)[1]
        pen.line([(LEFT, y), (WIDTH - RIGHT, y)], fill="#e5e5e5")
        pen.text((LEFT - 8, y), f"{loss:.2f}", fill="black", font=font, anchor="rm")
    for tick in range(5):
        step = 1 + (len(losses) - 1) * tick / 4
        x = place(step, low)[0]
        pen.text((x, HEIGHT - BOTTOM + 8), f"{step:.0f}", fill="black", font=font, anchor="ma")
    pen.text(((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 8), "step", fill="black", font=font, anchor="ms")
    pen.text((LEFT, 12), title, fill="black", font=font)
    steps = list(enumerate(losses, start=1))
    for points, colour, width in (
        (steps, TRAINED, 1),
        (list(enumerate(smoothed(losses), start=1)), SMOOTH, 2),
        (list(looks), HELD_OUT, 2),
    ):
        places = [place(step, loss) for step, loss in points]
        if len(places) > 1:
            pen.line(places, fill=colour, width=width, joint="curve")
    for step, loss in looks:
        x, y = place(step, loss)
        pen.ellipse([x - 4, y - 4, x + 4, y + 4], fill=HELD_OUT)
    names = (("every step", TRAINED), ("moving mean", SMOOTH), ("held-out", HELD_OUT))
    x = WIDTH - RIGHT
    for name, colour in reversed(names):
        pen.text((x, 12), name, fill=colour, font=font, anchor="ra")
        x -= int(pen.textlength(name, font=font)) + 24
    temporary = file.with_name(f".{file.name}.tmp")
    image.save(temporary, "PNG")
    temporary.replace(file)


def smoothed(losses: Sequence[float]) -> list[float]:
    """The exponential moving mean over about a twentieth of the steps."""
    keep = 1 - 1 / max(1.0, len(losses) / 20)
    made: list[float] = []
    for loss in losses:
        made.append(loss if not made else keep * made[-1] + (1 - keep) * loss)
    return made
