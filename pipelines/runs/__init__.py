"""What a run is, and how it is made, scored, drawn and opened again."""
