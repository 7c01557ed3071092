"""Random numbers from a torch.Generator, on whatever device it lives."""

import torch


def generator_of(*numbers: int) -> torch.Generator:
    """A generator for a sequence of numbers, another one for every other sequence: (seed, epoch, index), say."""
    state = 0
    for number in numbers:
        state = (state * 1_000_003 + number + 1) % (1 << 61)
    return torch.Generator().manual_seed(state)


def draw_integer(caller: str, count: int, generator: torch.Generator) -> int:
    """One of 0..count-1, all equally probable."""
    _check_generator(caller, generator)
    return int(torch.randint(count, (), generator=generator, device=generator.device))


def draw_uniform(caller: str, low: float, high: float, generator: torch.Generator) -> float:
    """A number from [low, high)."""
    _check_generator(caller, generator)
    unit = torch.rand((), generator=generator, device=generator.device, dtype=torch.float64)
    return low + (high - low) * float(unit)


def _check_generator(caller: str, generator: object) -> None:
    if not isinstance(generator, torch.Generator):
        raise TypeError(f"{caller}: generator must be a torch.Generator; got {type(generator).__name__}")
