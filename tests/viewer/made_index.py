"""An index that is complete, and questions to it."""

from contextlib import closing

from comity.viewer.index import RunIndex
from comity.viewer.query import Filter, find_page

EVERYTHING = Filter()


def fresh_index(run, folder):
    """Return the index of a run once every file is in it."""
    index = RunIndex(run, folder)
    while not index.refresh(5.0).complete:
        pass
    return index


def ask(index, wanted=EVERYTHING, sort="step", descending=False, number=1):
    """Return a page of negotiations."""
    with closing(index.connect()) as connection:
        return find_page(connection, wanted, sort, descending, number)
