"""Programs for those who work on syncd: they measure it, draw it, write its pages, and try what it assumes."""
