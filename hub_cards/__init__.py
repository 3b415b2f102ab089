"""Cards for the Hub: templates, and the code that fills them."""
