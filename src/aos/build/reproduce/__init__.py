"""Building again where everything differs that must not matter, and telling what came out different."""
