"""Values and decisions every other room uses. No I/O; imports nothing of ours."""
