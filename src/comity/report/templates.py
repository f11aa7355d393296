"""The templates of all reports."""

from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from comity.report.tables import show


def get_template(name: str) -> Template:
    """Return a template of this package; `show` writes its numbers.

    A misspelt name in it is an error and leaves no hole. What is filled in is escaped: texts of models, names in files
    and options are hostile.
    """
    environment = Environment(
        loader=PackageLoader("comity.report", ""), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters["show"] = show
    return environment.get_template(name)
