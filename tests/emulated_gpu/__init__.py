"""An emulated GPU for the tests; see emulator.py."""
