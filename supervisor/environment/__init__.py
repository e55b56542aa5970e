"""What each app gets in its environment: declared, looked up in a fixed order, checked, and told in one message."""
