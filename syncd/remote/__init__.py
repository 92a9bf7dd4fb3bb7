"""Talks to the API and the bucket over HTTP: upload URLs, retries, and what a failure leads to.

Begins at `api` and `bucket`; `retry` repeats a step.
"""
