"""The worker side: what a task reports, and the pump that carries it to Redis."""
