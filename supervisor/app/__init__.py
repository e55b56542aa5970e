"""The app: its generations, the gate each must pass, and what holds its port when there is none."""
