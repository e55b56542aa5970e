"""One small app in several languages. What it does is told in `release.py`; the others do the same."""
