"""Whose the services of a stack are: lease, survey, adoption, passwords, what is remembered, removal."""
