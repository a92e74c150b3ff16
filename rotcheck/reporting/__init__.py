"""How reports are shown to people and to other programs."""
