"""Calls about several nouns, as a page that shows all of them needs."""
