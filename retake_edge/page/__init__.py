"""What the server's page and the report show of a video: facts as JSON, and what draws them."""
