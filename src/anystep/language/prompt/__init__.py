"""What is a model shown before its question? Worked examples, chosen."""

from anystep.language.prompt.exemplars import Example, exemplars

__all__ = ["Example", "exemplars"]
