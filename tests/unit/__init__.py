"""Pure rules, in tables: no input or output."""
