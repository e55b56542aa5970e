"""The front: how requests reach the generation that serves, and what holds them while none does."""
