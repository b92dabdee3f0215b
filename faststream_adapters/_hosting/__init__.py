"""What hosts share: assembling the lifespan and endpoints, the commands, and the ASGI middleware."""
