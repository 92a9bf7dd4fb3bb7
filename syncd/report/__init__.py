"""Reports to people and programs: status, history, logs, notifications, systemd.

Begins at `status_publisher`.
"""
