"""One outside thing each: the watch, the disk, the archive, the API, the bucket, the state folder."""
