"""The tour: the whole promise on one machine, told in about two minutes and judged from outside."""
