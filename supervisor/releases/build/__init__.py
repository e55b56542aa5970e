"""Building a release from an app's folder: archive, manifest, signature, and a script that brings it to a container."""
