"""AsgiFastStream, the application for a process without a web framework."""
