"""The shape of the project: packages, documents, units."""
