"""`syncd config`: shows and changes the configuration; others change it by `writer` too."""
