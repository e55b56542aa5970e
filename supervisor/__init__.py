"""PID 1 for containers: brings a whole stack up, keeps it up, changes the app under live traffic.

Nothing is imported here: PID 1 must have its signal handlers before anything heavy is loaded.
"""

__version__ = "0.1.0"
