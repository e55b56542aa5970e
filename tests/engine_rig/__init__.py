"""A real Docker engine for the tests: found, or private and started; images built for it; wholly gone afterwards."""
