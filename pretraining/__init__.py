"""How the weights that ship with sotglp were made; not part of the wheel."""
