"""Releases of an app: archives built, verified, unpacked, tried under traffic, confirmed, and rolled back."""
