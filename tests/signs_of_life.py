"""What a training says beside its signs of life and its progress in long phases, which a busy machine has more of."""

import re


def besides(said: str) -> list[str]:
    return [line for line in said.splitlines() if not re.match(r"\[\d+ s\] |[\w ]+: [\d,]+ rows, .* memory ", line)]
