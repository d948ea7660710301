"""Facts of a video as JSON for the server's page and the report, and the scripts that draw them."""
