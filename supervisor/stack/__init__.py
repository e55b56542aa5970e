"""The stack of the chosen mode: where its services live, which they are, whose, and each app's place in them."""
