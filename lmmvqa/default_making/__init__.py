"""How the default checkpoint's data and towers are made; nobody needs it to score or to train."""
