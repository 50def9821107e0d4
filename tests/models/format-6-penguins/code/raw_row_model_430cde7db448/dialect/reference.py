"""The table of what features.sql may use, in conf/README.md: ``python -m pipeline.model.dialect.reference``."""

from __future__ import annotations

from . import entry


def table() -> str:
    """Return the table in Markdown, by name."""
    rows = ["| form | NULL | NaN, overflow, limits |\n|---|---|---|"]
    for usage in sorted(entry.USAGES.values(), key=lambda usage: (not usage.name[0].isalpha(), usage.name)):
        edge = "; ".join(part for part in (usage.edge, "inexact" if usage.inexact else "") if part)
        rows.append(f"| `{_cell(usage.form)}` | {_cell(usage.null)} | {_cell(edge)} |")
    return "\n".join(rows)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    print(table())
