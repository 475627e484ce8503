"""The version of the package: read from here by the build, the face and what is written to the disk."""

VERSION = "0.1.0"
