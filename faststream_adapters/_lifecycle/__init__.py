"""Starting, supervising, draining and stopping brokers."""
