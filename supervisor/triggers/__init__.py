"""What asks the controller for something: signals, the trigger file, the control API."""
