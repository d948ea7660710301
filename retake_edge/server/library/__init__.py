"""Videos that were opened on the page, with what was said about each."""
