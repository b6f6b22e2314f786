"""Files and errors, as every part of the pipelines needs them."""
