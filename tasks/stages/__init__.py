"""The stages: one file each, and the table that names all of them."""
