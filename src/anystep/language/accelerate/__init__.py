"""How does a model say the same with fewer or cheaper passes? One method a file."""

from anystep.language.accelerate.hogwild import Hogwild, HogwildEngine
from anystep.language.accelerate.ngrams import NGrams
from anystep.language.accelerate.superposed_decoding import Drafts, Mixing, superposed_decoding

__all__ = ["Drafts", "Hogwild", "HogwildEngine", "Mixing", "NGrams", "superposed_decoding"]
