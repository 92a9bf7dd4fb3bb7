"""Single parts on real files, real inotify and made-up time."""
