"""What people and programs are told: status, history, metrics, logs, notifications, systemd.

Begins at `status_publisher`.
"""
