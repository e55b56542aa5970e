"""Programs that the tests run as processes of their own; each is a file to be executed, none is imported."""
