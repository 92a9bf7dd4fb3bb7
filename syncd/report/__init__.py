"""Reports to people and programs: status, history, metrics, logs, notifications, systemd.

Begins at `status_publisher`.
"""
