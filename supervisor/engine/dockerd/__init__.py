"""Our own Docker daemon as a supervised child: the ground it needs, what a dead one left, its start and its stop."""
