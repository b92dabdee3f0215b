"""What hosts share: lifespan and endpoints, handlers with arguments from the host, commands, middleware."""
